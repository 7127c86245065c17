"""The process group: alone without ports, several ranks under torchrun."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
import torch.distributed as dist

from torchrec_mm.parallel.process_group import (
    gather_rows,
    on_first_rank,
    process_group,
    reserve_reader_core,
)

ROOT = Path(__file__).parents[2]

SAY_RANK = """
import sys, torch, torch.distributed as dist
from torchrec_mm.config import run
from torchrec_mm.errors import InputError
from torchrec_mm.parallel.process_group import on_first_rank, process_group

def work():
    open(f"{sys.argv[1]}/worked", "x").close()
    raise InputError("field must be good")

def main(argv):
    with process_group() as worker:
        total = torch.tensor(worker.rank + 1, device=worker.device)
        dist.all_reduce(total)
        with open(f"{sys.argv[1]}/{worker.rank}", "w") as answer:
            answer.write(f"{worker.world_size} ranks sum {total.item()}, first={worker.is_first}")
            try:
                on_first_rank(work)
            except InputError as error:
                answer.write(f", {error}")
        dist.barrier()
        if worker.rank == 1:
            raise ZeroDivisionError("ours")
        dist.barrier()

sys.exit(run(main))
"""


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_launcher_the_process_is_alone_and_can_communicate():
    with process_group() as worker:
        assert (worker.rank, worker.world_size, worker.is_first) == (0, 1, True)
        value = torch.ones(2, device=worker.device)
        dist.all_reduce(value)
        assert value.tolist() == [1, 1]


def test_the_group_is_taken_down_even_when_the_block_fails():
    for _ in range(2):
        with pytest.raises(RuntimeError, match="ours"), process_group():
            raise RuntimeError("ours")
        assert not dist.is_initialized()


def test_ranks_wait_hours_for_each_other_and_days_for_one_that_works_alone(monkeypatch):
    asked = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(dist, "init_process_group", lambda *_, timeout: asked.append(timeout))
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "destroy_process_group", lambda *_: None)
    with process_group():
        pass
    alone = Mock(side_effect=lambda **how: asked.append(how["timeout"]) or Mock(dist.ProcessGroup))
    monkeypatch.setattr(dist, "new_group", alone)
    monkeypatch.setattr(dist, "broadcast_object_list", lambda *_, group: None)
    on_first_rank(lambda: None)
    assert asked == [timedelta(hours=2), timedelta(days=7)]


def test_two_ranks_under_torchrun_see_each_other_and_end_with_the_one_that_fails(tmp_path):
    script = tmp_path / "say_rank.py"
    script.write_text(SAY_RANK)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*command, script, tmp_path],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    for rank, is_first in enumerate((True, False)):
        said = f"2 ranks sum 3, first={is_first}, field must be good"
        assert (tmp_path / str(rank)).read_text() == said
    assert done.returncode == 1
    assert "[rank1]: ZeroDivisionError: ours" in done.stderr


def test_rows_are_gathered_in_the_order_of_the_ranks(monkeypatch):
    def all_gather(places: list[torch.Tensor], rows: torch.Tensor) -> None:
        for rank, place in enumerate(places):
            place.copy_(rows + 10 * rank)

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "all_gather", all_gather)
    monkeypatch.setattr(dist, "get_world_size", lambda: 3)
    assert gather_rows(torch.tensor([1, 2])).tolist() == [1, 2, 11, 12, 21, 22]


@pytest.mark.parametrize(("threads", "left"), [(1, 1), (2, 1), (3, 2)])
def test_reading_ahead_gets_a_core_if_there_are_several(threads, left):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    with reserve_reader_core():
        assert torch.get_num_threads() == left
    assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
