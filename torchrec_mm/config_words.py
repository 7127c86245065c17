"""What is wrong with a flag or a key, in our words: field, rule, value."""

import re
from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

# jsonargparse's words, and ours.
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


def in_our_words(message: str, config_class: type) -> str:
    wrong = _WRONG_VALUE.match(message)
    if wrong and not message.startswith('Parser key "config"'):
        flag, value = wrong.groups()
        wanted = _describe(_type_of(config_class, flag))
        return f"--{flag} must be {wanted}, got {value or 'nothing'}"
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
