"""Impressions on disk: what memory would say, bit for bit, however they came."""

import math
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.metrics.test_auc_gauc import auc_by_definition, gauc_by_definition
from torchrec_mm.metrics import streamed
from torchrec_mm.metrics.auc import auc
from torchrec_mm.metrics.gauc import gauc
from torchrec_mm.metrics.impression_files import ImpressionFiles, read_sorted
from torchrec_mm.metrics.log_loss import log_loss
from torchrec_mm.metrics.order import ALL
from torchrec_mm.metrics.streamed import measure_scores, measure_users

SLICES = ("rare", "new")
LOGITS = st.sampled_from([-1e30, -2.5, -0.0, 0.0, 1e-45, 0.25, 3.0, 1e30])
USERS = st.sampled_from([-(2**63), -1, 0, 1, 7, 2**63 - 1])
IMPRESSIONS = st.lists(st.tuples(USERS, st.booleans(), LOGITS, st.booleans(), st.booleans()))


def some(count: int, seed: int = 0, distinct_scores: int = 50):
    generator = np.random.default_rng(seed)
    ids = generator.integers(-(2**62), 2**62, count // 7 + 1)
    users = ids[generator.integers(0, len(ids), count)]
    labels = generator.integers(0, 2, count).astype(np.int8)
    logits = (generator.integers(0, distinct_scores, count) / 8 - 2).astype(np.float32)
    masks = {name: generator.random(count) < 0.4 for name in SLICES}
    return users, labels, logits, masks


def write(folder, impressions, cuts, writers=1, block=64):
    """Deal pieces between ``cuts`` to the writers in turn."""
    folder.mkdir()
    users, labels, logits, masks = impressions
    size = {"block_impressions": block}
    files = [ImpressionFiles(folder, writer, SLICES, **size) for writer in range(writers)]
    for turn, (start, stop) in enumerate(pairwise([0, *cuts, len(labels)])):
        piece = slice(start, stop)
        files[turn % writers].add(
            users[piece], labels[piece], logits[piece], {k: m[piece] for k, m in masks.items()}
        )
    for share in files:
        share.flush()
    return folder


@settings(max_examples=40, deadline=None)
@given(IMPRESSIONS, st.integers(1, 5))
def test_figures_are_their_definitions_whole_and_by_slice(tmp_path_factory, impressions, block):
    folder = tmp_path_factory.mktemp("impressions")
    files = ImpressionFiles(folder, 0, SLICES, block_impressions=block)
    for user, label, logit, rare, new in impressions:
        masks = {"rare": np.array([rare]), "new": np.array([new])}
        files.add(np.array([user]), np.array([label]), np.array([logit], np.float32), masks)
    files.flush()
    scored, grouped = measure_scores(folder, SLICES), measure_users(folder, SLICES)
    chosen = {
        ALL: [row[:3] for row in impressions],
        "rare": [row[:3] for row in impressions if row[3]],
        "new": [row[:3] for row in impressions if row[4]],
    }
    for name, rows in chosen.items():
        mean, users, gauc_users, count = gauc_by_definition(rows)
        found = grouped[name]
        assert (found.users, found.gauc_users, found.impressions) == (users, gauc_users, count)
        assert scored[name].impressions == count
        whole = auc_by_definition([row[1] for row in rows], [row[2] for row in rows])
        for figure, expected in ((scored[name].auc, whole), (found.gauc, mean)):
            expected = math.nan if expected is None else expected
            assert figure == pytest.approx(expected, abs=1e-14, nan_ok=True)


def test_figures_are_those_of_memory_bit_for_bit(tmp_path):
    impressions = users, labels, logits, masks = some(3000)
    folder = write(tmp_path / "a", impressions, [100, 150, 2000])
    scored, grouped = measure_scores(folder, SLICES), measure_users(folder, SLICES)
    everywhere = np.ones(3000, bool)
    for name, mask in {ALL: everywhere, **masks}.items():
        assert scored[name].auc == auc(labels[mask], logits[mask])
        assert grouped[name] == gauc(users[mask], labels[mask], logits[mask])
        assert scored[name].log_loss == pytest.approx(log_loss(labels[mask], logits[mask]))


@pytest.mark.parametrize("window", [7, 1000, 10**6])
def test_writers_pieces_blocks_and_order_change_nothing(window, tmp_path, monkeypatch):
    monkeypatch.setattr(streamed, "WINDOW", window)
    impressions = some(3000)
    order = np.random.default_rng(1).permutation(3000)
    *columns, masks = impressions
    shuffled = (*(column[order] for column in columns), {k: m[order] for k, m in masks.items()})
    one = write(tmp_path / "one", impressions, [], block=10**6)
    cuts = sorted(np.random.default_rng(2).integers(0, 3000, 40).tolist())
    many = write(tmp_path / "many", shuffled, cuts, writers=3)
    assert measure_users(many, SLICES) == measure_users(one, SLICES)
    assert measure_scores(many, SLICES) == measure_scores(one, SLICES)


@pytest.mark.parametrize("window", [1, 5, 64, 10**6])
@pytest.mark.parametrize("distinct_scores", [1, 3, 10**6])
def test_keys_are_merged_in_order_in_equal_windows(window, distinct_scores, tmp_path):
    write(tmp_path / "a", some(5000, distinct_scores=distinct_scores), [999, 1500, 4000], writers=3)
    pieces = list(read_sorted(tmp_path / "a", window))
    assert all(len(piece) == window for piece in pieces[:-1])
    merged = np.concatenate(pieces)
    assert len(merged) == 5000
    assert (merged[1:] >= merged[:-1]).all()


def test_a_slice_without_a_mask_gets_nobody(tmp_path):
    files = ImpressionFiles(tmp_path, 0, SLICES)
    files.add(np.array([1, 1]), np.array([0, 1]), np.zeros(2, np.float32), {"new": [True, True]})
    files.flush()
    found = measure_scores(tmp_path, SLICES)
    assert found["rare"].impressions == 0 == measure_users(tmp_path, SLICES)["rare"].impressions
    assert math.isnan(found["rare"].auc) and math.isnan(found["rare"].log_loss)
    assert found["new"].auc == 0.5


def test_users_may_be_left_out_where_only_scores_matter(tmp_path):
    files = ImpressionFiles(tmp_path, 0)
    files.add(None, np.array([0, 1]), np.array([0.1, 0.2], np.float32))
    files.flush()
    assert measure_scores(tmp_path)[ALL].auc == 1.0
    assert {path.suffix for path in tmp_path.iterdir()} == {".sorted"}


def test_without_impressions_figures_are_nan(tmp_path):
    ImpressionFiles(tmp_path, 0).flush()
    whole, grouped = measure_scores(tmp_path)[ALL], measure_users(tmp_path)[ALL]
    assert math.isnan(whole.auc) and math.isnan(whole.log_loss) and math.isnan(grouped.gauc)
    assert whole.impressions == grouped.impressions == 0


def test_memory_does_not_grow_with_the_impressions(tmp_path, monkeypatch):
    monkeypatch.setattr(streamed, "WINDOW", 1 << 14)

    def peak_of(name: str, repeats: int) -> int:
        (tmp_path / name).mkdir()
        files = ImpressionFiles(tmp_path / name, 0, SLICES, block_impressions=1 << 14)
        tracemalloc.start()
        for seed in range(repeats):
            files.add(*some(1 << 14, seed, distinct_scores=10**6))
        files.flush()
        measure_scores(tmp_path / name, SLICES)
        measure_users(tmp_path / name, SLICES)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert peak_of("large", 16) < 1.3 * peak_of("small", 3)


def test_more_users_than_a_key_can_tell_apart_are_refused(tmp_path):
    """Each slice takes one of the 31 bits of a user's number."""
    slices = [str(number) for number in range(30)]
    files = ImpressionFiles(tmp_path, 0, slices)
    files.add(np.arange(600), np.zeros(600), np.zeros(600, np.float32))
    files.flush()
    with pytest.raises(ValueError, match=r"users must be about 2\*\*9 at most, got more"):
        measure_users(tmp_path, slices)


def test_scores_wider_than_float32_are_refused(tmp_path):
    with pytest.raises(ValueError, match="scores must be float32, got float64"):
        ImpressionFiles(tmp_path, 0).add(np.zeros(1, np.int64), np.zeros(1), np.zeros(1))
