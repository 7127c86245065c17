"""The flags of a run that goes on from another: what is not given is as it was there."""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml

from torchrec_mm.config import flag_names, parse, to_yaml
from torchrec_mm.errors import InputError
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
    *("run_dir", "resume", "once", "follow", "follow_redis", "start_from", "allow_keys"),
    *("checkpoint_steps", "test_auc", "profile_steps", "tf32", "compile"),
)
# How the next requests are learned from, which may be another way.
OF_LEARNING = (
    *("learning_rate", "weight_decay", "table_learning_rate", "batch_requests"),
    *("batch_behaviours", "seed", "window_s", "stream"),
)
# What arrives is seen once, by a model that has converged: at the rates of its training it would
# forget more than it learns (``replay/README.md``).
SLOWER = {"learning_rate": 0.25, "table_learning_rate": 0.1}

ConfigT = TypeVar("ConfigT", bound=Any)  # a ``FollowSettings`` with run_dir


@contextmanager
def over_run_before(
    config_class: type[ConfigT], argv: Sequence[str] | None
) -> Iterator[Sequence[str]]:
    """What ``parse`` is to be given: with follow, flags not given are those of the run before.

    That is run_dir where it is resumed, else start_from; of one that did not follow anything yet,
    rates are by the shares of ``SLOWER``.

    Raises:
        InputError: no such run.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    given = _followed(config_class, words)
    if given is None:
        yield words
        return
    said = _said_before(given)
    kept = {name: v for name, v in said.items() if name not in OF_BEFORE}
    if said.get("follow") is None and said.get("follow_redis") is None:
        kept |= {name: kept[name] * share for name, share in SLOWER.items() if kept.get(name)}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.yaml")
        file.write_text(yaml.safe_dump(kept), encoding="utf-8")
        yield ["--config", str(file), *words]


def check_goes_on(config: ConfigT) -> None:
    """InputError for a flag that contradicts what the run was trained with; without follow none."""
    if not config.is_following:
        return
    before, known = _run_before(config), _said_before(config)
    now = yaml.safe_load(to_yaml(with_absolute_paths(config)))
    is_begun = before == config.run_dir
    if is_begun and bool(known.get("follow_redis")) != bool(config.follow_redis):
        kind = "follow_redis" if known.get("follow_redis") else "follow"
        raise InputError(f"{kind} must be given to go on with {before}: its place is there")
    may_change = (*MAY_CHANGE, *INPUTS, *OF_BEFORE, *(() if is_begun else OF_LEARNING))
    check_same(before, known, {name: now[name] for name in known}, may_change)


def _followed(config_class: type[ConfigT], words: list[str]) -> ConfigT | None:
    """What the words say by themselves, None unless it is to follow something."""
    asked = [word for word in words if not word.startswith("--print_config")]
    may_follow = any(word.startswith(("--follow", "--config")) for word in asked)
    if not may_follow or {"-h", "--help"} & {*asked}:
        return None
    try:
        given = parse(config_class, asked)
    except InputError:  # says so again, where it is parsed for good
        return None
    return given if given.is_following else None


def _run_before(config: ConfigT) -> Path:
    """The run whose flags count; one that was killed before it had both files is begun anew."""
    own: Path = config.run_dir
    begun = config.resume and all((own / n).is_file() for n in ("config.yaml", "model.json"))
    return own if begun else cast(Path, config.start_from)


def _said_before(config: ConfigT) -> dict[str, Any]:
    """What that run's config says of the flags that there are."""
    said, _ = read_run(_run_before(config), "ranker")
    return {name: v for name, v in (THEN | said).items() if name in flag_names(type(config))}
