"""The trainer beside a replay: what scores is what it has published."""

from contextlib import closing

import numpy as np
import pyarrow.parquet as pq
import pytest

import apps.train_ranker
from tests.helpers.runs import train_ranker
from tests.helpers.small_market import DAY_S
from tests.serving.served import parsed, scorer_of, table_of
from torchrec_mm.data.contract.items import read_items
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.replay.arrivals import Arrivals
from torchrec_mm.replay.follower import Follower
from torchrec_mm.replay.replay import read_in_order, replay
from torchrec_mm.scoring.trained_run import TrainedRun


@pytest.fixture(scope="module")
def ranker(market, tmp_path_factory):
    return train_ranker(market, tmp_path_factory.mktemp("ranker") / "run", "simtier")


@pytest.fixture
def arrivals(market, tmp_path):
    vectors, items = ItemVectors.open(market.vectors), read_items(market.data)
    index = tmp_path / "index"
    with closing(Arrivals(index, vectors, items, begin_s=10 * DAY_S, delay_s=0)) as coming:
        yield coming


@pytest.mark.slow
def test_what_scores_has_learned_from_all_windows_but_the_last(market, ranker, arrivals, tmp_path):
    """Of 25 seconds in windows of ten: as a trainer that is given the first twenty has."""
    before = scorer_of(ranker)
    columns = before.encoder.columns
    table = read_in_order(market.data / "requests" / "test", columns)
    items, trained = read_items(market.data), TrainedRun.open(ranker, "latest")
    (tmp_path / "beside").mkdir()
    with Follower(trained, market.data, arrivals, tmp_path / "beside", 10) as follower:
        replay(follower.scorer, table, items, arrivals, 5, follower.learn)
        learned = follower.scorer()
    (tmp_path / "spool").mkdir()
    pq.write_table(table.slice(0, 20), tmp_path / "spool" / "all.parquet")
    alone = ["--start_from", ranker, "--follow", tmp_path / "spool", "--once", "true"]
    alone += ["--window_s", 10, "--vectors", arrivals.index, "--run_dir", tmp_path / "alone"]
    apps.train_ranker.main([str(flag) for flag in alone])
    asked = table_of(before, market.data / "requests" / "test")
    wanted = scorer_of(tmp_path / "alone").logits(parsed(before, asked))
    assert learned.logits(parsed(before, asked)) == pytest.approx(wanted, abs=1e-6)
    assert not np.allclose(before.logits(parsed(before, asked)), wanted, atol=1e-4)


@pytest.mark.slow
def test_a_trainer_that_cannot_begin_says_why(market, ranker, arrivals, tmp_path):
    (tmp_path / "beside").mkdir()
    trained = TrainedRun.open(ranker, "latest")
    follower = Follower(trained, tmp_path / "nowhere", arrivals, tmp_path / "beside", 10)
    with (
        pytest.raises(InputError, match="must be one that can go on learning: .*nowhere"),
        follower,
    ):
        pass
