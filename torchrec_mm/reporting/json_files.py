"""Read JSON that other programs wrote, and refuse what is not what it should be, by name."""

from pathlib import Path
from typing import Any

from torchrec_mm.documents import read_json
from torchrec_mm.errors import InputError


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file; InputError for another value, NaN and its like, or no JSON."""

    def refuse(constant: str) -> None:
        raise InputError(f"{file} must hold JSON numbers or null, got {constant}")

    raw = read_json(file, refuse)
    if not isinstance(raw, dict):
        raise InputError(f"{file} must be a JSON object, got {raw!r:.80}")
    return raw


def required(file: Path, raw: Any, key: str, kind: type) -> Any:
    """``raw[key]``, which must be there and of this very type; InputError if not."""
    value = raw.get(key) if isinstance(raw, dict) else None
    if type(value) is not kind:
        raise InputError(f"{file} {key} must be {kind.__name__}, got {value!r:.80}")
    return value


def number(file: Path, raw: dict[str, Any], key: str) -> Any:
    """``raw[key]``, a number, or None where it is missing or null; InputError for other values."""
    value = raw.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise InputError(f"{file} {key} must be a number or null, got {value!r:.80}")
    return value
