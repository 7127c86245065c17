"""Typed dataclasses from the command line and YAML; the user's mistakes in one line.

A command is ``main(argv)``: it calls ``parse(Config, argv)``, does its work, and raises InputError
for what the user can fix. ``run`` turns that into the promised exit status.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from torchrec_mm.errors import InputError, full_disk

ConfigT = TypeVar("ConfigT")


def parse(
    config_class: type[ConfigT],
    argv: Sequence[str] | None = None,
    positional: str = "",
    command: str = "",
) -> ConfigT:
    """Build ``config_class`` (a frozen dataclass) from flags and an optional ``--config`` YAML.

    Flags win over YAML. ``--help`` shows the class docstring and the docstring under each field;
    ``--print_config`` prints the resulting YAML. Both leave with status 0. ``--flag`` alone means
    true where the field is a bool; the field ``positional`` may come first, without its flag.
    ``command`` is what follows ``python -m`` in the help, the module of the class if empty.

    Raises:
        InputError: an unknown flag or YAML key, a missing or garbled YAML file, a value of the
            wrong type, a missing required flag, or a ValueError from ``__post_init__``.
    """
    from jsonargparse import ArgumentError

    words = list(sys.argv[1:] if argv is None else argv)
    if positional and words and not words[0].startswith("-"):
        words.insert(0, f"--{positional}")
    words = _config_first(_with_true(words, config_class))
    parser = _parser_for(config_class, command or _command_of(config_class))
    try:
        values = parser.instantiate_classes(parser.parse_args(words)).as_dict()
    except ArgumentError as error:
        raise InputError(_in_our_words(str(error), config_class)) from error
    values.pop("config")
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

    return yaml.safe_dump(_plain(asdict(config)), sort_keys=False)


def run(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> int:
    """Run a command: 0 done, 2 the user's mistake in one line on stderr, 130 interrupted.

    A full disk is 1, as other failures are, but a line too, of any rank. Training that SIGTERM
    stopped leaves with 143 instead; see ``train.stop``.
    """
    try:
        main(argv)
    except Exception as error:
        if cause := full_disk(error):
            words = "a disk must have room for what is written"
            print(f"error: {words}: {_one_line(cause)}", file=sys.stderr)
            return 1
        if not isinstance(error, InputError):
            raise
        if int(os.environ.get("RANK", "0")) == 0:
            print(f"error: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _parser_for(config_class: type, command: str) -> Any:
    # Not on top: apps.doctor has to start where jsonargparse is not installed.
    from jsonargparse import ArgumentParser, set_parsing_settings

    class PlainParser(ArgumentParser):
        def format_help(self) -> str:
            return re.sub(r"<class\s+'(\w+)'>", r"\1", super().format_help())

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = PlainParser(
        prog=f"python -m {command}",
        description=config_class.__doc__,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="YAML file with any of the flags below")
    parser.add_class_arguments(config_class, as_group=False)
    return parser


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


def _command_of(config_class: type) -> str:
    """``apps.train_ranker``, also where that module runs as ``__main__``."""
    module = config_class.__module__
    spec = getattr(sys.modules[module], "__spec__", None)
    if module == "__main__":
        return spec.name if spec else Path(sys.argv[0]).stem
    return module


# jsonargparse's words, and ours: field, rule, value.
_REWORDED = (
    (r"unrecognized arguments: (.*)", r"unknown flag: \1"),
    (r"argument (--\S+): expected one argument", r"\1 must have a value, got none"),
    (r"Option '(.*)' is not accepted", r"--config holds an unknown key: \1"),
    (
        r"Parser key \"(\S+)\": Problem with given class_path .*: Option '(.*)' is not accepted",
        r"--\1 holds an unknown key: \2",
    ),
    (r"Group '(.*)' does not accept option '(.*)'", r"--config holds an unknown key: \1.\2"),
    (r'Parser key "config":\s*(.*)', r"--config must be a YAML file: \1"),
    (r"Problems parsing config: (.*)", r"--config must be a YAML file: \1"),
    (r"Unexpected config:", r"--config must hold `flag: value` lines, got nothing"),
    (r"Unexpected config: (.*)", r"--config must hold `flag: value` lines, got \1"),
)
_WRONG_VALUE = re.compile(r'Parser key "([\w.]+)".*(?:Got|Given) value: ?(.*)', re.DOTALL)


def _in_our_words(message: str, config_class: type) -> str:
    wrong = _WRONG_VALUE.match(message)
    if wrong and not message.startswith('Parser key "config"'):
        flag, value = wrong.groups()
        return (
            f"--{flag} must be {_describe(_type_of(config_class, flag))}, got {value or 'nothing'}"
        )
    message = " ".join(message.split())
    missing = re.fullmatch(r"the following arguments are required: (.*)", message)
    if missing:
        return ", ".join(f"--{flag}" for flag in missing[1].split(", ")) + " must be given"
    for theirs, ours in _REWORDED:
        if re.fullmatch(theirs, message):
            return re.sub(theirs, ours, message).strip()
    return re.sub(r'Parser key "([\w.]+)":', r"--\1:", message)


def _type_of(config_class: type, flag: str) -> Any:
    """Annotation of a field; ``part.width`` is the field of a dataclass inside."""
    annotation: Any = config_class
    for name in flag.split("."):
        annotation = get_type_hints(annotation)[name]
    return annotation


def _describe(annotation: Any) -> str:
    """``list[int] | None`` -> ``list of int or null``."""
    inner = get_args(annotation)
    match get_origin(annotation):
        case origin if origin is Literal:
            return f"one of {', '.join(map(str, inner))}"
        case origin if origin in (Union, UnionType):
            return " or ".join(map(_describe, inner))
        case origin if origin in (list, tuple, Sequence):
            return f"a [list], each {_describe(inner[0])}"
        case origin if origin is dict:
            return f"a {{name: ...}} mapping, each {_describe(inner[1])}"
    names = {
        NoneType: "null",
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        Path: "a path",
        Any: "a value",
    }
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
