"""Item vectors are what the encoder gives each item alone; a sample is encoded once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.pretraining.embed.embedded import Room, make_room, read_items, spoil, write_items
from torchrec_mm import files
from torchrec_mm.data.content import item_parts
from torchrec_mm.data.content.item_stream import ItemStream
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.parallel.process_group import Worker, process_group
from torchrec_mm.pretraining.embed import head_sample, vector_run
from torchrec_mm.pretraining.embed.head_sample import ItemEncoding
from torchrec_mm.pretraining.embed.item_batches import BatchLoader
from torchrec_mm.pretraining.embed.vector_makers import EncoderVectors, RandomVectors
from torchrec_mm.pretraining.embed.vector_run import Pictures, make_item_vectors
from torchrec_mm.pretraining.encoder.encoder_files import load_encoder
from torchrec_mm.pretraining.encoder.item_encoder import ItemEncoder, build_item_encoder
from torchrec_mm.pretraining.encoder.precision import Precision

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Room:
    return make_room(tmp_path_factory.mktemp("embed"))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Four parts of ten items."""
    monkeypatch.setattr(item_parts, "MIN_ROWS", 10)
    monkeypatch.setattr(item_parts, "MAX_ROWS", 10)


def loader_of(encoder: ItemEncoder) -> BatchLoader:
    return BatchLoader(encoder, max_image_pixels=10**6, batch_size=3, num_threads=2, device=CPU)


def embedded(
    folder: Path, data: Path, encoder: ItemEncoder, space="fused", fit=False, corrupt_share=0.0
) -> tuple[ItemVectors, Pictures]:
    with process_group() as worker:
        stream = ItemStream(data, tuple(encoder.encoders))
        precision = Precision("float32", CPU)
        encoding = ItemEncoding(stream, encoder, loader_of(encoder), precision, worker)
        maker = EncoderVectors(encoding, "scl", space, "float32", fit)
        pictures = make_item_vectors(folder, stream, maker, {}, corrupt_share, worker)
    return ItemVectors.open(folder), pictures


@pytest.mark.parametrize("space", ["image", "text", "fused"])
def test_vectors_are_those_of_each_item_encoded_alone(room, tmp_path, space):
    wanted = () if space == "fused" else (space,)
    encoder = load_encoder(room.trained, wanted).encoder
    vectors, _ = embedded(tmp_path / "v", room.data, encoder, space)
    stream = ItemStream(room.data, tuple(encoder.encoders))
    alone = {}
    for part in stream.parts:
        items = stream.read(part)
        for row, item_id in enumerate(items.item_ids):
            side = loader_of(encoder).load(items, np.array([row])).side
            with torch.inference_mode():
                alone[int(item_id)] = encoder(side)[space][0].numpy()
    alone = {item_id: vector for item_id, vector in alone.items() if vector.any()}
    assert vectors.item_ids.tolist() == sorted(alone)
    expected = np.stack([alone[item_id] for item_id in sorted(alone)])
    np.testing.assert_allclose(vectors.values, expected, atol=1e-5)
    assert (vectors.width, len(vectors)) == ((256, 40) if space == "fused" else (128, 39))


def test_an_encoder_that_was_in_training_embeds_in_evaluation_mode(room):
    encoder = build_item_encoder(room.specs[:1]).train()
    encoding = ItemEncoding(None, encoder, None, None, Worker(CPU, rank=0, world_size=1))
    maker = EncoderVectors(encoding, "scl", "image", "int8", fit_heads=False)
    assert maker.encoder is encoder and not encoder.training


def test_an_item_lacking_a_modality_has_the_other_vector_and_unit_length(room, tmp_path):
    encoder = load_encoder(room.trained).encoder
    fused, _ = embedded(tmp_path / "v", room.data, encoder)
    item_ids = read_items(room.data)["item_id"].to_numpy()
    np.testing.assert_allclose(np.linalg.norm(fused.values, axis=1), 1, atol=1e-5)
    without_title, without_picture = fused.lookup(item_ids[[3, 5]])[0]
    assert without_title[:128].any() and not without_title[128:].any()
    assert without_picture[128:].any() and not without_picture[:128].any()


def test_vectors_are_on_disk_under_their_name_before_the_parts_go(room, tmp_path, monkeypatch):
    run_dir, flushed = tmp_path / "v", []

    def look(folder: Path) -> None:
        flushed.append((folder, run_dir.exists(), vector_run.parts_folder(run_dir).exists()))

    monkeypatch.setattr(files, "flush", look)
    with process_group() as worker:
        stream = ItemStream(room.data, ("image",))
        maker = RandomVectors(stream, modality="image", dtype="int8", width=128, seed=0)
        make_item_vectors(run_dir, stream, maker, {}, 0.0, worker)
    assert flushed[-1] == (tmp_path, True, True)


