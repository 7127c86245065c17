"""Method codes through the commands: learned once, frozen in the run, the same wherever it runs."""

import json
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

import apps.export_tables
import apps.train_ranker
from tests.helpers.runs import evaluate, predictions, ranker_flags, train_ranker
from tests.helpers.small_market import NEVER_SHOWN, WITHOUT_VECTOR
from torchrec_mm.item_vectors.codes import Codebooks
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.item_vectors.writer import write_item_vectors

FILE = "codebooks.safetensors"


@pytest.fixture(scope="module")
def coded(market, tmp_path_factory):
    return train_ranker(market, tmp_path_factory.mktemp("codes") / "run", "codes")


def test_a_run_holds_its_codebooks_and_scores_by_them(market, coded):
    assert Codebooks.load(coded / FILE).tables.keys() == {
        *("vector_code_1", "vector_code_2", "vector_code_3")
    }
    evaluate(market, coded)
    assert json.loads((coded / "metrics.json").read_text())["method"] == "codes"


def test_an_item_never_shown_is_scored_by_the_codes_of_its_vector(market, coded, tmp_path):
    """With the vector of one item or another its logit goes by their codes, and by nothing else."""
    codebooks, vectors = Codebooks.load(coded / FILE), ItemVectors.open(market.vectors)
    by_codes: dict[tuple, set[float]] = {}
    for number in range(12):
        values = np.array(vectors.values)
        values[vectors.item_ids == NEVER_SHOWN] = values[number]
        meta, folder = vectors.meta, tmp_path / str(number)
        write_item_vectors(
            *(folder, vectors.item_ids, values),
            **dict(dtype=meta.dtype, encoder=meta.encoder, modality=meta.modality),
            origin=meta.origin,
        )
        codes = codebooks.rows(ItemVectors.open(folder), np.array([NEVER_SHOWN]))
        file = tmp_path / f"{number}.parquet"
        evaluate(market, coded, "--vectors", str(folder), "--predictions", str(file))
        rows = pq.read_table(file).to_pylist()
        logit = next(row["logit"] for row in rows if row["item_id"] == NEVER_SHOWN)
        by_codes.setdefault(tuple(codes[:, 0].tolist()), set()).add(logit)
    assert all(len(logits) == 1 for logits in by_codes.values())
    assert len(set().union(*by_codes.values())) == len(by_codes) > 1


def test_a_run_that_is_resumed_keeps_its_codebooks(market, coded, monkeypatch):
    before = (coded / FILE).read_bytes()
    monkeypatch.setattr(Codebooks, "learn", lambda vectors: pytest.fail("learned again"))
    apps.train_ranker.main([*ranker_flags(market, coded, "codes"), "--resume"])
    assert (coded / FILE).read_bytes() == before


def test_vectors_in_the_ranks_memory_give_the_same_codes(market, coded, tmp_path):
    sharded = train_ranker(market, tmp_path / "sharded", "codes", "--vector_storage", "sharded")
    here, there = (
        predictions(market, run, tmp_path / f"{run.name}.parquet") for run in (coded, sharded)
    )
    assert here == there


def test_tables_of_codes_are_exported_with_the_codes(coded, tmp_path):
    apps.export_tables.main(["--run_dir", str(coded), "--output", str(tmp_path / "tables")])
    table = pq.read_table(tmp_path / "tables" / "item" / "vector_code_1.parquet")
    assert table["id"].to_pylist() == [None, None, 0, 1]


def test_items_without_a_vector_share_one_row(market, coded):
    rows = Codebooks.load(coded / FILE).rows(ItemVectors.open(market.vectors), WITHOUT_VECTOR)
    assert (rows == 0).all()


def test_without_faiss_the_method_is_refused_and_leaves_no_folder(
    market, tmp_path, monkeypatch, refused
):
    monkeypatch.setitem(sys.modules, "faiss", None)
    said = refused(apps.train_ranker.main, ranker_flags(market, tmp_path / "run", "codes"))
    assert "pip install 'faiss-cpu>=1.9'" in said
    assert not (tmp_path / "run").exists()
