"""What a message says of an item: it was created, changed or deleted."""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchrec_mm.errors import InputError

KINDS = ("created", "changed", "deleted")
FIELDS = ("item_id", "version", "event", "title", "image", "image_path")
SHOWN = 60  # characters of a wrong value in a complaint


@dataclass(frozen=True)
class ItemEvent:
    """An item as its owner says it is, whole: what an event leaves out, the item has not.

    version: rises with each event of an item, say milliseconds or a number of the row.
    title: not blank. picture: encoded, or the path of a file.
    """

    item_id: int
    version: int
    deleted: bool
    title: str | None = None
    picture: bytes | Path | None = None


def event_of(fields: Mapping[str, Any], pictures: Path | None) -> ItemEvent:
    """Read a message's fields, from JSON, Parquet or a stream alike.

    Args:
        fields: item_id and version, whole numbers or their digits; event, one of ``KINDS``, by
            default changed; title, text; image, bytes or their base64; image_path. Missing, null
            and blank are the same.
        pictures: the folder that image_path is relative to; None: paths are refused.

    Raises:
        InputError: another field, one that is missing or of a wrong type, or a path that leads out
            of ``pictures``.
    """
    given = {name: value for name, value in fields.items() if value not in (None, "", b"")}
    if unknown := sorted(given.keys() - set(FIELDS)):
        raise InputError(f"event must have no field but {', '.join(FIELDS)}, got {unknown[0]}")
    kind = _text(given, "event") or "changed"
    if kind not in KINDS:
        raise InputError(f"event must be one of {', '.join(KINDS)}, got {_shown(kind)}")
    title = _text(given, "title")
    return ItemEvent(
        item_id=_number(given, "item_id"),
        version=_number(given, "version"),
        deleted=kind == "deleted",
        title=title if title and title.strip() else None,
        picture=_picture(given, pictures),
    )


def fields_of_json(text: bytes) -> tuple[dict[str, Any], str]:
    """The fields of a JSON object, and why it is none; one of the two is empty."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        return {}, f"event must be JSON: {error}"
    return (fields, "") if isinstance(fields, dict) else ({}, "event must be a JSON object")


def _number(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    if isinstance(value, bytes):
        value = value.decode("ascii", errors="replace")
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}", value):
        value = int(value)
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise InputError(f"{name} must be a whole number that int64 holds, got {_shown(value)}")
    return value


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    try:
        value = value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError as error:
        raise InputError(f"{name} must be UTF-8 text, got {_shown(value)}") from error
    if not isinstance(value, str | None):
        raise InputError(f"{name} must be text, got {_shown(value)}")
    return value


def _picture(fields: Mapping[str, Any], pictures: Path | None) -> bytes | Path | None:
    image, path = fields.get("image"), _text(fields, "image_path")
    if isinstance(image, str):
        try:
            return base64.b64decode(image, validate=True)
        except binascii.Error as error:
            raise InputError(
                f"image must be base64 where it is text, got {_shown(image)}"
            ) from error
    if not isinstance(image, bytes | None):
        raise InputError(f"image must be bytes, got {_shown(image)}")
    if image is not None or path is None:
        return image
    if pictures is None:
        raise InputError(f"image_path must be left out without a folder of pictures, got {path}")
    file = (pictures / path).resolve()
    if not file.is_relative_to(pictures.resolve()):  # a stream's writer reads no other files
        raise InputError(f"image_path must lie in the folder of pictures, got {_shown(path)}")
    return file


def _shown(value: object) -> str:
    return repr(value)[:SHOWN]
