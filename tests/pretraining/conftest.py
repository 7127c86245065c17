"""Tiny encoders, built once for the room."""

import pytest

from tests.pretraining import tiny


@pytest.fixture(scope="session")
def image_encoder(tmp_path_factory):
    return tiny.save_image_encoder(tmp_path_factory.mktemp("encoders") / "image")


@pytest.fixture(scope="session")
def text_encoder(tmp_path_factory):
    return tiny.save_text_encoder(tmp_path_factory.mktemp("encoders") / "text")
