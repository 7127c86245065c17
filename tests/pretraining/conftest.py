"""Tiny encoders and packed content, built once for the room."""

import pytest

from tests.pretraining import tiny
from tests.pretraining.packed_room import packed_tiny
from torchrec_mm.data.content.packed import PackedContent


@pytest.fixture(scope="session")
def image_encoder(tmp_path_factory):
    return tiny.save_image_encoder(tmp_path_factory.mktemp("encoders") / "image")


@pytest.fixture(scope="session")
def text_encoder(tmp_path_factory):
    return tiny.save_text_encoder(tmp_path_factory.mktemp("encoders") / "text")


@pytest.fixture(scope="session")
def packed(tmp_path_factory) -> PackedContent:
    """``tiny.write_search_data``, packed; only features may be added."""
    return packed_tiny(tmp_path_factory.mktemp("packed"))
