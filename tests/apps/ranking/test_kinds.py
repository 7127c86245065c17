"""Columns of every kind through every command: text, Booleans, numbers and nulls all matter."""

import json
import shutil
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import apps.encode
import apps.export_tables
import apps.plan
import apps.predict
import apps.train_ranker
from tests.helpers.kinds_market import (
    BRANDS,
    DEVICES,
    TAGS,
    TOPICS,
    WAYS,
    add_columns,
    write_kinds_market,
)
from tests.helpers.runs import (
    evaluate,
    lines_of,
    predictions,
    ranker_flags,
    stopped_before,
    train_make,
    train_ranker,
)
from tests.helpers.small_market import NUM_ITEMS, SmallMarket
from tests.helpers.two_ranks import Command, run_on_two_ranks
from torchrec_mm.data.encoded.vocabulary import Vocabularies
from torchrec_mm.runs import tensor_shards

METHODS = ("bias", "id", "simtier+make", "muse")


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> SmallMarket:
    return write_kinds_market(tmp_path_factory.mktemp("market"))


@pytest.fixture(scope="module")
def runs(market, tmp_path_factory) -> dict[str, Path]:
    """A trained run of each method, whose tables are saved in chunks of three rows."""
    folder = tmp_path_factory.mktemp("runs")
    make = train_make(market, folder / "make_itself")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor_shards, "CHUNK_BYTES", 3 * 4 * 4)
        return {
            method: train_ranker(market, folder / method, method, make=make) for method in METHODS
        }


def scores(run_dir: Path, requests: Path, output: Path, *more: str) -> list[list[float]]:
    flags = ["--run_dir", run_dir, "--requests", requests, "--output", output, *more]
    apps.predict.main(list(map(str, flags)))
    return pq.read_table(output)["click_probabilities"].to_pylist()


def changed(requests: Path, folder: Path, **columns: list) -> Path:
    """A copy of some requests, other values in some columns."""
    shutil.copytree(requests, folder)
    add_columns(folder, lambda count, rng: {n: pa.array(v) for n, v in columns.items()})
    return folder


def in_order(values: tuple) -> list:
    return sorted(values, key=lambda value: (value is not None, value))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_evaluates_and_predicts(method, market, runs, tmp_path):
    assert evaluate(market, runs[method])["impressions"] > 0
    requests = market.data / "requests" / "test"
    found = scores(runs[method], requests, tmp_path / "scores.parquet")
    assert len(found) == pq.read_metadata(requests / "part.parquet").num_rows


@pytest.mark.parametrize("name", ["device", "premium", "city"])
def test_each_value_and_null_is_told_from_the_others_and_from_what_was_never_seen(
    name, market, runs, tmp_path
):
    requests = market.data / "requests" / "test"
    values = {"device": ["phone", "tablet", None, "kettle"], "premium": [True, False, None]}
    values["city"] = [0, 1, None, 77]
    rows = pq.read_metadata(requests / "part.parquet").num_rows
    found = []
    for place, value in enumerate(values[name]):
        kind = pa.array(values[name]).type
        copy = changed(requests, tmp_path / f"{place}", **{name: pa.array([value] * rows, kind)})
        found.append(scores(runs["id"], copy, tmp_path / f"{place}.parquet"))
    assert len({str(each) for each in found}) == len(values[name])


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS[1:])
def test_the_place_and_source_of_an_impression_matter_in_every_method(
    method, market, runs, tmp_path
):
    requests, found = market.data / "requests" / "test", []
    lengths = pq.read_table(requests)["candidate_item_ids"].combine_chunks().value_lengths()
    for name, values in {
        "candidate_source": ("mail", None, "new"),
        "candidate_position": (0, 2),
    }.items():
        for value in values:
            kind = pa.list_(pa.array(values).type)
            lists = pa.array([[value] * n for n in lengths.to_pylist()], kind)
            copy = changed(requests, tmp_path / f"{value}", **{name: lists})
            found.append(scores(runs[method], copy, tmp_path / "scores.parquet"))
    assert len({str(each) for each in found}) == 5


