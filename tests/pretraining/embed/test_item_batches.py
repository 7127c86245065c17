"""Items to inputs: each where it belongs, corrupt pictures left out, batches by length."""

import threading

import numpy as np
import pytest
import torch

from tests.pretraining.tiny import jpeg
from torchrec_mm.data.content.images import decode_image
from torchrec_mm.data.content.item_stream import ItemRows
from torchrec_mm.pretraining.embed.item_batches import BatchLoader, load_in_threads
from torchrec_mm.pretraining.encoder.item_encoder import ItemEncoder, build_item_encoder

GENERATOR = np.random.default_rng(0)
PICTURES = [jpeg(GENERATOR.uniform(0, 255, 3), GENERATOR, 20) for _ in range(3)]
TITLES = ["word1 word2 word3", "word4", None, "word5 word6", None]
ITEMS = ItemRows(
    np.array([10, 11, 12, 13, 14]),
    [PICTURES[0], b"no picture", PICTURES[1], None, None],
    TITLES,
)


@pytest.fixture(scope="module")
def encoder(specs) -> ItemEncoder:
    return build_item_encoder(specs())


def loader(encoder: ItemEncoder, batch_size: int = 64) -> BatchLoader:
    options = {"max_image_pixels": 10_000, "num_threads": 2, "device": torch.device("cpu")}
    return BatchLoader(encoder, batch_size=batch_size, **options)


def test_a_batch_holds_what_each_row_has(encoder):
    batch = loader(encoder).load(ITEMS, np.array([2, 1, 0, 3]))
    side = batch.side
    assert (side.num_rows, batch.corrupt.tolist()) == (4, [1])
    assert side.mask["image"].tolist() == [True, False, True, False]
    assert side.mask["text"].tolist() == [False, True, True, True]
    assert side.rows["image"].tolist() == [0, 2]
    assert side.rows["text"].tolist() == [1, 2, 3]
    expected = [decode_image(picture, 32, "") for picture in (PICTURES[1], PICTURES[0])]
    np.testing.assert_array_equal(side.inputs["image"].permute(0, 2, 3, 1), np.stack(expected))
    tokens = encoder.encoders["text"].backbone.tokenise([TITLES[1], TITLES[0], TITLES[3]])
    assert torch.equal(side.inputs["text"]["input_ids"], tokens["input_ids"])


def test_a_batch_without_a_modality_has_a_filler_that_no_row_gets(encoder):
    side = loader(encoder).load(ITEMS, np.array([4, 1])).side
    assert side.rows["image"].tolist() == [2]
    assert side.inputs["image"].shape == (1, 3, 32, 32)
    nothing = loader(encoder).load(ITEMS, np.array([4])).side
    with torch.inference_mode():
        vectors = encoder.eval()(nothing)
    assert all(not values.any() for values in vectors.values())


def test_batches_hold_every_row_once_and_titles_of_alike_length(encoder):
    batches = list(loader(encoder, batch_size=2).batches(ITEMS, np.arange(5)))
    assert [batch.rows.tolist() for batch in batches] == [[2, 4], [1, 3], [0]]


@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize("count", [0, 1, 3, 20])
def test_loading_in_threads_keeps_the_order_and_is_bounded(ahead, count):
    started, taken = [], 0

    def load(number: int) -> int:
        started.append(number)
        return number * 10

    for loaded in load_in_threads(load, range(count), 3, ahead):
        assert loaded == taken * 10
        assert len(started) <= taken + 6
        taken += 1
    assert taken == count


@pytest.mark.parametrize("ahead", [True, False])
def test_only_loading_ahead_goes_on_while_a_batch_is_used(ahead):
    used = threading.Event()
    seen = []

    def load(number: int) -> bool:
        if number == 2:  # of the second group
            seen.append(used.wait(timeout=2 if ahead else 0))
        return True

    for number, _ in enumerate(load_in_threads(load, range(4), 2, ahead)):
        if number == 0:
            used.set()
    assert seen == [ahead]
