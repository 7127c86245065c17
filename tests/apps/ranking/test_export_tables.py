"""Exported tables are the checkpoint's, row by row, with the ids they are of."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

import apps.export_tables
from tests.helpers.runs import train_ranker
from torchrec_mm.data.encoded.vocabulary import Vocabularies
from torchrec_mm.runs import tensor_shards
from torchrec_mm.runs.checkpoint import read_checkpoint
from torchrec_mm.runs.checkpoint_folders import find_checkpoint

TABLES = {
    *("request/user_id", "request/city", "request/page", "item/item_id", "item/shop_id"),
    *("item/category_id", "behaviour/action", "behaviour/stars", "request/user_effects"),
}


@pytest.fixture(scope="module")
def trained(market, tmp_path_factory) -> Path:
    """A run whose larger tables are saved in several chunks, 3 rows of 4 float32 in each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor_shards, "CHUNK_BYTES", 3 * 4 * 4)
        both = ("--epochs", "2", "--keep_checkpoints", "2")
        return train_ranker(market, tmp_path_factory.mktemp("runs") / "id", "id", *both)


def export(run_dir: Path, output: Path, form: str, *more: str) -> Path:
    flags = ["--run_dir", str(run_dir), "--output", str(output), "--format", form, *more]
    apps.export_tables.main(flags)
    return output


def weights_of(run_dir: Path, name: str, which: str = "latest") -> torch.Tensor:
    tensors = read_checkpoint(find_checkpoint(run_dir / "checkpoints", which).folder, "model.")
    table = f".embedding_bags.{name.split('/')[1]}_table.weight"
    (weights,) = [tensor for key, tensor in tensors.items() if key.endswith(table)]
    return weights


def known_ids(run_dir: Path, name: str) -> list[int]:
    group, feature = name.replace("user_effects", "user_id").split("/")  # of the same ids
    vocabularies = Vocabularies.load(run_dir / "vocabularies.safetensors")
    return getattr(vocabularies, group)[feature].known_ids.tolist()


def names_in(folder: Path, form: str) -> set[str]:
    return {str(p.relative_to(folder)).removesuffix(f".{form}") for p in folder.rglob("*.*")}


def test_parquet_has_each_row_with_its_id(trained, tmp_path):
    folder = export(trained, tmp_path / "tables", "parquet")
    assert names_in(folder, "parquet") == TABLES
    for name in TABLES:
        table = pq.read_table(folder / f"{name}.parquet")
        ids = known_ids(trained, name)
        assert table["row"].to_pylist() == list(range(len(ids) + 2))
        assert table["id"].to_pylist() == [None, None, *ids]
        assert table["kind"].to_pylist() == ["unseen", "rare", *["known"] * len(ids)]
        assert np.array_equal(np.stack(table["weights"].to_numpy()), weights_of(trained, name))


def test_safetensors_is_a_plain_file_of_weights_and_ids(trained, tmp_path):
    folder = export(trained, tmp_path / "tables", "safetensors")
    headers = [path.read_bytes()[:8] for path in folder.rglob("*.safetensors")]
    assert {int.from_bytes(length, "little") % 8 for length in headers} == {0}  # to be mapped
    assert names_in(folder, "safetensors") == TABLES
    for name in TABLES:
        tensors = load_file(folder / f"{name}.safetensors")
        assert torch.equal(tensors["weights"], weights_of(trained, name))
        assert tensors["known_ids"].tolist() == known_ids(trained, name)


def test_an_earlier_checkpoint_is_exported_where_it_is_named(trained, tmp_path):
    folder = export(trained, tmp_path / "tables", "safetensors", "--checkpoint", "4")
    weights = load_file(folder / "item" / "item_id.safetensors")["weights"]
    assert torch.equal(weights, weights_of(trained, "item/item_id", "4"))
    assert not torch.equal(weights, weights_of(trained, "item/item_id"))


def test_no_more_than_a_chunk_is_read_at_a_time(trained, tmp_path, monkeypatch):
    load, sizes = torch.load, []

    def watched(*args, **kwargs):
        loaded = load(*args, **kwargs)
        sizes.append(loaded.nbytes)
        return loaded

    monkeypatch.setattr(torch, "load", watched)
    export(trained, tmp_path / "tables", "parquet")
    assert len(sizes) > 2 * len(TABLES)
    assert max(sizes) == 3 * 4 * 4


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda run: None, "tables exists already"),
        (lambda run: (run / "vocabularies.safetensors").unlink(), "must be the vocabularies of"),
        (lambda run: shrink(run), "must have 3 rows, one an id, got"),
        (lambda run: (run / "model.json").unlink(), "must be the folder of a ranker run"),
    ],
)
def test_what_cannot_be_exported_is_named(spoil, words, trained, tmp_path, refused):
    spoilt = shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "mine").touch()
    spoil(spoilt)
    flags = ["--run_dir", str(spoilt), "--output", str(tmp_path / "tables")]
    assert words in refused(apps.export_tables.main, flags)
    assert [path.name for path in (tmp_path / "tables").iterdir()] == ["mine"]


def test_a_run_without_tables_is_named(market, tmp_path, refused):
    bias = train_ranker(market, tmp_path / "bias", "bias")
    flags = ["--run_dir", str(bias), "--output", str(tmp_path / "tables")]
    line = refused(apps.export_tables.main, flags)
    assert "bias must have tables, got a run of a method without them" in line


def shrink(run_dir: Path) -> None:
    """Vocabularies of one id each."""
    path = run_dir / "vocabularies.safetensors"
    vocabularies = Vocabularies.load(path)
    groups = [group for group in vars(vocabularies).values() if isinstance(group, dict)]
    for group in groups:
        for name, vocabulary in group.items():
            group[name] = type(vocabulary)(np.array([5]), vocabulary.rare_ids)
    vocabularies.save(path)
