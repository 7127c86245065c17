"""Phase two on a GPU: the losses of the CPU, and runs that move between the two."""

from pathlib import Path

import pytest

import apps.train_ranker
from tests.helpers.runs import (
    lines_of,
    make_flags,
    predictions,
    ranker_flags,
    train_make,
    train_ranker,
)
from tests.helpers.small_market import SmallMarket

pytestmark = pytest.mark.gpu

# float32 on both, sums in other orders, over the 8 steps of two epochs.
TOLERANCE = 1e-3
KERNELS = ("fused", "fused_uvm", "fused_uvm_caching")


def losses(run_dir: Path) -> list[float]:
    return [line["loss"] for line in lines_of(run_dir, "step")]


def logits(market: SmallMarket, run_dir: Path) -> list[float]:
    return predictions(market, run_dir, run_dir / "p.parquet")["logit"]


@pytest.mark.parametrize("method", ["id", "simtier", "simtier+make", "muse"])
def test_losses_and_scores_are_those_of_the_cpu(method, market, tmp_path, ranks_on):
    with ranks_on("cpu"):
        make = train_make(market, tmp_path / "make")
    for device in ("cpu", "gpu"):
        with ranks_on(device):
            train_ranker(market, tmp_path / device, method, "--epochs", "2", make=make)
    assert losses(tmp_path / "gpu") == pytest.approx(losses(tmp_path / "cpu"), rel=TOLERANCE)
    wanted = logits(market, tmp_path / "gpu")
    with ranks_on("cpu"):
        assert logits(market, tmp_path / "gpu") == pytest.approx(wanted, abs=1e-3)


def test_make_learns_what_it_learns_on_the_cpu(market, tmp_path, ranks_on):
    for device in ("cpu", "gpu"):
        with ranks_on(device):
            apps.train_make.main(make_flags(market, tmp_path / device))
    assert losses(tmp_path / "gpu") == pytest.approx(losses(tmp_path / "cpu"), rel=TOLERANCE)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_where_rows_lie_changes_no_loss_and_they_can_be_scored(kernel, dtype, market, tmp_path):
    tables = f"{{item_id: {{kernel: {kernel}, dtype: {dtype}}}}}"
    train_ranker(market, tmp_path / "plain", "id")
    train_ranker(market, tmp_path / "run", "id", "--tables", tables)
    rel = TOLERANCE if dtype == "fp32" else 1e-2
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "plain"), rel=rel)
    assert len(logits(market, tmp_path / "run")) == len(logits(market, tmp_path / "plain"))


@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "adam"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_resumed_run_is_the_one_that_was_not_stopped(optimizer, kernel, market, tmp_path):
    more = ("--tables", f"{{item_id: {{optimizer: {optimizer}, kernel: {kernel}}}}}")
    train_ranker(market, tmp_path / "whole", "simtier", "--epochs", "2", *more)
    train_ranker(market, tmp_path / "half", "simtier", "--epochs", "1", *more)
    config = tmp_path / "half" / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 1", "epochs: 2"))
    train_ranker(market, tmp_path / "half", "simtier", "--epochs", "2", "--resume", *more)
    assert losses(tmp_path / "half") == pytest.approx(losses(tmp_path / "whole"), rel=TOLERANCE)


@pytest.mark.parametrize(("first", "then"), [("cpu", "gpu"), ("gpu", "cpu")])
def test_a_run_goes_on_on_the_other_kind_of_device(first, then, market, tmp_path, ranks_on):
    flags = [*ranker_flags(market, tmp_path / "half", "id"), "--epochs"]
    with ranks_on("cpu"):
        train_ranker(market, tmp_path / "whole", "id", "--epochs", "2")
    with ranks_on(first):
        apps.train_ranker.main([*flags, "1"])
    config = tmp_path / "half" / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 1", "epochs: 2"))
    with ranks_on(then):
        apps.train_ranker.main([*flags, "2", "--resume"])
    assert losses(tmp_path / "half") == pytest.approx(losses(tmp_path / "whole"), rel=TOLERANCE)
