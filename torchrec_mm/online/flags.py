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


def parse_following(config_class: type[ConfigT], argv: Sequence[str] | None) -> ConfigT:
    """As ``parse``; with follow, flags that are not given are those of the run gone on with.

    That is run_dir where it is resumed, else start_from.

    Raises:
        InputError: as ``parse``, no such run, or a flag that contradicts what it was trained with.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    given = parse(config_class, words)
    if given.follow is None or given.start_from is None:
        return given
    own: Path = given.run_dir
    begun = given.resume and (own / "config.yaml").is_file()
    before = own if begun else given.start_from
    config, _ = read_run(before, "ranker")
    known = {name: v for name, v in (THEN | config).items() if name in flag_names(config_class)}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.yaml")
        kept = {name: value for name, value in known.items() if name not in OF_BEFORE}
        file.write_text(yaml.safe_dump(kept), encoding="utf-8")
        found = parse(config_class, ["--config", str(file), *words])
    now = yaml.safe_load(to_yaml(with_absolute_paths(found)))
    may_change = (*MAY_CHANGE, *INPUTS, *OF_BEFORE, *(() if begun else OF_LEARNING))
    check_same(before, known, {name: now[name] for name in known}, may_change)
    return found
