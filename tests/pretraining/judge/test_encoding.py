"""Rows to vectors: in order, and the same whatever is encoded together."""

import numpy as np
import pytest
import torch

from tests.pretraining.packed_room import SIZE
from torchrec_mm.pretraining.encoder.item_encoder import build_item_encoder
from torchrec_mm.pretraining.encoder.precision import Precision
from torchrec_mm.pretraining.judge.encoding import encode_rows
from torchrec_mm.pretraining.pairs.side_reader import PictureSource, SideReader, TextSource


@pytest.fixture(scope="module")
def encoder(specs):
    """With norms that depend on the batch in training, and a gate that has a say."""
    made = build_item_encoder(specs(layers=-1, norm="synchronised"))
    torch.nn.init.normal_(made.gate.weigh[-1].weight)
    return made


@pytest.fixture(scope="module")
def reader(packed, encoder):
    image, text = packed.by_modality["image"], packed.by_modality["text"]
    tokenise = encoder.encoders["text"].backbone.tokenise
    sources = {"image": PictureSource(image, SIZE), "text": TextSource(text, tokenise)}
    return SideReader(packed, sources)


@pytest.fixture
def encode(worker, encoder, reader):
    def call(rows, batch_size=7, num_workers=0):
        how = {"batch_size": batch_size, "num_workers": num_workers, "label": "test"}
        precision = Precision("float32", worker.device)
        return encode_rows(encoder, reader, rows, worker, precision, **how)

    return call


def test_vectors_come_in_the_order_of_the_rows(encode, encoder, reader, packed):
    rows = np.random.default_rng(0).permutation(packed.num_items + packed.num_searches)[:50]
    vectors = encode(rows)
    assert list(vectors.values) == list(vectors.mask) == ["image", "text", "fused"]
    for i in (0, 13, 49):
        side, _ = reader.side(rows[i : i + 1])
        with torch.no_grad():
            alone = encoder.eval()(side)
        for space in encoder.spaces:
            torch.testing.assert_close(vectors.values[space][i], alone[space][0], atol=1e-6, rtol=0)
            assert vectors.mask[space][i] == side.present(space)[0]


def test_neither_batches_nor_worker_processes_show(encode, encoder, packed):
    encoder.train()
    rows = np.arange(packed.num_items)[::-1]
    one, other = encode(rows, batch_size=1000), encode(rows, batch_size=3, num_workers=1)
    for space, values in one.values.items():
        assert values.shape[0] == len(rows)
        torch.testing.assert_close(values, other.values[space], atol=1e-6, rtol=0)
        assert torch.equal(one.mask[space], other.mask[space])
        lengths = values.norm(dim=1)
        torch.testing.assert_close(lengths, one.mask[space].float(), atol=1e-5, rtol=0)
    assert not one.mask["image"].all() and one.mask["fused"].all()


def test_the_encoder_goes_on_in_the_mode_that_it_was_in(encode, encoder):
    for mode in (True, False):
        encoder.train(mode)
        encode(np.arange(3))
        assert encoder.training == mode