@pytest.mark.parametrize("name", ["age", "candidate_discount"])
def test_numbers_of_requests_and_impressions_matter_and_null_is_none_of_them(
    name, market, runs, tmp_path
):
    requests = market.data / "requests" / "test"
    table = pq.read_table(requests)
    lengths = table["candidate_item_ids"].combine_chunks().value_lengths().to_pylist()
    found = []
    for value in (0.0, 30.0, None):
        values = [[value] * n for n in lengths] if name != "age" else [value] * len(lengths)
        kind = pa.float64() if name == "age" else pa.list_(pa.float64())
        copy = changed(requests, tmp_path / f"{value}", **{name: pa.array(values, kind)})
        found.append(scores(runs["id"], copy, tmp_path / "scores.parquet"))
    assert len({str(each) for each in found}) == 3


@pytest.mark.parametrize("method", METHODS[1:])
def test_the_price_of_an_item_matters_wherever_it_is_known(method, market, runs, tmp_path):
    requests, found = market.data / "requests" / "test", []
    for value in (1.0, 90.0, None):
        prices = pa.array([value] * NUM_ITEMS, pa.float64())
        items = changed(market.data / "items", tmp_path / f"{value}", price=prices)
        more = ("--items", str(items))
        found.append(scores(runs[method], requests, tmp_path / "scores.parquet", *more))
    assert len({str(each) for each in found}) == 3


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS[1:])
def test_bags_of_items_and_requests_matter_in_every_method(method, market, runs, tmp_path):
    requests, found = market.data / "requests" / "test", []
    rows = pq.read_metadata(requests / "part.parquet").num_rows
    for place, bag in enumerate(([], [7], [7, 7, -3], [12345])):
        likes = changed(requests, tmp_path / f"{place}", likes=[bag] * rows)
        found.append(scores(runs[method], likes, tmp_path / "scores.parquet"))
    for place, bag in enumerate(([], ["sale"], ["sale", "new"], ["what is this"])):
        items = changed(market.data / "items", tmp_path / f"items-{place}", tags=[bag] * NUM_ITEMS)
        more = ("--items", str(items))
        found.append(scores(runs[method], requests, tmp_path / "scores.parquet", *more))
    assert len({str(each) for each in found}) == 8


def test_null_is_an_empty_bag(market, runs, tmp_path):
    items = [
        changed(market.data / "items", tmp_path / f"{place}", tags=pa.array(lists, kind))
        for place, (lists, kind) in enumerate(
            [
                ([[]] * NUM_ITEMS, pa.list_(pa.string())),
                ([None] * NUM_ITEMS, pa.large_list(pa.string())),
                ([None] * NUM_ITEMS, pa.null()),
            ]
        )
    ]
    requests = market.data / "requests" / "test"
    found = [
        scores(runs["id"], requests, tmp_path / "scores.parquet", "--items", str(each))
        for each in items
    ]
    assert found[0] == found[1] == found[2]


def test_a_column_of_nothing_but_nulls_is_one_of_any_kind(market, runs, tmp_path):
    requests = market.data / "requests" / "test"
    rows = pq.read_metadata(requests / "part.parquet").num_rows
    untyped, typed = (
        changed(requests, tmp_path / f"{kind}", device=pa.nulls(rows, kind))
        for kind in (pa.null(), pa.string())
    )
    found = [scores(runs["id"], each, tmp_path / "scores.parquet") for each in (untyped, typed)]
    assert found[0] == found[1]


def test_tables_are_exported_with_their_texts(runs, tmp_path):
    flags = ["--run_dir", str(runs["id"]), "--output", str(tmp_path / "tables")]
    apps.export_tables.main(flags)
    for name, values in {
        "item/brand": BRANDS,
        "request/device": DEVICES,
        "request/premium": (0, 1, None),
        "behaviour/via": WAYS,
        "item_bag/tags": TAGS,
        "item_bag/topics": TOPICS,
        "request_bag/likes": TOPICS,
        "impression/candidate_source": WAYS,
    }.items():
        table = pq.read_table(tmp_path / "tables" / f"{name}.parquet").to_pydict()
        assert table["id"][:2] == [None, None]
        assert in_order(table["id"][2:]) == in_order(values)
        kinds = dict(zip(table["id"][2:], table["kind"][2:], strict=True))
        expected = ["null", "known"] if None in values else [None, "known"]
        assert [kinds.pop(None, None), *{*kinds.values()}] == expected


