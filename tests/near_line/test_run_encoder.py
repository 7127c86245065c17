"""Events to vectors: those that apps.embed_items makes of the same items."""

import numpy as np
import pytest

from apps.embed_items import main as embed_items
from tests.pretraining.embed.embedded import Room, make_room, read_items
from torchrec_mm.data.content.images import MAX_IMAGE_PIXELS
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.near_line.events import ItemEvent
from torchrec_mm.near_line.run_encoder import RunEncoder


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Room:
    return make_room(tmp_path_factory.mktemp("run_encoder"))


def encoder_of(room: Room, modality: str | None, dtype: str = "float32") -> RunEncoder:
    return RunEncoder(
        room.trained, modality=modality, dtype=dtype, max_image_pixels=MAX_IMAGE_PIXELS
    )


def events_of(room: Room) -> list[ItemEvent]:
    """Of each item of the room."""
    return [
        ItemEvent(row["item_id"], 1, False, row["title"], row["image"])
        for row in read_items(room.data).to_pylist()
    ]


@pytest.mark.parametrize("modality", ["image", "text", "fused"])
def test_vectors_are_those_of_embed_items_and_have_their_origin(room, tmp_path, modality):
    flags = ["--data", room.data, "--encoder", room.trained, "--run_dir", tmp_path / "v"]
    embed_items([*map(str, flags), "--modality", modality, "--dtype", "float32"])
    wanted = ItemVectors.open(tmp_path / "v")
    encoder, events = encoder_of(room, modality), events_of(room)
    encoded = encoder.encode(events)
    values, mask = wanted.lookup(np.array([event.item_id for event in events]))
    assert encoder.origin == wanted.origin
    assert encoder.space.width == wanted.width
    assert encoded.has.tolist() == mask.tolist()
    assert encoded.has.all() == (modality == "fused")  # each item has a title or a picture
    assert encoded.broken == {}
    np.testing.assert_allclose(encoded.vectors, values, atol=1e-5)


def test_a_vector_does_not_depend_on_the_others_of_its_batch(room):
    encoder = encoder_of(room, None)
    events = events_of(room)[:6]
    together = encoder.encode(events).vectors
    alone = np.concatenate([encoder.encode([event]).vectors for event in events])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_picture_that_cannot_be_decoded_is_told_where_no_title_stands_in(room):
    encoder = encoder_of(room, "fused", "int8")
    (title,) = {event.title for event in events_of(room)[:1]}
    events = [
        ItemEvent(1, 1, False, None, b"no picture"),
        ItemEvent(2, 1, False, title or "word1", b"no picture"),
        ItemEvent(3, 1, False),
    ]
    encoded = encoder.encode(events)
    assert encoded.has.tolist() == [False, True, False]
    assert list(encoded.broken) == [0]
    assert encoded.broken[0].startswith("picture must be a JPEG, PNG or WebP")
    assert encoded.vectors.dtype == np.int8


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="encoder must be a run of apps.pretrain"):
        RunEncoder(tmp_path, modality=None, dtype="int8", max_image_pixels=1)
