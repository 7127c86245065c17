"""What apps.train_ranker and apps.train_make build from their flags, before the first step."""

import json
from dataclasses import dataclass, fields
from importlib import import_module
from types import ModuleType

import pytest
import torch
import yaml

import apps.train_make
import apps.train_ranker
from tests.helpers.runs import make_flags, ranker_flags, train_ranker
from tests.helpers.small_market import read_parquet
from torchrec_mm.data.stream.batches import RequestBatch
from torchrec_mm.parallel.sharding import DistributedModel
from torchrec_mm.ranking.make import MakeRanker, make_spec_from_json
from torchrec_mm.ranking.ranker import Ranker
from torchrec_mm.ranking.spec import spec_from_json
from torchrec_mm.run_settings import RunSettings
from torchrec_mm.runs.tensor_shards import model_shards
from torchrec_mm.train.settings import TrainSettings

LOOP = {"epochs": 3, "seed": 4, "warmup_steps": 5, "checkpoint_steps": 6, "keep_checkpoints": 2}
LOOP |= {"allow_keys": ("a", "b"), "log_every_steps": 7, "hang_timeout_s": 8.0}
LOOP |= {"profile_steps": 9, "stop_timeout_s": 10.0}
OF_COMMANDS = {"resume", "tf32"}  # which the loop has no part in
BOTH = {"learning_rate": 0.02, "weight_decay": 0.3, "batch_requests": 7, "test_auc": True} | LOOP
RANKER = BOTH | {"table_learning_rate": 0.05, "table_scale": 0.007}
MAKE = BOTH | {"dropout": 0.4, "width": 12, "max_behaviours": 2, "folds": 3}
MUSE = {"num_tiers": 9, "kept": 3, "embedding_dim": 8, "hidden": (6, 5), "batch_behaviours": 9}
MUSE |= {"max_behaviours": 2, "searched_behaviours": 4}


@dataclass(frozen=True)
class Built:
    """What ``fit`` is given: the model as it begins, batches of the first epoch and of the test."""

    distributed: DistributedModel
    batches: list[RequestBatch]
    test: list[RequestBatch]
    settings: TrainSettings
    spec: dict

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """All that is trained, by name; tables are those whose names hold ``embedding_bags``."""
        shards = model_shards(self.distributed.model)
        return {name: own.parts[0][1] for name, own in shards.items()}

    @property
    def requests(self) -> list[list[int]]:
        """Of each batch."""
        return [batch.rows.tolist() for batch in self.batches]

    def rates(self, name: str) -> set[float]:
        """Of the dense part's optimizer."""
        return {group[name] for group in self.distributed.dense_optimizer.param_groups}


def built(app: ModuleType, flags: list[str]) -> Built:
    """Up to the training, which is left out."""
    seen = []

    def look(distributed, train, run, settings, test=None, finish=None) -> None:
        spec = json.loads((run.path / "model.json").read_text())["spec"]
        tested = list(test.epoch(0)) if test else []
        seen.append(Built(distributed, list(train.epoch(0)), tested, settings, spec))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "fit", look)
        app.main(flags)
    return seen[0]


