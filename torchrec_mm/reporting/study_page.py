"""The page of a study: its tables, one HTML file that needs nothing else."""

from collections.abc import Mapping, Sequence
from typing import Any

from torchrec_mm.reporting.html import page_templates


def render_study(
    study: Mapping[str, Any],
    how: str,
    tables: Mapping[str, Sequence[Sequence[str]]],
    figure: str = "",
) -> str:
    """The whole page; every text from outside is escaped.

    Args:
        study: its "title" and "about". how: what makes it fair, in words.
        tables: by heading, each with its head first. figure: above them, of figures.py.
    """
    template = page_templates().get_template("study.html")
    return template.render(study=study, how=how, tables=tables, figure=figure)
