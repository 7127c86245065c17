"""Tiny encoders and packed content, built once for the room."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pretraining import tiny
from tests.pretraining.packed_room import packed_tiny
from torchrec_mm.data.content.packed import PackedContent
from torchrec_mm.pretraining.encoder.encoder import EncoderSpec
from torchrec_mm.pretraining.encoder.head import VECTOR_WIDTH


@pytest.fixture(scope="session")
def encoders(tmp_path_factory) -> Path:
    """A folder that holds image/ and text/."""
    folder = tmp_path_factory.mktemp("encoders")
    tiny.save_image_encoder(folder / "image")
    tiny.save_text_encoder(folder / "text")
    return folder


@pytest.fixture(scope="session")
def image_encoder(encoders) -> Path:
    return encoders / "image"


@pytest.fixture(scope="session")
def text_encoder(encoders) -> Path:
    return encoders / "text"


@pytest.fixture(scope="session")
def specs(image_encoder, text_encoder) -> Callable[..., list[EncoderSpec]]:
    """Makes specs of the tiny encoders, of both unless modalities are named."""
    folders = {"image": str(image_encoder), "text": str(text_encoder)}

    def make(
        *modalities: str, layers: int = 0, norm: str = "frozen", width: int = VECTOR_WIDTH
    ) -> list[EncoderSpec]:
        how = {"trainable_layers": layers, "image_size": 32, "batch_norm": norm, "width": width}
        return [EncoderSpec(m, folders[m], **how) for m in modalities or folders]

    return make


@pytest.fixture(scope="session")
def packed(tmp_path_factory) -> PackedContent:
    """``tiny.write_search_data``, packed; only features may be added."""
    return packed_tiny(tmp_path_factory.mktemp("packed"))
