"""Typed dataclasses from the command line and YAML; the user's mistakes in one line.

A command is ``main(argv)``: it calls ``parse(Config, argv)``, does its work, and raises InputError
for what the user can fix. ``run`` turns that into the promised exit status.
"""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from inspect import get_annotations, signature
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from torchrec_mm.config_words import in_our_words
from torchrec_mm.documents import check_keys, read_text
from torchrec_mm.ending import in_one_line, print_anything
from torchrec_mm.errors import HostError, InputError

ConfigT = TypeVar("ConfigT")
SCRIPT = "torchrec-mm"  # which runs every command, commands.py

# How long a rank keeps quiet when it has the same to say as the first one, which may be late to see
# it, or when another one has left, who says why. The launcher ends it meanwhile.
FIRST_SPEAKS_S, PEER_SPEAKS_S = 10.0, 1.0


def parse(
    config_class: type[ConfigT],
    argv: Sequence[str] | None = None,
    positional: str = "",
    command: str = "",
) -> ConfigT:
    """Build ``config_class`` (a frozen dataclass) from flags and an optional ``--config`` YAML.

    Flags win over YAML, and the last of a flag over those before. ``--help`` shows the class
    docstring and the docstring under each field; ``--print_config`` prints the resulting YAML. Both
    leave with status 0. ``--flag`` alone means true where the field is a bool; the field
    ``positional`` may come first, without its flag.
    ``command`` is what follows ``python -m`` in the help, the module of the class if empty; or, in
    the script torchrec-mm, what follows that.

    Raises:
        InputError: an unknown flag or key, a key given twice, a missing or garbled YAML file, a
            value of the wrong type, a missing required flag, a path that this locale cannot name,
            or a ValueError from ``__post_init__``.
    """
    from jsonargparse import ArgumentError

    words = list(sys.argv[1:] if argv is None else argv)
    if positional and words and not words[0].startswith("-"):
        words.insert(0, f"--{positional}")
    words = _config_first(_with_true(words, config_class))
    _check_values(words)
    helped = any(word.startswith(("-h", "--help", "--print_config")) for word in words)
    parser = _parser_for(config_class, command or _command_of(config_class), helped)
    try:
        values = parser.instantiate_classes(parser.parse_args(words)).as_dict()
    except ArgumentError as error:
        raise InputError(in_our_words(str(error), config_class)) from error
    values.pop("config")
    for name, value in values.items():
        _check_encoding(f"--{name}", value)
    try:
        return config_class(**values)
    except ValueError as error:
        raise InputError(_one_line(error)) from error


def flag_words(flags: Mapping[str, Any]) -> list[str]:
    """``{"bank_slots": 0, "in_batch": False}`` as ``parse`` reads it from a command line."""
    values = ((n, v if isinstance(v, str | Path) else json.dumps(v)) for n, v in flags.items())
    return [word for name, value in values for word in (f"--{name}", str(value))]


def check_fields(config: Any, holds: Callable[[Any], bool], rule: str, *names: str) -> None:
    """For ``__post_init__``: refuse a field, or a number in a tuple of them, that breaks a rule.

    Raises:
        InputError: naming the field, the rule ("at least 1") and the value.
    """
    for name in names:
        value = getattr(config, name)
        numbers = value if isinstance(value, tuple) else (value,)
        if not numbers or not all(map(holds, numbers)):
            raise InputError(f"{name} must be {rule}, got {value}")


def to_yaml(config: Any) -> str:
    """The config as YAML that ``--config`` reads back to an equal config."""
    import yaml

    values = asdict(config)
    ordered = {name: values[name] for name in flag_names(type(config))}
    return yaml.safe_dump(_plain(ordered), sort_keys=False)


