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


def test_uniformity_is_the_log_of_the_mean_potential_of_pairs():
    vectors = some(13, 2)
    potentials = [exp(-2 * squared_distance(*pair)) for pair in pairs(vectors)]
    assert uniformity(vectors) == pytest.approx(log(sum(potentials) / len(potentials)), rel=1e-12)
    assert uniformity(vectors[:1].repeat(4, 1)) == 0


def test_uniformity_of_many_vectors_is_that_of_a_sample_drawn_by_the_seed(monkeypatch):
    vectors = some(300, 3)
    whole = uniformity(vectors)
    monkeypatch.setattr(sphere, "UNIFORMITY_SAMPLE", 200)
    sampled = [uniformity(vectors, seed) for seed in (0, 0, 1)]
    assert sampled[0] == sampled[1] != sampled[2]
    assert sampled == pytest.approx([whole] * 3, abs=0.1)
    twice = some(1, 4).repeat(100, 1)
    spread = torch.cat([twice, -twice, twice])
    assert uniformity(spread) == pytest.approx(log(5 / 9), abs=0.05)  # rows of all parts are drawn


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_the_mean_cosine_is_that_of_all_pairs(monkeypatch, chunk):
    monkeypatch.setattr(sphere, "CHUNK", chunk)
    vectors = some(13, 5)
    cosines = [sum(a * b for a, b in zip(*pair, strict=True)) for pair in pairs(vectors)]
    assert mean_cosine(vectors) == pytest.approx(sum(cosines) / len(cosines), rel=1e-9)
    assert mean_cosine(vectors[:1].repeat(5, 1)) == pytest.approx(1)


def test_too_few_vectors_have_no_figures():
    assert uniformity(some(1, 6)) is mean_cosine(some(1, 6)) is None
    assert alignment(some(1, 6)[:0], some(1, 6)[:0]) is None
