"""The untrained head is the features themselves, or a principal component projection."""

import pytest
import torch
import torch.nn.functional as F

from torchrec_mm.pretraining.encoder.head import ProjectionHead

WIDTH = 128


def features(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.linspace(1, 5, width)
    return F.normalize(torch.randn(rows, width, generator=generator) * scale + 1, dim=1)


def fitted(sample: torch.Tensor, width: int = WIDTH) -> ProjectionHead:
    head = ProjectionHead(sample.shape[1], width)
    head.fit_principal_components(sample)
    return head


@pytest.mark.parametrize("width", [20, 33])
def test_a_head_with_room_for_all_features_starts_as_the_off_the_shelf_encoder(width):
    sample = features(50, 20)
    head = ProjectionHead(20, width)
    vectors = head(sample)
    assert head.keeps_all and vectors.shape == (50, width)
    torch.testing.assert_close(vectors @ vectors.T, sample @ sample.T, atol=1e-6, rtol=0)
    assert not ProjectionHead(20, 19).keeps_all


def test_with_room_for_all_components_cosines_are_those_of_centred_features():
    sample = features(200, 20)
    vectors = fitted(sample)(sample)
    centred = F.normalize(sample - sample.mean(dim=0), dim=1)
    torch.testing.assert_close(vectors @ vectors.T, centred @ centred.T, atol=1e-5, rtol=0)


def test_wide_features_keep_the_directions_of_largest_variance():
    sample = features(400, 200)
    head = fitted(sample)
    right = torch.linalg.svd(sample - sample.mean(dim=0), full_matrices=False).Vh
    overlap = head.projection.weight.detach() @ right[:WIDTH].T
    assert torch.linalg.svdvals(overlap).min() > 0.999


def test_vectors_have_unit_length_and_the_fixed_width():
    vectors = fitted(features(50, 300))(features(7, 300, seed=1))
    assert vectors.shape == (7, WIDTH)
    assert vectors.norm(dim=1).tolist() == pytest.approx([1] * 7, abs=1e-5)


def test_a_sample_without_any_spread_keeps_its_direction():
    one = features(1, 16)
    vectors = fitted(one.repeat(3, 1))(one)
    assert vectors.norm().item() == pytest.approx(1, abs=1e-5)


def test_fitting_twice_gives_the_same_signs():
    sample = features(100, 40)
    assert torch.equal(fitted(sample).projection.weight, fitted(sample).projection.weight)
    shuffled = sample[torch.randperm(100, generator=torch.Generator().manual_seed(1))]
    found, expected = (fitted(rows).projection.weight for rows in (shuffled, sample))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_the_signs_are_those_of_the_sample_and_not_of_the_machine(monkeypatch):
    """An eigenvector may come back with either sign."""
    sample, eigh = features(100, 40), torch.linalg.eigh

    def otherwise(matrix: torch.Tensor):
        spread, vectors = eigh(matrix)
        return spread, -vectors

    weight = fitted(sample).projection.weight
    monkeypatch.setattr(torch.linalg, "eigh", otherwise)
    assert torch.equal(fitted(sample).projection.weight, weight)


def test_few_rows_have_few_components_and_the_other_outputs_are_zero():
    sample = features(10, 200)
    weight = fitted(sample).projection.weight
    assert weight[:9].norm(dim=1).tolist() == pytest.approx([1] * 9, abs=1e-5)
    assert not weight[9:].any()
