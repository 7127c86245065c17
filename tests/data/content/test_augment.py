"""Augmentation: what it may change, how far, and that the seed alone decides."""

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from torchrec_mm.data.content import augment as module
from torchrec_mm.data.content.augment import augment

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8))


def ramp(width: int, height: int) -> Image.Image:
    """Red grows from left to right, green from top to bottom, each from 0 to 200."""
    x, y = np.meshgrid(np.linspace(0, 200, width), np.linspace(0, 200, height))
    return Image.fromarray(np.stack([x, y, 0 * x], axis=2).astype(np.uint8))


@pytest.fixture
def no_jitter(monkeypatch):
    monkeypatch.setattr(module, "JITTER", 0)


def test_the_seed_alone_decides():
    once = [augment(NOISE, 16, seed) for seed in range(20)]
    with ThreadPoolExecutor(4) as threads:
        again = list(threads.map(lambda seed: augment(NOISE, 16, seed), range(20)))
    assert (np.stack(once) == np.stack(again)).all()
    assert len({each.tobytes() for each in once}) == 20
    assert once[0].shape == (16, 16, 3) and once[0].dtype == np.uint8


def test_no_global_generator_is_read_or_changed():
    def state():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before, first = state(), augment(NOISE, 16, 5)
    assert state() == before
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    assert (augment(NOISE, 16, 5) == first).all()


def test_crops_keep_half_of_the_area_and_proportions_within_a_third(no_jitter):
    edges = np.stack([augment(ramp(300, 200), 64, seed) for seed in range(400)]).astype(int)
    shares = [
        np.abs(edges[:, 32, -1, 0] - edges[:, 32, 0, 0]) / 200,
        np.abs(edges[:, -1, 32, 1] - edges[:, 0, 32, 1]) / 200,
    ]
    width, height = (share * 64 / 63 for share in shares)  # between the middles of pixels
    assert 0.47 < (width * height).min() < 0.56 and 0.9 < (width * height).max() < 1.03
    assert 0.72 < (width / height).min() < 0.8 and 1.25 < (width / height).max() < 1.38
    assert edges[:, :, :, 0].min() < 5 and edges[:, :, :, 0].max() > 195


def test_half_of_the_pictures_are_flipped_left_to_right_and_none_upside_down(no_jitter):
    pictures = np.stack([augment(ramp(60, 60), 16, seed) for seed in range(400)]).astype(int)
    flipped = pictures[:, 8, -1, 0] < pictures[:, 8, 0, 0]
    assert 0.43 < flipped.mean() < 0.57
    assert (pictures[:, -1, 8, 1] > pictures[:, 0, 8, 1]).all()


def test_brightness_changes_by_up_to_a_fifth():
    grey = Image.new("RGB", (20, 20), (150, 150, 150))
    shades = np.array([augment(grey, 4, seed).mean() for seed in range(300)])
    assert 118 <= shades.min() < 125 and 175 < shades.max() <= 181


def test_contrast_changes_by_up_to_a_fifth():
    halves = Image.fromarray(np.repeat([100, 140], 200).astype(np.uint8).reshape(20, 20))
    pictures = np.stack([augment(halves.convert("RGB"), 8, seed) for seed in range(300)])
    dark, bright = pictures[:, [0, -1], 0, 0].astype(int).T
    spread = (bright - dark) / (bright + dark) / (40 / 240)
    assert 0.75 < spread.min() < 0.85 and 1.15 < spread.max() < 1.25


def test_saturation_changes_too():
    """Of a picture of one colour, contrast and saturation both move the colour from its grey."""
    colour = Image.new("RGB", (20, 20), (180, 90, 90))
    red, green, _ = np.stack([augment(colour, 4, s)[0, 0] for s in range(300)]).astype(int).T
    strength = (red - green) / (0.299 * red + 0.701 * green) / (90 / 116.91)
    assert 0.6 < strength.min() < 0.72 and 1.35 < strength.max() < 1.47


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1)])
def test_pictures_of_any_proportions_are_taken(size):
    assert augment(Image.new("RGB", size, "red"), 8, 1).shape == (8, 8, 3)
