"""Contents to vectors: order, fusing, missing modalities."""

import numpy as np
import pytest
import torch

from torchrec_mm.parallel.process_group import process_group
from torchrec_mm.pretraining.embedding import component_sample, encode_all, fuse


@pytest.mark.parametrize("lengths", [None, np.array([5, 1, 4, 1, 3, 9, 2])])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_vectors_come_in_the_order_asked_for_whatever_the_batches(lengths, batch_size):
    contents = np.array([4, 0, 6, 2, 2, 9, 1])
    with process_group() as worker:
        encoded = encode_all(
            lambda numbers: numbers[:, None] * 10.0,
            torch.from_numpy,
            contents,
            batch_size,
            worker,
            "test",
            lengths,
        )
    assert encoded[:, 0].tolist() == [40, 0, 60, 20, 20, 90, 10]


def unit(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32) / np.linalg.norm(values)


def test_the_fused_cosine_is_the_mean_of_both():
    image = np.stack([unit(1, 2), unit(3, -1)])
    text = np.stack([unit(5, 1), unit(2, 2)])
    both = np.array([True, True])
    fused, present = fuse([(image, both), (text, both)])
    assert fused.shape == (2, 4) and present.all()
    expected = (image[0] @ image[1] + text[0] @ text[1]) / 2
    assert fused[0] @ fused[1] == pytest.approx(expected)
    assert np.linalg.norm(fused, axis=1) == pytest.approx([1, 1])


def test_an_item_lacking_one_half_keeps_unit_length_and_one_lacking_both_is_absent():
    image = np.stack([unit(1, 2), unit(0, 1) * 0, unit(0, 1) * 0])
    text = np.stack([unit(5, 1) * 0, unit(3, 4), unit(0, 1) * 0])
    fused, present = fuse(
        [(image, np.array([True, False, False])), (text, np.array([False, True, False]))]
    )
    assert present.tolist() == [True, True, False]
    np.testing.assert_allclose(fused, [[*unit(1, 2), 0, 0], [0, 0, 0.6, 0.8], [0] * 4], atol=1e-6)


def test_components_are_taken_from_evenly_spaced_items_that_have_the_modality():
    present = np.ones(90_000, dtype=bool)
    present[::3] = False
    sample = component_sample(present)
    assert len(sample) == len(np.unique(sample)) == 20_000
    assert present[sample].all() and sample[0] == 1 and sample[-1] == 89_999
    assert component_sample(np.array([False, True, True])).tolist() == [1, 2]