class Counter:
    """How many pictures and texts the backbones of an encoder are asked for."""

    def __init__(self, encoder: ItemEncoder) -> None:
        self.asked = 0
        encoder.encoders["image"].backbone.register_forward_pre_hook(self._count)

    def _count(self, module, inputs) -> None:
        self.asked += len(inputs[0])


@pytest.mark.parametrize("sample", [40, 7])
def test_untrained_heads_are_fitted_to_a_sample_that_is_not_encoded_again(
    room, tmp_path, monkeypatch, sample
):
    monkeypatch.setattr(head_sample, "SAMPLE_ITEMS", sample)
    specs = [replace(spec, width=16) for spec in room.specs]  # no room for all features
    ours = build_item_encoder(specs)
    counter = Counter(ours)
    vectors, _ = embedded(tmp_path / "v", room.data, ours, fit=True)
    assert 39 <= counter.asked <= 39 + 30  # each picture once, and fillers
    again, _ = embedded(tmp_path / "again", room.data, ours)
    np.testing.assert_allclose(vectors.values, again.values, atol=1e-5)
    rows = np.linspace(0, 39, sample).astype(int)
    for modality, theirs in build_item_encoder(specs).encoders.items():
        theirs.head.fit_principal_components(features_of(room, theirs, modality, rows))
        fitted = ours.encoders[modality].head.projection.weight
        few = slice(5)  # as many as seven features have for sure
        weights = theirs.head.projection.weight
        torch.testing.assert_close(fitted[few], weights[few], atol=1e-3, rtol=0)


def features_of(room: Room, encoder, modality: str, rows: np.ndarray) -> torch.Tensor:
    """Of those rows of items/ that have the modality, each by itself."""
    stream = ItemStream(room.data, (modality,))
    features = []
    for row in rows:
        items = stream.read(stream.parts[row // 10])
        if items.present(modality)[row % 10]:
            loader = loader_of(ItemEncoder([encoder]))
            side = loader.load(items, np.array([row % 10])).side
            features.append(encoder.eval().backbone(side.inputs[modality]))
    return torch.cat(features).detach()


def test_an_item_with_a_corrupt_picture_has_its_title_alone(room, tmp_path):
    encoder = load_encoder(room.trained).encoder
    items = spoil(read_items(room.data), [3, 8, 20])  # row 3 has no title either
    data = write_items(tmp_path / "data", items)
    vectors, pictures = embedded(tmp_path / "v", data, encoder, corrupt_share=0.1)
    ids = items["item_id"].to_numpy()
    assert pictures == Pictures(39, 3, int(ids[3]))
    assert vectors.lookup(ids[[3, 8, 20]])[1].tolist() == [False, True, True]
    assert not vectors.lookup(ids[[8, 20]])[0][:, :128].any()
    fitted, pictures = embedded(
        tmp_path / "fitted", data, build_item_encoder(room.specs), fit=True, corrupt_share=0.1
    )
    assert pictures == Pictures(39, 3, int(ids[3]))
    assert len(fitted) == 39 and not fitted.lookup(ids[[8]])[0][:, :128].any()


def test_too_many_corrupt_pictures_are_refused_at_once_and_the_parts_stay(room, tmp_path):
    encoder = load_encoder(room.trained).encoder
    items = read_items(room.data)
    data = write_items(tmp_path / "data", spoil(items, [1, 2, 30]))
    complaint = f"2 of 9, the first of item_id {items['item_id'][1]}, got 0.04"
    with pytest.raises(InputError, match=complaint):
        embedded(tmp_path / "v", data, encoder, corrupt_share=0.04)
    with pytest.raises(InputError, match="3 of 39, the first of .* got 0.076"):
        embedded(tmp_path / "v", data, encoder, corrupt_share=0.076)
    counter = Counter(encoder)
    assert len(embedded(tmp_path / "v", data, encoder, corrupt_share=0.077)[0]) == 40
    assert counter.asked == 0


def test_a_modality_that_nothing_has_cannot_be_fitted(room, tmp_path):
    items = read_items(room.data)
    titles = items.set_column(1, "title", [[None] * 40])
    data = write_items(tmp_path / "data", titles)
    with pytest.raises(InputError, match="items must hold an? text that can be read, got none"):
        embedded(tmp_path / "v", data, build_item_encoder(room.specs), fit=True)
