"""The page of a study: its tables, one HTML file that needs nothing else."""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render_study(
    study: Mapping[str, Any], how: str, tables: Mapping[str, Sequence[Sequence[str]]]
) -> str:
    """The whole page; every text from outside is escaped.

    Args:
        study: what study.json holds. how: what makes it fair, in words.
        tables: by heading, each with its head first.
    """
    environment = Environment(
        loader=PackageLoader("torchrec_mm.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("study.html").render(study=study, how=how, tables=tables)
