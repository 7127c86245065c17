"""apps.embed_items from flags to item vectors, on tiny encoders."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from apps.embed_items import main
from apps.pretrain import main as pretrain
from tests.pretraining.tiny import save_image_encoder, save_text_encoder, write_search_data
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.store import ItemVectors


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embed")
    write_search_data(folder / "data")
    save_image_encoder(folder / "image")
    save_text_encoder(folder / "text")
    common = f"--data {folder / 'data'} --image_encoder {folder / 'image'} "
    common += f"--text_encoder {folder / 'text'} --image_size 32 --batch_size 16 --bank_slots 64 "
    pretrain((common + f"--epochs 0 --run_dir {folder / 'untrained'}").split())
    pretrain((common + f"--epochs 2 --run_dir {folder / 'trained'}").split())
    return folder


@pytest.fixture
def embed(room, tmp_path):
    def call(name: str, *flags: str) -> ItemVectors:
        main(["--data", str(room / "data"), "--run_dir", str(tmp_path / name), *flags])
        return ItemVectors.open(tmp_path / name)

    return call


@pytest.fixture
def off_the_shelf(room):
    flags = f"--encoder off-the-shelf --image_encoder {room / 'image'} "
    return (flags + f"--text_encoder {room / 'text'} --image_size 32").split()


def item_ids(room, *columns: str) -> list[int]:
    """Ids, ascending, of items where one of the columns is not null."""
    items = pq.read_table(room / "data" / "items")
    present = np.logical_or.reduce([items[column].is_valid().to_numpy() for column in columns])
    return sorted(items["item_id"].to_numpy()[present].tolist())


@pytest.mark.parametrize(
    ("modality", "columns", "width"),
    [("image", ["image"], 128), ("text", ["title"], 128), ("fused", ["image", "title"], 256)],
)
@pytest.mark.parametrize("encoder", ["trained", "random"])
def test_every_item_that_has_the_content_gets_a_vector(
    room, embed, capsys, encoder, modality, columns, width
):
    name = str(room / encoder) if encoder == "trained" else "random"
    vectors = embed("v", "--encoder", name, "--modality", modality)
    assert vectors.item_ids.tolist() == item_ids(room, *columns)
    assert (vectors.width, vectors.dtype, vectors.modality) == (width, np.int8, modality)
    assert vectors.encoder == ("scl" if encoder == "trained" else "random")
    assert f"{len(vectors)} of 40 items have a vector" in capsys.readouterr().out


def test_an_untrained_run_and_off_the_shelf_in_one_go_give_the_same_vectors(
    room, embed, off_the_shelf
):
    run = embed("run", "--encoder", str(room / "untrained"), "--dtype", "float32")
    once = embed("once", *off_the_shelf, "--dtype", "float32")
    assert run.encoder == once.encoder == "off-the-shelf"
    np.testing.assert_allclose(run.values, once.values, atol=1e-4)


def test_fused_cosines_are_means_and_training_changes_them(room, embed):
    flags = ["--encoder", str(room / "trained"), "--dtype", "float32"]
    both = [embed(modality, *flags, "--modality", modality) for modality in ("image", "text")]
    fused = embed("fused", *flags)
    shared = np.intersect1d(both[0].item_ids, both[1].item_ids)
    values = [each.lookup(shared)[0] for each in both]
    expected = (values[0] @ values[0].T + values[1] @ values[1].T) / 2
    got = fused.lookup(shared)[0]
    np.testing.assert_allclose(got @ got.T, expected, atol=1e-5)
    untrained = embed("before", "--encoder", str(room / "untrained"), "--dtype", "float32")
    assert np.abs(untrained.values - fused.values).max() > 0.01


def test_random_vectors_depend_on_the_seed_alone(embed):
    first, again, other = (
        embed(name, "--encoder", "random", "--seed", seed)
        for name, seed in (("a", "1"), ("b", "1"), ("c", "2"))
    )
    assert first.fingerprint == again.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--encoder", "nowhere"], "encoder must be a run of apps.pretrain, got nowhere"),
        (["--encoder", "random", "--image_size", "64"], "image_size must be left out unless"),
        (["--image_size", "8"], "image_size must be at least 32, got 8"),
        (["--encoder", "random", "--data", "nowhere"], "nowhere/items must be a folder"),
    ],
)
def test_a_mistake_is_named_and_leaves_nothing_behind(embed, tmp_path, flags, complaint):
    with pytest.raises(InputError, match=complaint):
        embed("v", *flags)
    assert list(tmp_path.iterdir()) == []


def test_existing_vectors_are_not_overwritten(embed, tmp_path):
    embed("v", "--encoder", "random")
    before = json.loads((tmp_path / "v" / "meta.json").read_text())
    with pytest.raises(InputError, match="v exists already"):
        embed("v", "--encoder", "random", "--seed", "1")
    assert json.loads((tmp_path / "v" / "meta.json").read_text()) == before
