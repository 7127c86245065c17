"""How a comparison is measured and stated."""

import os
import time

import pytest
import torch
import torch.distributed as dist

from torchrec_mm.benchmarks import harness
from torchrec_mm.benchmarks.harness import (
    alternate,
    comparison,
    in_fresh_process,
    now,
    on_fresh_ranks,
)
from torchrec_mm.errors import InputError
from torchrec_mm.parallel.process_group import process_group


def test_sides_take_turns_so_that_both_meet_the_same_moods_of_the_machine():
    calls = []
    sides = {name: lambda name=name: calls.append(name) or len(calls) for name in "ab"}
    assert alternate(sides, 3) == {"a": [1, 3, 5], "b": [2, 4, 6]}
    assert "".join(calls) == "ababab"


@pytest.mark.parametrize(("more_is_better", "ratio"), [(True, 5.0), (False, 0.2)])
def test_a_ratio_above_1_says_that_ours_is_better(more_is_better, ratio):
    line = comparison("b", "u", [10, 90, 1], [2, 2, 3], more_is_better=more_is_better, world_size=1)
    assert line.pop("machine")["cores"] >= 1
    assert line == {
        "benchmark": "b",
        "unit": "u",
        "ours": 10,
        "baseline": 2,
        "ratio": ratio,
        "runs": 3,
        "world_size": 1,
    }


def about_this_process(word: str) -> tuple[str, int, int, str | None]:
    return word, os.getpid(), torch.get_num_threads(), os.environ.get("RANK")


def test_each_measurement_has_a_process_and_a_number_of_threads_of_its_own(monkeypatch):
    monkeypatch.setenv("RANK", "7")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    runs = [in_fresh_process(about_this_process, "word", threads=n) for n in (1, 2)]
    told = [(word, threads, rank) for word, _, threads, rank in runs]
    assert told == [("word", 1, None), ("word", 2, None)]
    assert len({os.getpid(), *(pid for _, pid, _, _ in runs)}) == 3
    assert os.environ["OMP_NUM_THREADS"] == "1"


def sum_of_ranks() -> tuple[int, float]:
    with process_group() as worker:
        total = torch.tensor(float(worker.rank + 1))
        dist.all_reduce(total)
        return worker.rank, total.item()


def test_the_clock_waits_for_a_gpu_and_for_nothing_on_the_cpu(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    before = now(torch.device("cpu"))
    assert waited == []
    assert now(torch.device("cuda", 3)) >= before
    assert waited == [torch.device("cuda", 3)]


def test_more_ranks_than_gpus_are_refused_before_any_starts(monkeypatch):
    monkeypatch.setattr(harness, "usable_gpus", lambda: 1)
    with pytest.raises(InputError, match="world_size must be at most the GPUs here, 1, got 2"):
        on_fresh_ranks(sum_of_ranks, world_size=2)


def test_ranks_meet_and_answer_in_their_order(forked):
    assert on_fresh_ranks(sum_of_ranks, world_size=2, threads=1) == [(0, 3.0), (1, 3.0)]


def fail_on_rank_1() -> None:
    if os.environ["RANK"] == "1":
        raise InputError("rows must be few, got many")
    time.sleep(600)


def test_an_exception_on_one_rank_ends_them_all_and_keeps_its_words(forked):
    with pytest.raises(Exception, match="rows must be few, got many"):
        on_fresh_ranks(fail_on_rank_1, world_size=2, threads=1)
