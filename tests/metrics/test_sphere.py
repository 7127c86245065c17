"""How vectors lie on the sphere, pair by pair in plain Python."""

from math import exp, log

import pytest
import torch
import torch.nn.functional as F

from torchrec_mm.metrics import sphere
from torchrec_mm.metrics.sphere import alignment, mean_cosine, uniformity


def some(rows: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, 5, generator=generator), dim=-1)


def every(vectors: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(vectors), dtype=torch.bool)


def with_gaps(rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors and their mask; what is not there is not a number."""
    present = torch.rand(rows, generator=torch.Generator().manual_seed(seed)) < 0.7
    return some(rows, seed + 1).where(present[:, None], torch.nan), present


def squared_distance(one: list[float], other: list[float]) -> float:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def pairs(vectors: torch.Tensor) -> list[tuple[list[float], list[float]]]:
    rows = vectors.tolist()
    return [(rows[i], rows[j]) for i in range(len(rows)) for j in range(i)]


def test_alignment_is_the_mean_squared_distance():
    one, other = some(9, 0), some(9, 1)
    distances = [squared_distance(*each) for each in zip(one.tolist(), other.tolist(), strict=True)]
    assert alignment(one, other) == pytest.approx(sum(distances) / 9, rel=1e-12)
    assert alignment(one, one) == 0
    assert alignment(one, -one) == pytest.approx(4)


@pytest.mark.parametrize("block", [1, 6, 100])
def test_uniformity_is_the_log_of_the_mean_potential_of_pairs(monkeypatch, block):
    monkeypatch.setattr(sphere, "BLOCK", block)
    vectors, present = with_gaps(20, 2)
    potentials = [exp(-2 * squared_distance(*pair)) for pair in pairs(vectors[present])]
    expected = log(sum(potentials) / len(potentials))
    assert uniformity(vectors, present) == pytest.approx(expected, rel=1e-12)
    one = some(1, 3).repeat(4, 1)
    assert uniformity(one, every(one)) == pytest.approx(0, abs=1e-12)


def test_uniformity_of_many_vectors_is_that_of_a_sample_drawn_by_the_seed(monkeypatch):
    vectors, present = with_gaps(400, 4)
    whole = uniformity(vectors, present)
    monkeypatch.setattr(sphere, "UNIFORMITY_SAMPLE", 200)
    sampled = [uniformity(vectors, present, seed) for seed in (0, 0, 1)]
    assert sampled[0] == sampled[1] != sampled[2]
    assert sampled == pytest.approx([whole] * 3, abs=0.1)
    one = some(1, 5).repeat(100, 1)
    spread = torch.cat([one, -one, one])  # the sample has rows of all parts
    assert uniformity(spread, every(spread)) == pytest.approx(log(5 / 9), abs=0.05)


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_the_mean_cosine_is_that_of_all_pairs(monkeypatch, chunk):
    monkeypatch.setattr(sphere, "CHUNK", chunk)
    vectors, present = with_gaps(20, 6)
    cosines = [sum(a * b for a, b in zip(*pair, strict=True)) for pair in pairs(vectors[present])]
    assert mean_cosine(vectors, present) == pytest.approx(sum(cosines) / len(cosines), rel=1e-9)
    one = some(1, 7).repeat(5, 1)
    assert mean_cosine(one, every(one)) == pytest.approx(1)


def test_too_few_vectors_have_no_figures():
    vectors, first = some(3, 8), torch.tensor([True, False, False])
    assert uniformity(vectors, first) is mean_cosine(vectors, first) is None
    assert alignment(vectors[:0], vectors[:0]) is None
