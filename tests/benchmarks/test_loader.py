"""The loader benchmark: what is read, and how much of it."""

import numpy as np

from tests.benchmarks.conftest import SMALL
from torchrec_mm.benchmarks import loader
from torchrec_mm.benchmarks.loader import AsTensors, LoaderConfig, compare, reading, repeat
from torchrec_mm.data.encoded.encoded import EncodedRequests
from torchrec_mm.data.stream.batch_limits import BatchLimits
from torchrec_mm.data.stream.loader import RequestLoader


def test_our_batches_hold_each_request_once_with_all_its_behaviours(folder):
    data = EncodedRequests(folder / "encoded", "train")
    batches = list(RequestLoader(data, AsTensors(), BatchLimits(requests=5)).epoch(0))
    (group,) = data.groups
    requests = data.read(group)
    for name, values in (
        ("candidates", requests.candidates.values),
        ("behaviours", requests.behaviours.values),
        ("labels", requests.labels),
    ):
        read = np.concatenate([batch[name].numpy() for batch in batches])
        np.testing.assert_array_equal(read, values)
    assert {*data.meta["request_features"]} < batches[0].keys()


def test_the_larger_data_set_is_the_same_requests_several_times(folder, tmp_path):
    repeat(folder / "encoded", 3, tmp_path / "larger")
    once = EncodedRequests(folder / "encoded", "train")
    thrice = EncodedRequests(tmp_path / "larger", "train")
    assert len(thrice) == 3 * len(once)
    assert thrice.num_impressions == 3 * once.num_impressions
    np.testing.assert_array_equal(thrice.lengths, np.tile(once.lengths, (3, 1)))
    first, *others = (thrice.read(group).behaviours.values for group in thrice.groups)
    assert len(others) == 2
    for other in others:
        np.testing.assert_array_equal(other, first)


def test_reading_counts_impressions_after_the_first_batch(monkeypatch):
    now = [0.0]

    def impressions():
        while True:
            now[0] += 0.5
            yield 20

    monkeypatch.setattr(loader.time, "perf_counter", lambda: now[0])
    measured = reading(impressions(), 10.0)
    assert measured.impressions_per_s == 40.0
    assert measured.peak_bytes > 50e6  # torch alone takes more


def test_both_sides_are_read_and_compared(folder, monkeypatch):
    monkeypatch.setattr(loader, "in_fresh_process", lambda work, *args, threads: work(*args))
    config = LoaderConfig(work_dir=folder, seconds=0.2, runs=1, larger=2, **SMALL)
    (line,) = compare(config)
    assert line["ours"] > 0 and line["baseline"] > 0
    assert line["ratio"] == line["ours"] / line["baseline"]
    for side in ("ours", "ours_larger", "baseline"):
        assert 50e6 < line[f"{side}_peak_bytes"] < 4e9
        assert line[f"{side}_added_bytes"] < line[f"{side}_peak_bytes"]
