"""A scorer takes deltas in their order, each all at once; what it cannot trust it leaves alone."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.runs import train_ranker
from tests.online.following import (
    copy_of,
    counted,
    current_of,
    follow,
    put_all,
    requests_of,
    same_bits,
    scorer_at,
    steps_of,
    weights_of,
)
from tests.serving.served import parsed, table_of
from torchrec_mm.runs.checkpoint_folders import list_checkpoints, write_state
from torchrec_mm.runs.delta import Delta, Header, path_of, read_delta, write_delta
from torchrec_mm.serving.current import Current

WINDOWS = 3


@pytest.fixture(scope="module")
def followed(market, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("followed")
    start = train_ranker(market, folder / "start", "id")
    put_all(folder / "spool", requests_of(market, 0, 5 * WINDOWS))
    return follow(folder / "spool", start, folder / "run")


@pytest.fixture
def run_dir(followed, tmp_path) -> Path:
    """A copy with the base alone; ``arrives`` brings the rest."""
    copied = copy_of(followed, tmp_path / "run")
    later = tmp_path / "later"
    later.mkdir()
    for file in (copied / "deltas").iterdir():
        file.rename(later / file.name)
    for folder in sorted((copied / "checkpoints").iterdir())[1:]:
        folder.rename(later / folder.name)
    return copied


def arrives(run_dir: Path, number: int, *, delta: bool = True, checkpoint: bool = True) -> Path:
    """The window's checkpoint, then its delta."""
    later = run_dir.parent / "later"
    if checkpoint:
        folder = sorted(later.glob("step-*"))[0]
        folder.rename(run_dir / "checkpoints" / folder.name)
    file = path_of(run_dir / "deltas", number)
    if delta:
        (later / file.name).rename(file)
    return file


def scores_as_checkpoint(current: Current, run_dir: Path) -> bool:
    whole = scorer_at(run_dir, steps_of(run_dir)[-1])
    same = same_bits(weights_of(current.scorer), weights_of(whole))
    return same and current.checkpoint == whole.checkpoint.name


def test_deltas_are_taken_one_after_another_and_no_checkpoint_is_loaded(run_dir):
    current = current_of(run_dir)
    for number in range(1, WINDOWS + 1):
        arrives(run_dir, number)
        assert current.take_newest()
        assert not current.take_newest()
        assert current.scorer.delta == number and scores_as_checkpoint(current, run_dir)
    assert counted(current, "applied") == WINDOWS and counted(current, "failed") == 0
    assert current._measures.loads.labels("taken")._value.get() == 0


def test_it_waits_for_a_delta_whose_checkpoint_is_there(run_dir):
    current, before = current_of(run_dir), current_of(run_dir).checkpoint
    arrives(run_dir, 1, delta=False)
    assert not current.take_newest() and current.checkpoint == before
    arrives(run_dir, 1, checkpoint=False)
    assert current.take_newest() and scores_as_checkpoint(current, run_dir)


def test_after_a_gap_it_takes_the_newest_checkpoint_and_goes_on_by_deltas(run_dir):
    current = current_of(run_dir)
    arrives(run_dir, 1).unlink()
    arrives(run_dir, 2)
    assert current.take_newest() and current.scorer.delta == 2
    assert scores_as_checkpoint(current, run_dir)
    assert counted(current, "failed") == 1
    arrives(run_dir, 3)
    assert current.take_newest() and counted(current, "applied") == 1
    assert scores_as_checkpoint(current, run_dir)


def test_a_gap_is_seen_by_the_checkpoint_behind_it(run_dir):
    current = current_of(run_dir)
    arrives(run_dir, 1, delta=False)
    arrives(run_dir, 2, delta=False)
    assert current.take_newest() and current.scorer.delta == 2


def test_what_the_run_keeps_back_is_no_way_out_of_a_gap(run_dir):
    current = current_of(run_dir)
    arrives(run_dir, 1, delta=False)
    arrives(run_dir, 2, delta=False)
    newest = list_checkpoints(run_dir / "checkpoints")[-1]
    write_state(newest.folder, newest.position, None, is_published=False)
    garbled(arrives(run_dir, 1, checkpoint=False))
    assert current.take_newest() and current.scorer.delta == 1
    whole = scorer_at(run_dir, steps_of(run_dir)[1])
    assert current.checkpoint == whole.checkpoint.name != newest.folder.name
    assert same_bits(weights_of(current.scorer), weights_of(whole))


