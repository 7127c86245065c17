"""Our side of the short benchmark: the command's own settings, batches and MAKE."""

from dataclasses import fields, replace

import pytest
import torch

from apps.train_ranker import RATE_PER_REQUEST, TrainRankerConfig
from torchrec_mm.benchmarks.ranking.short_ours import (
    learner,
    mean_batch,
    min_count,
    quality,
    speed,
    train_ranker_config,
)
from torchrec_mm.benchmarks.ranking.sides import ShortTask
from torchrec_mm.data.encoded.encoded import EncodedRequests
from torchrec_mm.runs.checkpoint import read_checkpoint
from torchrec_mm.runs.checkpoint_folders import find_checkpoint

METHODS = ("id", "simtier+make")


@pytest.fixture
def task(short_folder) -> ShortTask:
    return ShortTask(folder=short_folder, seconds=0.01, epochs=2, seed=0)


@pytest.fixture
def train(short_folder) -> EncodedRequests:
    return EncodedRequests(short_folder / "encoded", "train")


@pytest.mark.parametrize("method", METHODS)
def test_settings_are_the_commands_defaults(task, train, method):
    config = train_ranker_config(replace(task, method=method), train)
    told = {"run_dir", "encoded", "method", "vectors", "make", "seed", "learning_rate"}
    for field in fields(TrainRankerConfig):
        if field.name not in told:
            value = getattr(config, field.name)
            assert value == getattr(TrainRankerConfig, field.name, value), field.name
    assert (config.method, config.seed) == (method, 0)
    assert config.learning_rate == RATE_PER_REQUEST * TrainRankerConfig.batch_requests
    assert min_count() == TrainRankerConfig.min_count


def test_a_batch_asked_for_is_about_as_large(task, train):
    asked = replace(task, batch_impressions=80)
    config = train_ranker_config(asked, train)
    assert config.batch_requests == round(80 * len(train) / train.num_impressions)
    assert mean_batch(asked) == pytest.approx(80, abs=4)
    each = train.num_impressions / len(train)
    assert mean_batch(task) == round(TrainRankerConfig.batch_requests * each)


def test_the_optimizer_has_the_commands_rates(task, worker):
    distributed = learner(task, worker).distributed
    rates = {group["lr"] for group in distributed.optimizer.param_groups}
    learning_rate = RATE_PER_REQUEST * TrainRankerConfig.batch_requests
    wanted = [learning_rate, TrainRankerConfig.table_learning_rate]
    assert sorted(rates) == pytest.approx(wanted)  # FBGEMM's are float32


def test_make_is_the_one_that_was_trained(task, worker):
    trained = read_checkpoint(
        find_checkpoint(task.folder / "make" / "run" / "checkpoints").folder, "model.make."
    )
    model = learner(replace(task, method="simtier+make"), worker).distributed.model
    held = {
        name.rpartition("make.")[2]: value
        for name, value in model.state_dict().items()
        if "make." in name
    }
    assert held.keys() == trained.keys()
    for name, value in held.items():
        torch.testing.assert_close(value, trained[name])


@pytest.mark.parametrize("method", METHODS)
def test_it_learns_from_every_impression_and_scores_the_test_set(task, train, method):
    task = replace(task, method=method)
    reached = quality(task)
    assert reached.impressions == 2 * train.num_impressions
    assert 0 <= reached.auc <= 1 and 0 <= reached.gauc <= 1
    assert quality(task) == reached


@pytest.mark.parametrize("method", METHODS)
def test_it_has_a_speed(task, method):
    assert speed(replace(task, method=method, batch_impressions=40)) > 0
