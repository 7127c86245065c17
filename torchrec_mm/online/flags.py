"""The flags of a run that goes on from another: what is not given is as it was there."""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from torchrec_mm.config import flag_names, parse, to_yaml
from torchrec_mm.runs.run_folder import (
    INPUTS,
    MAY_CHANGE,
    THEN,
    check_same,
    read_run,
    with_absolute_paths,
)

# Of the run before alone: how long it went on, how it was watched, what it followed.
OF_BEFORE = (
    *("run_dir", "resume", "once", "follow", "start_from", "allow_keys"),
    *("checkpoint_steps", "test_auc", "profile_steps"),
)
# How the next requests are learned from, which may be another way.
OF_LEARNING = (
    *("learning_rate", "weight_decay", "table_learning_rate", "batch_requests"),
    *("batch_behaviours", "seed", "window_s"),
)

ConfigT = TypeVar("ConfigT", bound=Any)  # a ``FollowSettings`` with run_dir


def going_on(given: ConfigT, argv: Sequence[str] | None) -> ConfigT:
    """What a command asks; with follow, flags that are not given are those of the run before.

    That is run_dir where it is resumed, else start_from.

    Args:
        given: what ``parse`` made of ``argv``.

    Raises:
        InputError: no such run, or a flag that contradicts what it was trained with.
    """
    if given.follow is None:
        return given
    own: Path = given.run_dir
    # A run that was killed before it had both is begun anew.
    begun = given.resume and all((own / name).is_file() for name in ("config.yaml", "model.json"))
    before: Path = own if begun else given.start_from
    config, _ = read_run(before, "ranker")
    known = {name: v for name, v in (THEN | config).items() if name in flag_names(type(given))}
    found = _parse_over(known, type(given), list(sys.argv[1:] if argv is None else argv))
    now = yaml.safe_load(to_yaml(with_absolute_paths(found)))
    may_change = (*MAY_CHANGE, *INPUTS, *OF_BEFORE, *(() if begun else OF_LEARNING))
    check_same(before, known, {name: now[name] for name in known}, may_change)
    return found


def _parse_over(known: dict[str, Any], config_class: type[ConfigT], words: list[str]) -> ConfigT:
    """As ``parse``, with other defaults."""
    kept = {name: value for name, value in known.items() if name not in OF_BEFORE}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.yaml")
        file.write_text(yaml.safe_dump(kept), encoding="utf-8")
        return parse(config_class, ["--config", str(file), *words])