def garbled(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


def changed(file: Path, **header) -> None:
    """Written anew, with a checksum that fits."""
    number = int(file.stem.rpartition("-")[2])
    delta = read_delta(file.parent, number)
    write_delta(file.parent, Delta(Header(**vars(delta.header) | header), delta.rows, delta.dense))


def of_another_base(file: Path) -> None:
    changed(file, base_step=1)


def of_another_delta(file: Path) -> None:
    changed(file, follows="0" * 64)


def with_other_tensors(change) -> None:
    def spoil(file: Path) -> None:
        number = int(file.stem.rpartition("-")[2])
        delta = read_delta(file.parent, number)
        rows, dense = dict(delta.rows), dict(delta.dense)
        change(rows, dense)
        write_delta(file.parent, Delta(delta.header, rows, dense))

    return spoil


def far_rows(rows, dense) -> None:
    key = next(iter(rows))
    rows[key] = (rows[key][0] + 10**6, rows[key][1])


def narrow_rows(rows, dense) -> None:
    key = next(iter(rows))
    rows[key] = (rows[key][0], rows[key][1][:, :-1].contiguous())


def no_numbers(rows, dense) -> None:
    dense["network.base_logit"] = torch.tensor(float("nan"))


def unknown_tensor(rows, dense) -> None:
    dense["network.of_another"] = torch.zeros(1)


def wrong_shape(rows, dense) -> None:
    dense["network.base_logit"] = torch.zeros(2)


SPOILT = [
    *(garbled, cut, of_another_base, of_another_delta),
    *map(with_other_tensors, (far_rows, narrow_rows, no_numbers, unknown_tensor, wrong_shape)),
]
NAMES = [
    *("garbled", "cut", "of another base", "of another delta"),
    *("far rows", "narrow rows", "no numbers", "unknown tensor", "wrong shape"),
]


@pytest.mark.parametrize("spoil", SPOILT, ids=NAMES)
def test_what_cannot_be_trusted_changes_nothing_and_a_checkpoint_takes_its_turn(spoil, run_dir):
    current = current_of(run_dir)
    arrives(run_dir, 1)
    assert current.take_newest()
    before = weights_of(current.scorer)
    checkpoints = run_dir / "checkpoints"
    spoil(arrives(run_dir, 2))
    hidden = sorted(checkpoints.iterdir())[-1]
    hidden.rename(run_dir / hidden.name)
    assert not current.take_newest()  # nothing to fall back to: all stays as it is
    assert counted(current, "failed") == 1
    assert current.scorer.delta == 1 and same_bits(weights_of(current.scorer), before)
    (run_dir / hidden.name).rename(hidden)
    assert current.take_newest() and scores_as_checkpoint(current, run_dir)
    arrives(run_dir, 3)
    assert current.take_newest() and scores_as_checkpoint(current, run_dir)


def test_a_delta_that_was_rewritten_is_noticed_by_the_next(run_dir):
    current = current_of(run_dir)
    file = arrives(run_dir, 1)
    assert current.take_newest()
    changed(file, follows="1" * 64)  # another file of the same number
    arrives(run_dir, 2)
    changed(path_of(run_dir / "deltas", 2), follows=read_delta(run_dir / "deltas", 1).checksum)
    assert current.take_newest()
    assert counted(current, "failed") == 1 and scores_as_checkpoint(current, run_dir)


def test_a_batch_sees_one_state(run_dir, market):
    """A delta that comes while a batch is scored waits for its end."""
    current = current_of(run_dir)
    requests = parsed(current.scorer, table_of(current.scorer, market.data / "requests" / "test"))
    before = current.scorer.probabilities(requests)
    arrives(run_dir, 1)
    begun, taken = threading.Event(), threading.Event()
    scorer = current.scorer
    probabilities = type(scorer).probabilities

    def take() -> None:
        begun.wait()
        current.take_newest()
        taken.set()

    class Slow:
        """Scores, and lets the delta come in the middle."""

        checkpoint, delta = scorer.checkpoint, scorer.delta
        check, changed = scorer.check, scorer.changed

        def probabilities(self, requests):
            begun.set()
            assert not taken.wait(0.1)  # it is waiting
            return probabilities(scorer, requests)

    thread = threading.Thread(target=take)
    current.scorer = Slow()
    thread.start()
    found = current.score([requests])
    thread.join()
    assert found.checkpoint == scorer.checkpoint.name
    assert np.array_equal(found.probabilities[0], before)
    after = current.score([requests])
    assert after.checkpoint == current.checkpoint != found.checkpoint
    assert not np.array_equal(after.probabilities[0], before)


def test_metrics_say_which_delta_scores_and_how_old_it_is(run_dir):
    current = current_of(run_dir)
    arrives(run_dir, 1)
    current.take_newest()
    page = current._measures.page().decode()
    assert "torchrec_mm_delta 1.0" in page
    assert 'torchrec_mm_deltas_total{outcome="applied"} 1.0' in page
    (age,) = (line for line in page.splitlines() if line.startswith("torchrec_mm_age_seconds "))
    assert 0 <= float(age.split()[1]) < 1e6