def words(flags: dict) -> list[str]:
    """As they are typed."""
    lists = {k: f"[{','.join(map(str, v))}]" for k, v in flags.items() if isinstance(v, tuple)}
    return [word for name, value in (flags | lists).items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def rankers(market, tmp_path_factory) -> list[Built]:
    """Two seeds of one ranker."""
    runs = tmp_path_factory.mktemp("runs")
    flags = [(ranker_flags(market, runs / f"{seed}", "id"), seed) for seed in (4, 1)]
    return [built(apps.train_ranker, [*f, *words(RANKER | {"seed": s})]) for f, s in flags]


@pytest.fixture(scope="module")
def makes(market, tmp_path_factory) -> list[Built]:
    """Two seeds of one MAKE."""
    runs = tmp_path_factory.mktemp("runs")
    flags = [(make_flags(market, runs / f"{seed}"), seed) for seed in (4, 1)]
    return [built(apps.train_make, [*f, *words(MAKE | {"seed": s})]) for f, s in flags]


@pytest.fixture(scope="module")
def muse(market, tmp_path_factory) -> Built:
    flags = ranker_flags(market, tmp_path_factory.mktemp("runs") / "run", "muse")
    return built(apps.train_ranker, [*flags, *words(MUSE)])


def test_each_half_of_a_ranker_learns_at_its_own_rate(rankers):
    run, _ = rankers
    assert (run.rates("lr"), run.rates("weight_decay")) == ({0.02}, {0.3})
    fused = run.distributed.model.fused_optimizer.param_groups
    assert [group["lr"] for group in fused] == pytest.approx([0.05] * len(fused))
    tables = [value for name, value in run.weights.items() if "embedding_bags" in name]
    assert max(table.abs().max() for table in tables) == pytest.approx(0.007, rel=0.05)


def test_make_learns_at_its_rate_and_drops_out_its_share(makes):
    run, _ = makes
    assert (run.rates("lr"), run.rates("weight_decay")) == ({0.02}, {0.3})
    modules = run.distributed.model.modules()
    assert [m.p for m in modules if isinstance(m, torch.nn.Dropout)] == [0.4] * 3
    shape = {"vector_width": 8, "width": 12, "hidden": [8, 4], "dropout": 0.4}
    assert run.spec == shape | {"folds": 3}


@pytest.mark.parametrize(
    ("app", "rate", "of_requests"), [("train_make", 0.003, 128), ("train_ranker", 0.001, 32)]
)
def test_a_rate_that_is_not_given_follows_the_batch_and_is_written_down(
    app, rate, of_requests, market, tmp_path
):
    command, twice = import_module(f"apps.{app}"), 2 * of_requests
    flags = [*market.vector_flags, "--run_dir", str(tmp_path / "run")]
    flags += ["--method", "simtier"] if app == "train_ranker" else []
    run = built(command, [*flags, "--batch_requests", str(twice)])
    assert run.rates("lr") == {2 * rate}
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (written["learning_rate"], written["batch_requests"]) == (2 * rate, twice)


@pytest.mark.parametrize("phase", ["rankers", "makes"])
def test_the_seed_is_that_of_all_weights_and_of_the_order(phase, request):
    one, other = request.getfixturevalue(phase)
    orders = [sum(run.requests, []) for run in (one, other)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(60))
    assert orders[0] != orders[1] and list(range(60)) not in orders
    drawn = {name for name, value in one.weights.items() if len(value.flatten().unique()) > 1}
    assert {name.rpartition(".")[2] for name in drawn} >= {"weight", "bias"}
    for name in drawn:
        assert not torch.equal(one.weights[name], other.weights[name]), name


def test_dense_weights_are_drawn_from_the_seed_alone(rankers, makes):
    for seed, ranker, make in zip((4, 1), rankers, makes, strict=True):
        for run, build in (
            (ranker, lambda spec: Ranker(spec_from_json(spec))),
            (make, lambda spec: MakeRanker(make_spec_from_json(spec))),
        ):
            torch.manual_seed(seed)
            for name, drawn in build(run.spec).named_parameters():
                assert drawn.is_meta or torch.equal(run.weights[f"model.{name}"], drawn), name


def test_a_batch_holds_no_more_than_it_may(rankers, makes, muse):
    for run in (rankers[0], makes[0]):
        assert max(map(len, run.requests)) == 7
    assert 6 < max(len(batch.behaviours) for batch in muse.batches) <= 9


def test_the_newest_behaviours_are_attended_to_and_more_are_searched(makes, muse):
    for run in (makes[0], muse):
        assert max(batch.most_behaviours for batch in run.batches) == 2
    assert max(batch.search.tiers.sum(-1).max() for batch in muse.batches) == 4
    assert max(batch.search.kept_length.max() for batch in muse.batches) == 3


def test_the_shape_of_a_ranker_is_that_of_its_flags_and_data(muse, market):
    shape = {"num_tiers": 9, "kept": 3, "embedding_dim": 8, "hidden": [6, 5]}
    assert {name: muse.spec[name] for name in shape} == shape
    labels = sum(read_parquet(market.data / "requests" / "train")["labels"], [])
    assert muse.spec["base_rate"] == pytest.approx(sum(labels) / len(labels))


def test_all_that_says_how_long_and_what_to_keep_reaches_the_loop(rankers, makes):
    assert LOOP.keys() >= {field.name for field in fields(RunSettings)} - OF_COMMANDS
    for run in (rankers[0], makes[0]):
        assert {name: getattr(run.settings, name) for name in LOOP} == LOOP
        assert run.settings.resume is False


def test_requests_that_are_scored_come_in_the_order_of_the_data(rankers, makes):
    for run in (rankers[0], makes[0]):
        assert sum((batch.rows.tolist() for batch in run.test), []) == list(range(25))


def test_what_a_killed_run_left_is_used_by_a_run_that_goes_on_alone(market, tmp_path):
    """Another run of the same name may have had other flags."""
    left = tmp_path / ".run.encoded"
    left.mkdir()
    (left / "meta.json").write_text("{}")
    run_dir = train_ranker(market, tmp_path / "run", "bias")
    assert (run_dir / "vocabularies.safetensors").is_file() and not left.exists()
