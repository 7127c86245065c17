"""The embedding benchmark: both sides encode the same batches of the same catalogue."""

import pytest

from tests.pretraining.tiny import save_image_encoder, save_text_encoder
from torchrec_mm.benchmarks import embedding
from torchrec_mm.benchmarks.embedding import EmbeddingConfig, compare
from torchrec_mm.data.content import item_parts
from torchrec_mm.pretraining.encoder.item_encoder import ItemEncoder


@pytest.fixture
def config(tmp_path) -> EmbeddingConfig:
    encoders = {
        "image_encoder": str(save_image_encoder(tmp_path / "image")),
        "text_encoder": str(save_text_encoder(tmp_path / "text")),
    }
    small = {"items": 50, "image_size": 32, "batch_size": 8, "picture_pixels": 40}
    return EmbeddingConfig(runs=1, **small, **encoders)


def test_both_sides_encode_every_item_in_the_same_batches(config, monkeypatch):
    seen, encoder_forward = {}, ItemEncoder.forward

    def in_this_process(side, *args, threads):
        sizes = seen.setdefault(side.__name__, [])

        def counted(self, batch):
            sizes.append((batch.num_rows, batch.inputs["text"]["input_ids"].shape[1]))
            return encoder_forward(self, batch)

        monkeypatch.setattr(ItemEncoder, "forward", counted)
        return side(*args)

    monkeypatch.setattr(item_parts, "MIN_ROWS", 25)
    monkeypatch.setattr(embedding, "in_fresh_process", in_this_process)
    (line,) = compare(config)
    assert seen["ours"] == seen["bare"]
    warm_up, *batches = seen["ours"]
    assert [rows for rows, _ in batches] == [8, 8, 8, 1] * 2
    assert line["ours"] > 0 and line["ratio"] == line["ours"] / line["baseline"]
    assert (line["benchmark"], line["unit"], line["items"]) == ("embedding", "items/s", 50)
