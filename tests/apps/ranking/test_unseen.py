"""What training never showed: counted by feature, and scored alike by both commands."""

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import apps.predict
from tests.helpers.kinds_market import write_kinds_market
from tests.helpers.runs import evaluate, predictions, train_ranker
from tests.helpers.small_market import SmallMarket, read_parquet
from tests.helpers.two_ranks import Command, run_on_two_ranks

NEW_USER = 77_777


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> SmallMarket:
    """Whose first test request is of a user, and with a way, that training has not."""
    market = write_kinds_market(tmp_path_factory.mktemp("market"))
    path = market.data / "requests" / "test" / "part.parquet"
    columns = pq.read_table(path).to_pydict()
    columns["user_id"][0] = NEW_USER
    columns["likes"][0] = [NEW_USER, NEW_USER]
    columns["candidate_source"][0][0] = "carrier pigeon"
    pq.write_table(pa.table(columns), path)
    return market


@pytest.fixture(scope="module")
def runs(market, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {method: train_ranker(market, folder / method, method) for method in ("bias", "id")}


def flat(lists: list[list]) -> list:
    return [value for each in lists for value in each]


@pytest.mark.parametrize("method", ["bias", "id"])
def test_values_that_training_never_showed_are_counted_by_feature(method, market, runs):
    found = evaluate(market, runs[method])["unseen"]
    train, test = (read_parquet(market.data / "requests" / split) for split in ("train", "test"))
    items = read_parquet(market.data / "items")

    def counted(name: str) -> None:
        seen, values = ({str(v) for v in flat(train[name])}, flat(test[name]))
        wanted = {"unseen": sum(str(v) not in seen for v in values), "values": len(values)}
        assert found[name] == wanted | {"share": wanted["unseen"] / wanted["values"]}, name

    for columns in (train, test):
        for name in ("user_id", "device", "city", "premium"):
            columns[name] = [[value] for value in columns[name]]
        columns["item_id"] = [*columns["candidate_item_ids"], *columns["behaviour_item_ids"]]
    for name in ("user_id", "device", "city", "premium", "via", "candidate_source"):
        counted(name)
    likes = [[value for value in bag or [] if value is not None] for bag in test["likes"]]
    seen = {value for bag in train["likes"] for value in bag or []}
    new = [value for value in flat(likes) if value not in seen]
    assert found["likes"]["values"] == len(flat(likes))
    assert found["likes"]["unseen"] == len(new) >= 2
    tags = dict(zip(items["item_id"], items["tags"], strict=True))
    of_test = flat([tags.get(item) or [] for item in flat(test["item_id"])])
    of_train = {*flat([tags.get(item) or [] for item in flat(train["item_id"])])}
    assert found["tags"]["values"] == len(of_test)
    assert found["tags"]["unseen"] == len([tag for tag in of_test if tag not in of_train])
    assert found["user_id"]["unseen"] == 1 and found["candidate_source"]["unseen"] == 1
    assert found["item_id"]["values"] == len(flat(test["item_id"]))
    in_training = {*flat(train["candidate_item_ids"]), *flat(train["behaviour_item_ids"])}
    new = [item for item in flat(test["item_id"]) if item not in in_training]
    assert found["item_id"]["unseen"] == len(new)


def test_two_ranks_count_each_value_once(market, runs, tmp_path):
    alone = evaluate(market, runs["id"])["unseen"]
    run_on_two_ranks(tmp_path, [Command("evaluate", [*market.flags, "--run_dir", str(runs["id"])])])
    assert json.loads((runs["id"] / "metrics.json").read_text())["unseen"] == alone


@pytest.mark.parametrize("method", ["bias", "id"])
def test_both_commands_score_what_was_never_shown_alike(method, market, runs, tmp_path):
    logits = predictions(market, runs[method], tmp_path / "logits.parquet")["logit"]
    requests, output = market.data / "requests" / "test", tmp_path / "scores.parquet"
    flags = ["--run_dir", runs[method], "--requests", requests, "--output", output]
    apps.predict.main([*map(str, flags)])
    found = flat(pq.read_table(output)["click_probabilities"].to_pylist())
    assert found == pytest.approx([1 / (1 + math.exp(-logit)) for logit in logits], abs=1e-6)
