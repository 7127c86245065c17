"""Messages to item events: what is understood, and what is refused in one line."""

import base64

import pytest

from torchrec_mm.errors import InputError
from torchrec_mm.near_line.events import ItemEvent, event_of

LEAST = {"item_id": 7, "version": 2}


@pytest.mark.parametrize(
    ("fields", "event"),
    [
        (LEAST, ItemEvent(7, 2, False)),
        (LEAST | {"title": "red", "image": None}, ItemEvent(7, 2, False, "red")),
        (LEAST | {"event": "created", "title": "  "}, ItemEvent(7, 2, False)),
        (LEAST | {"event": "deleted"}, ItemEvent(7, 2, True)),
        (LEAST | {"image": b"\x89PNG"}, ItemEvent(7, 2, False, None, b"\x89PNG")),
        (
            LEAST | {"image": base64.b64encode(b"PNG").decode()},
            ItemEvent(7, 2, False, None, b"PNG"),
        ),
        # As a stream has them: bytes, digits.
        (
            {"item_id": b"-7", "version": b"2", "event": b"changed", "title": "é".encode()},
            ItemEvent(-7, 2, False, "é"),
        ),
        ({"item_id": str(-(2**63)), "version": 2**63 - 1}, ItemEvent(-(2**63), 2**63 - 1, False)),
    ],
)
def test_an_event_is_read_alike_wherever_it_comes_from(fields, event):
    assert event_of(fields, None) == event


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"version": 1}, "item_id must be a whole number that int64 holds, got None"),
        ({"item_id": 1}, "version must be a whole number that int64 holds, got None"),
        (LEAST | {"item_id": 7.0}, "item_id must be a whole number that int64 holds, got 7.0"),
        (LEAST | {"item_id": True}, "item_id must be a whole number that int64 holds, got True"),
        (LEAST | {"version": 2**63}, "version must be a whole number that int64 holds, got 92233"),
        (LEAST | {"version": "1e3"}, "version must be a whole number that int64 holds, got '1e3'"),
        (LEAST | {"event": "sold"}, "event must be one of created, changed, deleted, got 'sold'"),
        (LEAST | {"price": 3}, "event must have no field but item_id, version, event, title"),
        (LEAST | {"title": 3}, "title must be text, got 3"),
        (LEAST | {"title": b"\xff"}, "title must be UTF-8 text, got"),
        (LEAST | {"image": "no base64!"}, "image must be base64 where it is text, got"),
        (LEAST | {"image": 3}, "image must be bytes, got 3"),
        (LEAST | {"image_path": "a.png"}, "image_path must be left out without a folder of"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(fields, said):
    with pytest.raises(InputError) as refused:
        event_of(fields, None)
    assert str(refused.value).startswith(said)


def test_a_picture_may_lie_in_the_folder_of_pictures_and_nowhere_else(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "secret.png")
    event = event_of(LEAST | {"image_path": "a/b.png"}, tmp_path / "in")
    assert event.picture == (tmp_path / "in" / "a" / "b.png").resolve()
    for path in ("../secret.png", str(tmp_path / "secret.png"), "link.png"):
        with pytest.raises(InputError, match="must lie in the folder of pictures"):
            event_of(LEAST | {"image_path": path}, tmp_path / "in")