def run(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> int:
    """Run a command: 0 done, 2 the user's mistake in one line on stderr, 130 interrupted.

    1 in one line where a disk is full or broken. Training that SIGTERM stopped leaves with 143
    instead; see ``runs.stop``. One rank of several that fails ends at once, whatever its threads
    wait for, and its launcher ends the others.
    """
    print_anything()
    try:
        main(argv)
        with suppress(BrokenPipeError):  # who reads us has seen enough
            sys.stdout.flush()
    except KeyboardInterrupt:
        return _leave(130)
    except Exception as error:
        if told := in_one_line(error):
            status, line = told
        elif isinstance(error, InputError):
            status, line = 2, _one_line(error)
            if not _speaks_for_all(error):
                time.sleep(FIRST_SPEAKS_S)
        elif _ranks() == 1:
            raise
        else:
            if " by peer" in str(error):  # gloo: connection closed, or reset
                time.sleep(PEER_SPEAKS_S)
            sys.excepthook(*sys.exc_info())  # torch's names the rank
            return _leave(1)
        print(f"error: {line}", file=sys.stderr)
        return _leave(status)
    return 0


def _ranks() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _speaks_for_all(error: InputError) -> bool:
    """Whether this rank is the first of those that have the same to say."""
    rank = "LOCAL_RANK" if isinstance(error, HostError) else "RANK"
    return int(os.environ.get(rank, "0")) == 0


def _leave(status: int) -> int:
    """The status; one rank of several does not return.

    On its way out the interpreter would wait for threads of the group, and they for other ranks.
    """
    if _ranks() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _parser_for(config_class: type, command: str, helped: bool) -> Any:
    """``helped``: docstrings are read, too, which takes most of a second."""
    # Not on top: apps.doctor has to start where jsonargparse is not installed.
    from jsonargparse import ArgumentParser, set_parsing_settings

    class PlainParser(ArgumentParser):
        def format_help(self, *formatter: Any) -> str:
            return re.sub(r"<class\s+'(\w+)'>", r"\1", super().format_help(*formatter))

        def parse_path(self, path: str, **how: Any) -> Any:  # UTF-8 whatever the locale
            text = read_text(Path(path))
            check_keys(text, path)
            return self.parse_string(text, path=path, **how)

    set_parsing_settings(docstring_parse_attribute_docstrings=helped)
    parser = PlainParser(
        prog=_program(command),
        description=config_class.__doc__,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="YAML file with any of the flags below")
    names = flag_names(config_class)
    for some in _as_in_signature(names, config_class):
        parser.add_class_arguments(config_class, as_group=False, skip={*names}.difference(some))
    return parser


def _as_in_signature(names: list[str], config_class: type) -> list[list[str]]:
    """The names in order, cut where jsonargparse, which goes by the signature, would change it."""
    place = {field: i for i, field in enumerate(signature(config_class).parameters)}
    runs: list[list[str]] = []
    for name in names:
        if not runs or place[name] < place[runs[-1][-1]]:
            runs.append([])
        runs[-1].append(name)
    return runs


def flag_names(config_class: type) -> list[str]:
    """The fields as help and YAML list them: a command's own before those that it shares."""
    own = (name for each in config_class.__mro__ for name in get_annotations(each))
    return list(dict.fromkeys(own))


def _with_true(argv: list[str], config_class: type) -> list[str]:
    """Write ``--flag true`` for a bool field whose flag stands alone."""
    bools = {f"--{name}" for name, kind in get_type_hints(config_class).items() if kind is bool}
    words = []
    for word, following in zip(argv, [*argv[1:], "--"], strict=False):
        words += [word, "true"] if word in bools and following.startswith("--") else [word]
    return words


def _config_first(argv: list[str]) -> list[str]:
    """Move ``--config FILE`` to the front: the parser lets whatever comes last win."""
    files: list[str] = []
    flags: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--config":
            files += [word, *islice(words, 1)]
        else:
            (files if word.startswith("--config=") else flags).append(word)
    return files + flags


def _check_values(words: Sequence[str]) -> None:
    """Refuse a value that gives a key twice, ``{rows: 1, rows: 2}``, or that the locale garbled."""
    for word, following in zip(words, [*words[1:], ""], strict=False):
        flag, equals, value = word.partition("=")
        if flag.startswith("--"):
            value = value if equals else following
            _check_encoding(flag, value)
            if "{" in value:
                check_keys(value, flag)


def _check_encoding(name: str, value: Any) -> None:
    """Refuse what the locale garbled on its way here, or would on its way to a file's name."""
    if isinstance(value, list | tuple | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            _check_encoding(name, inner)
    if isinstance(value, Path) and "\0" in str(value):
        raise InputError(f"{name} must be a path, got {str(value)!a}")
    if isinstance(value, str | Path) and not str(value).isascii():
        text, of_files = str(value), sys.getfilesystemencoding()
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise InputError(f"{name} must be UTF-8, got {text!a}: set PYTHONUTF8=1 if it is")
        if isinstance(value, Path) and of_files != "utf-8":
            rule = f"{name} must be ASCII where names of files are {of_files}"
            raise InputError(f"{rule}, got {text!a}: set PYTHONUTF8=1")


def _program(command: str) -> str:
    """What the user typed to get to ``apps.train_ranker``."""
    if Path(sys.argv[0]).name == SCRIPT:
        return f"{SCRIPT} {command.rpartition('apps.')[2]}"
    return f"python -m {command}"


def _command_of(config_class: type) -> str:
    """``apps.train_ranker``, also where that module runs as ``__main__``."""
    module = config_class.__module__
    spec = getattr(sys.modules[module], "__spec__", None)
    if module == "__main__":
        return spec.name if spec else Path(sys.argv[0]).stem
    return module


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
