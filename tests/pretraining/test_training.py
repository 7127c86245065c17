"""Whole towers on tiny data: as many ranks as you like train the same model."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.pretraining.tiny import write_search_data
from tests.pretraining.towers import train_tower
from torchrec_mm.errors import InputError
from torchrec_mm.parallel.process_group import Worker, process_group
from torchrec_mm.pretraining.training import TowerTrainer, TrainSettings

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_search_data(tmp_path_factory.mktemp("training") / "data")


@pytest.fixture(scope="module")
def two_ranks(data, image_encoder, text_encoder, tmp_path_factory):
    """What two processes leave behind: modality -> results of rank 0 and 1."""
    out = tmp_path_factory.mktemp("two-ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.pretraining.towers"]
    together = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [
        subprocess.Popen(
            [*command, data, image_encoder, text_encoder, out],
            cwd=ROOT,
            env={**os.environ, **together, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.DEVNULL,
        )
        for rank in (0, 1)
    ]
    assert [process.wait(timeout=300) for process in ranks] == [0, 0]
    return {
        modality: [torch.load(out / f"{modality}-{rank}.pt", weights_only=True) for rank in (0, 1)]
        for modality in ("image", "text")
    }


@pytest.mark.skipif(torch.cuda.is_available(), reason="states the ranks of a CPU machine")
@pytest.mark.parametrize(("modality", "layers"), [("image", 0), ("text", -1)])
def test_two_ranks_train_as_one_and_hold_identical_banks(
    two_ranks, data, image_encoder, text_encoder, modality, layers
):
    first, second = two_ranks[modality]
    assert first["losses"] == second["losses"]
    for name, value in first["tower"].items():
        assert torch.equal(value, second["tower"][name]), name
    backbone = {"image": image_encoder, "text": text_encoder}[modality]
    with process_group() as worker:
        alone = train_tower(data, backbone, modality, layers, worker)
    # The same sums in another order: float32 rounding, amplified by ten steps of AdamW
    assert first["losses"][0] == pytest.approx(alone["losses"][0], rel=1e-5)
    assert first["losses"] == pytest.approx(alone["losses"], rel=1e-3)
    assert torch.equal(first["tower"]["bank.item_ids"], alone["tower"]["bank.item_ids"])
    torch.testing.assert_close(
        first["tower"]["bank.keys"], alone["tower"]["bank.keys"], atol=1e-3, rtol=0
    )


def test_a_batch_that_does_not_split_over_the_ranks_is_refused():
    settings = TrainSettings(1, 15, 1e-3, 1e-3, 0.0, 0, loss=None)
    with pytest.raises(
        InputError, match="batch_size must be a multiple of the 2 processes, got 15"
    ):
        TowerTrainer(None, settings, Worker(CPU, 0, 2))
