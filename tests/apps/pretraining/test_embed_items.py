"""apps.embed_items from flags to item vectors, on tiny encoders, one rank and two."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from apps.embed_items import main
from tests.helpers.request_folders import contents
from tests.helpers.two_ranks import Command, run_on_two_ranks
from tests.pretraining.embed.embedded import Room, make_room, read_items, spoil, write_items
from torchrec_mm.data.content.pack import pack
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.pretraining.embed import packed_vectors
from torchrec_mm.pretraining.embed.queries import encode_query
from torchrec_mm.pretraining.encoder.encoder_files import save_encoder
from torchrec_mm.pretraining.encoder.item_encoder import build_item_encoder
from torchrec_mm.pretraining.pairs import features


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Room:
    return make_room(tmp_path_factory.mktemp("embed"))


@pytest.fixture
def embed(room, tmp_path):
    def call(name: str, *flags: str, data: Path = room.data) -> ItemVectors:
        main(["--data", str(data), "--run_dir", str(tmp_path / name), *flags])
        return ItemVectors.open(tmp_path / name)

    return call


def item_ids(room, *columns: str) -> list[int]:
    """Ids, ascending, of items where one of the columns is not null."""
    items = read_items(room.data)
    present = np.logical_or.reduce([items[column].is_valid().to_numpy() for column in columns])
    return sorted(items["item_id"].to_numpy()[present].tolist())


@pytest.mark.parametrize(
    ("modality", "columns", "width"),
    [("image", ["image"], 128), ("text", ["title"], 128), ("fused", ["image", "title"], 256)],
)
@pytest.mark.parametrize("encoder", ["trained", "off-the-shelf", "random"])
def test_every_item_that_has_the_content_gets_a_vector(
    room, embed, tmp_path, capsys, encoder, modality, columns, width
):
    flags = {
        "trained": ["--encoder", str(room.trained)],
        "off-the-shelf": room.off_the_shelf,
        "random": ["--encoder", "random"],
    }[encoder]
    vectors = embed("v", *flags, "--modality", modality)
    assert vectors.item_ids.tolist() == item_ids(room, *columns)
    assert (vectors.width, vectors.dtype, vectors.modality) == (width, np.int8, modality)
    assert vectors.encoder == ("scl" if encoder == "trained" else encoder)
    assert f"{len(vectors)} of 40 items have a vector" in capsys.readouterr().out
    assert [entry.name for entry in tmp_path.iterdir()] == ["v"]


@pytest.fixture
def packed(room, tmp_path) -> Path:
    pack(room.data, tmp_path / "packed")
    return tmp_path / "packed"


@pytest.fixture
def embed_packed(packed, tmp_path):
    def call(name: str, *flags: str) -> ItemVectors:
        main(["--packed", str(packed), "--run_dir", str(tmp_path / name), *flags])
        return ItemVectors.open(tmp_path / name)

    return call


@pytest.mark.parametrize("modality", ["image", "text", "fused"])
@pytest.mark.parametrize("encoder", ["trained", "off-the-shelf"])
def test_packed_items_have_the_vectors_of_their_data(room, embed, embed_packed, encoder, modality):
    of_encoder = ["--encoder", str(room.trained)] if encoder == "trained" else room.off_the_shelf
    flags = [*of_encoder, "--modality", modality, "--dtype", "float32", "--batch_size", "7"]
    of_data, of_packed = embed("data", *flags), embed_packed("packed-v", *flags)
    np.testing.assert_array_equal(of_packed.item_ids, of_data.item_ids)
    np.testing.assert_allclose(of_packed.values, of_data.values, atol=1e-4)
    assert (of_packed.encoder, of_packed.modality) == (of_data.encoder, of_data.modality)
    if encoder == "trained":
        assert of_packed.origin == of_data.origin


def test_features_kept_beside_packed_items_are_not_computed_again(
    room, packed, embed_packed, monkeypatch
):
    first = embed_packed("first", *room.off_the_shelf, "--dtype", "float32")
    assert len(list((packed / "features").iterdir())) == 2
    monkeypatch.setattr(features, "_encode_part", None)
    second = embed_packed("second", *room.off_the_shelf, "--dtype", "float32")
    assert second.fingerprint == first.fingerprint
    assert len(embed_packed("third", "--encoder", str(room.trained))) == 40


def test_corrupt_pictures_of_packed_items_are_counted_too(room, tmp_path, capsys):
    data = write_items(tmp_path / "data", spoil(read_items(room.data), [1, 2]))
    (data / "searches").symlink_to(room.data / "searches")
    pack(data, tmp_path / "packed")
    flags = ["--packed", str(tmp_path / "packed"), "--encoder", str(room.trained)]
    main([*flags, "--run_dir", str(tmp_path / "v"), "--corrupt_share", "0.1"])
    assert len(ItemVectors.open(tmp_path / "v")) == 40
    assert "2 of 39 pictures could not be decoded" in capsys.readouterr().out


def test_packed_items_in_several_parts_have_the_same_vectors(room, embed_packed, monkeypatch):
    flags = ["--encoder", str(room.trained), "--dtype", "float32"]
    whole = embed_packed("whole", *flags)
    monkeypatch.setattr(packed_vectors, "PART_ITEMS", 11)
    np.testing.assert_allclose(embed_packed("parts", *flags).values, whole.values, atol=1e-6)


def test_lower_precision_changes_vectors_a_little(room, embed):
    flags = ["--encoder", str(room.trained), "--dtype", "float32"]
    exact, rough = embed("exact", *flags), embed("rough", *flags, "--precision", "bf16")
    assert 1e-6 < np.abs(exact.values - rough.values).max() < 0.1
    assert exact.origin == rough.origin


def test_the_origin_names_encoder_and_space_and_not_the_items(room, embed, tmp_path):
    flags = ["--encoder", str(room.trained)]
    fewer = write_items(tmp_path / "fewer", read_items(room.data)[:20])
    fused, of_fewer = embed("fused", *flags), embed("few", *flags, data=fewer)
    assert fused.origin == of_fewer.origin and fused.fingerprint != of_fewer.fingerprint
    text = embed("text", *flags, "--modality", "text")
    query = encode_query(room.trained, fused, "word1", None)  # finds them to be its own
    assert query.shape == (1, fused.width)
    assert (fused.origin[:10], text.origin[:9]) == ("scl-fused-", "scl-text-")
    narrow = [*room.off_the_shelf, "--width", "16"]
    shelf = [embed("all", *narrow), embed("less", *narrow, data=fewer)]
    assert shelf[0].origin != shelf[1].origin  # heads fitted to other items
    control = embed("control", "--encoder", "random", data=fewer)
    assert control.origin == "random-0-256"


def test_vectors_have_what_their_encoder_was_trained_for_or_items_have_unless_told(room, embed):
    text = [spec for spec in room.specs if spec.modality == "text"]
    run_dir = room.trained.parent / "trained-text"
    run_dir.mkdir()
    save_encoder(run_dir, "scl", build_item_encoder(text))
    assert embed("of-run", "--encoder", str(run_dir)).modality == "text"
    assert embed("of-both", "--encoder", str(room.trained)).modality == "fused"
    data = write_items(room.data.parent / "titles", read_items(room.data).drop_columns(["image"]))
    control = embed("control", "--encoder", "random", "--width", "7", data=data)
    assert (control.modality, control.width) == ("text", 7)


def test_random_vectors_depend_on_the_seed_and_the_id_alone(room, embed, tmp_path):
    first, again, other = (
        embed(name, "--encoder", "random", "--seed", seed)
        for name, seed in (("a", "1"), ("b", "1"), ("c", "2"))
    )
    assert first.fingerprint == again.fingerprint != other.fingerprint
    fewer = write_items(tmp_path / "fewer", read_items(room.data)[20:])
    few = embed("few", "--encoder", "random", "--seed", "1", data=fewer)
    np.testing.assert_array_equal(few.values, first.lookup(few.item_ids)[0])
    assert few.origin == first.origin != other.origin


def test_corrupt_pictures_are_counted_up_to_the_share(room, embed, tmp_path, capsys):
    data = write_items(tmp_path / "data", spoil(read_items(room.data), [1, 2]))
    flags = ["--encoder", str(room.trained)]
    with pytest.raises(InputError, match="corrupt_share must be at least .* 2 of 39, the first"):
        embed("v", *flags, data=data)
    assert len(embed("v", *flags, "--corrupt_share", "0.1", data=data)) == 40
    assert "2 of 39 pictures could not be decoded" in capsys.readouterr().out
    with pytest.raises(InputError, match="got 0.01"):
        embed("none", *flags, "--max_image_pixels", "10")


def test_a_run_goes_on_with_the_same_flags_and_items_only(room, embed, tmp_path):
    data = write_items(tmp_path / "data", spoil(read_items(room.data), [1, 2]))
    flags = ["--encoder", str(room.trained)]
    with pytest.raises(InputError, match="corrupt_share"):
        embed("v", *flags, data=data)
    for more, field in (
        (["--batch_size", "7"], "batch_size must stay 64"),
        (["--dtype", "float32"], "dtype must stay 'int8'"),
        (["--modality", "text"], "must stay"),
    ):
        with pytest.raises(InputError, match=f"{field}.* to go on with .*v.parts, got"):
            embed("v", *flags, *more, data=data)
    with pytest.raises(InputError, match="encoder must stay 'scl-fused-.* got 'off-the-shelf-fus"):
        embed("v", *room.off_the_shelf, data=data)
    with pytest.raises(InputError, match="items must stay .*: remove that folder to start over"):
        embed("v", *flags)
    assert len(embed("v", *flags, "--corrupt_share", "1", data=data)) == 40


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--encoder", "nowhere"], "encoder must be a run of apps.pretrain, got nowhere"),
        (["--encoder", "random", "--image_size", "64"], "image_size must be left out unless"),
        (["--image_size", "8"], "image_size must be at least 32, got 8"),
        (["--width", "0"], "width must be at least 1, got 0"),
        (["--encoder", "nowhere", "--width", "9"], "width must be left out with an encoder's run"),
        (["--batch_size", "0"], "batch_size must be at least 1, got 0"),
        (["--corrupt_share", "1.5"], r"corrupt_share must be in \[0, 1\], got 1.5"),
        (["--encoder", "random", "--data", "nowhere"], "nowhere/items must be a folder"),
        (["--packed", "p"], "either data or packed must be given, got .* and p"),
    ],
)
def test_a_mistake_is_named_and_leaves_nothing_behind(embed, tmp_path, flags, complaint):
    with pytest.raises(InputError, match=complaint):
        embed("v", *flags)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--encoder", "random"], "packed must be left out with --encoder random, got packed"),
        (["--num_workers", "2"], "num_workers must be left out with packed, got 2"),
        ([], "packed must be a folder of packed content"),
    ],
)
def test_a_mistake_with_packed_items_is_named(tmp_path, flags, complaint):
    with pytest.raises(InputError, match=complaint):
        main(["--packed", "packed", "--run_dir", str(tmp_path / "v"), *flags])
    assert list(tmp_path.iterdir()) == []


def test_existing_vectors_are_not_overwritten(embed, tmp_path):
    embed("v", "--encoder", "random")
    before = json.loads((tmp_path / "v" / "meta.json").read_text())
    with pytest.raises(InputError, match="v exists already"):
        embed("v", "--encoder", "random", "--seed", "1")
    assert json.loads((tmp_path / "v" / "meta.json").read_text()) == before


@pytest.mark.slow
def test_two_ranks_write_the_bytes_of_one_also_on_unlike_gpus(room, embed, tmp_path):
    """Three parts of 533 items or so, a third of them without a picture."""
    items = read_items(room.data)
    many = pa.concat_tables([items] * 40).drop_columns("item_id")
    images = [image if i % 3 else None for i, image in enumerate(many["image"].to_pylist())]
    many = many.set_column(many.column_names.index("image"), "image", [images])
    data = write_items(tmp_path / "data", many.append_column("item_id", [range(1600)]), 2000)
    flags = {"trained": ["--encoder", str(room.trained)], "off-the-shelf": room.off_the_shelf}
    flags["unlike"] = [*room.off_the_shelf, "--width", "16"]  # the heads have to be fitted
    for name, of_encoder in flags.items():
        flags[name] = of_encoder + ["--dtype", "float32"]
        assert len(embed(name, *flags[name], data=data)) > 1500
    run_on_two_ranks(
        tmp_path,
        [
            Command(
                "embed_items",
                ["--data", str(data), "--run_dir", f"{name}-2", *more],
                unlike=name == "unlike",
            )
            for name, more in flags.items()
        ],
    )
    for name in flags:
        assert contents(tmp_path / f"{name}-2") == contents(tmp_path / name)
