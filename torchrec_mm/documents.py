"""Read the small files that people and programs write: UTF-8 whatever the locale, no key twice."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from torchrec_mm.errors import InputError

RecordT = TypeVar("RecordT")


def read_text(path: Path) -> str:
    """A whole file but the mark some editors put first; InputError unless readable as UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} must be readable: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} must be UTF-8 text: {error}") from error


def read_json(path: Path, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """The JSON value in a file.

    Args:
        path: of the file. parse_constant: as ``json.loads`` takes it.

    Raises:
        InputError: it cannot be read, is not JSON, or an object has a key twice.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise InputError(f"{path} must give each key once, got {key} twice")
            seen.add(key)
        return dict(pairs)

    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=parse_constant)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} must be JSON: {error}") from error


def read_record(path: Path, record: type[RecordT], form: int, *, of_another: str = "") -> RecordT:
    """A flat dataclass from the JSON object of its fields and their ``format``, a number.

    Args:
        path: of the file. record: the dataclass. form: the format that is read.
        of_another: ends the complaint about another format.

    Raises:
        InputError: as ``read_json``; another format, or a field missing or of another type.
    """
    raw = read_json(path)
    if not isinstance(raw, dict) or raw.get("format") != form:
        found = raw.get("format") if isinstance(raw, dict) else raw
        raise InputError(f"{path} format must be {form}, got {found!r}{of_another}")
    kinds = get_type_hints(record)
    for name, kind in kinds.items():
        if type(raw.get(name)) is not kind:
            raise InputError(f"{path} {name} must be {kind.__name__}, got {raw.get(name)!r}")
    return record(**{name: raw[name] for name in kinds})


def read_yaml(path: Path) -> Any:
    """The YAML document in a file, None if empty; InputError for no YAML, or a key given twice."""
    import yaml  # not on top: config, which apps.doctor needs, must load without it

    text = read_text(path)
    check_keys(text, str(path))
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path} must be YAML: {error}") from error


def check_keys(text: str, where: str) -> None:
    """Refuse a key that a YAML mapping, at any depth, gives twice: the last would win.

    What is not YAML at all passes: it is for whoever parses the text to say so.

    Raises:
        InputError: names the key, by all those above it, and both lines.
    """
    import yaml

    try:
        document = yaml.compose(text, yaml.SafeLoader)
        lines: dict[str, int] = {}
        for key, line in _keys(document, "", set()):
            if key in lines:
                rule = f"{where} must give each key once"
                raise InputError(f"{rule}, got {key} on lines {lines[key]} and {line}")
            lines[key] = line
    except (yaml.YAMLError, RecursionError):
        return


def _keys(node: Any, above: str, seen: set[int]) -> Iterator[tuple[str, int]]:
    """Each key below a node, after those above it, ``a.b[0].c``, and its line; aliases once."""
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if node.id == "sequence":
        for number, item in enumerate(node.value):
            yield from _keys(item, f"{above}[{number}]", seen)
    if node.id == "mapping":
        for key, value in node.value:
            path = f"{above}.{key.value}" if above else str(key.value)
            yield path, key.start_mark.line + 1
            yield from _keys(value, path, seen)
