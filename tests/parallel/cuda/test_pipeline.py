"""What GPUs run, but for the GPU: TrainPipelineSparseDist over tables that send rows."""

from dataclasses import replace

import pytest
import torch

from tests.helpers.kinds_market import write_kinds_market
from tests.helpers.two_ranks import ids_by_rows
from tests.ranking.small_ranker import Encoded, encode, spec_of
from torchrec_mm.data.stream.bags import pad_bags
from torchrec_mm.data.stream.batches import RequestBatch
from torchrec_mm.parallel.cuda.one_id import ShardedOneIdTables
from torchrec_mm.parallel.sharding import (
    DistributedModel,
    OptimizerSettings,
    SparsePipeline,
    distribute,
)
from torchrec_mm.ranking.ranker import Ranker

SETTINGS = OptimizerSettings(
    learning_rate=0.01, weight_decay=0.0, table_learning_rate=0.1, table_scale=0.5
)


@pytest.fixture(scope="module")
def of_kinds(tmp_path_factory) -> Encoded:
    return encode(write_kinds_market(tmp_path_factory.mktemp("kinds")))


def made(worker, encoded: Encoded, method: str) -> DistributedModel:
    torch.manual_seed(0)
    return distribute(Ranker(spec_of(method, encoded)), worker, SETTINGS, 0)


def losses(pipeline, batches: list[RequestBatch]) -> list[float]:
    coming = iter(batches)
    return [float(pipeline.progress(coming).loss) for _ in batches]


@pytest.mark.parametrize("method", ["id", "simtier", "muse"])
def test_a_step_behind_the_next_batchs_look_ups_learns_what_a_plain_step_does(
    method, of_kinds, worker
):
    batches = [of_kinds.batch([*range(start, start + 8)], method) for start in range(0, 40, 8)]
    plain = made(worker, of_kinds, method)
    with ids_by_rows():
        rows = made(worker, of_kinds, method)
    pipeline = SparsePipeline(
        rows.model, rows.optimizer, torch.device("cpu"), execute_all_batches=True
    )
    expected = losses(plain.pipeline(), batches)
    wide = [replace(batch, bags=pad_bags(batch.bags, 97)) for batch in batches]
    assert losses(pipeline, wide) == pytest.approx(expected, rel=1e-5)
    kinds = [type(each) for each in pipeline._pipelined_modules]
    assert kinds.count(ShardedOneIdTables) == 2 and len(kinds) == 4  # each kind of bags is one