def test_a_run_that_stopped_ends_with_the_bits_of_one_that_did_not(market, tmp_path):
    more = ("--epochs", "2", "--checkpoint_steps", "2")
    whole = train_ranker(market, tmp_path / "whole", "id", *more)
    train = partial(train_ranker, market, tmp_path / "half", "id", *more)
    with stopped_before(3):
        train()
    half = train("--resume", "true")
    assert lines_of(half, "step") == lines_of(whole, "step")
    alike = [predictions(market, r, tmp_path / f"{r.name}.parquet") for r in (whole, half)]
    assert alike[0] == alike[1]


@pytest.mark.slow
def test_two_ranks_learn_and_predict_what_one_does(market, runs, tmp_path):
    together = tmp_path / "two"
    file = tmp_path / "there.parquet"
    flags = [*market.flags, "--run_dir", str(together), "--predictions", str(file)]
    request = ("--run_dir", runs["id"], "--requests", market.data / "requests/test", "--output")
    one_each = ("--batch_requests", "1")
    commands = [
        Command("train_ranker", ranker_flags(market, together, "id")),
        Command("evaluate", flags),
        # Batches of one request leave a rank without any.
        Command("predict", [*map(str, request), str(tmp_path / "two.parquet"), *one_each]),
    ]
    run_on_two_ranks(tmp_path, commands)
    alone, there = (
        [line["loss"] for line in lines_of(run_dir, "step")] for run_dir in (runs["id"], together)
    )
    assert there == pytest.approx(alone, rel=1e-5)
    apps.predict.main([*map(str, request), str(tmp_path / "one.parquet")])
    found = [
        sum(pq.read_table(tmp_path / f"{n}.parquet")["click_probabilities"].to_pylist(), [])
        for n in ("one", "two")
    ]
    assert found[1] == pytest.approx(found[0], abs=1e-5)
    here = predictions(market, runs["id"], tmp_path / "here.parquet")["logit"]
    assert pq.read_table(file)["logit"].to_pylist() == pytest.approx(here, abs=1e-4)


def test_an_encoded_folder_trains_the_same_ranker(market, runs, tmp_path):
    encode = ["--data", str(market.data), "--run_dir", str(tmp_path / "encoded")]
    apps.encode.main([*encode, "--min_count", "2", "--max_behaviours", "50"])
    flags = ranker_flags(market, tmp_path / "run", "id")
    apps.train_ranker.main(["--encoded", str(tmp_path / "encoded"), *flags[2:]])
    assert lines_of(tmp_path / "run", "step") == lines_of(runs["id"], "step")
    known = Vocabularies.load(tmp_path / "run" / "vocabularies.safetensors").request["device"]
    assert in_order(tuple(known.texts.to_pylist())) == in_order(DEVICES)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"device": [1] * 25}, "part.parquet column device must be string, or left out, got int64"),
        (
            {"age": ["a"] * 25},
            "column age must be double or int64 or bool, or left out, got string",
        ),
        ({"age": [1.0] * 24 + [float("nan")]}, "column age must be finite or null, row 24 has nan"),
        ({"city": ["a"] * 25}, "part.parquet column city must be int64 or bool, or left out, got"),
    ],
)
def test_a_column_of_another_kind_than_in_training_is_refused(
    changes, words, market, runs, tmp_path, refused
):
    copy = changed(market.data / "requests" / "test", tmp_path / "copy", **changes)
    flags = ["--run_dir", runs["id"], "--requests", copy, "--output", tmp_path / "scores.parquet"]
    assert words in refused(apps.predict.main, flags)


def test_the_plan_has_a_table_for_each(runs, capsys):
    apps.plan.main(["--train", str(runs["id"] / "config.yaml"), "--device", "cpu", "--json"])
    plan = json.loads(capsys.readouterr().out)["tables"]
    tables = {table["table"] for table in plan}
    bags = {t["table"]: t["mean_length"] for t in plan if "mean_length" in t}
    assert {*bags} == {"likes_table", "tags_table", "topics_table"}
    assert all(1 < length < 2.5 for length in bags.values())
    apps.plan.main(["--train", str(runs["id"] / "config.yaml"), "--device", "cpu"])
    assert f"bags of {bags['likes_table']:.1f} ids" in capsys.readouterr().out
    names = ("brand", "is_new", "device", "premium", "via", "candidate_source")
    assert {f"{name}_table" for name in names} <= tables
