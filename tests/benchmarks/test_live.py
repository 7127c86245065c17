"""The benchmark of new items: events to a real server, vectors in another process."""

import numpy as np
import pytest

from tests.helpers.live import new_index
from tests.pretraining.embed.embedded import make_room
from torchrec_mm.benchmarks import live
from torchrec_mm.benchmarks.live import FIRST_ID, LiveConfig, compare, watch
from torchrec_mm.errors import InputError


@pytest.mark.slow
@pytest.mark.redis
def test_every_event_is_followed_to_its_vector(tmp_path, monkeypatch):
    room = make_room(tmp_path / "room")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setattr(live, "make_parts", lambda folder, size, parts: None)
    (work / "market").symlink_to(room.data)
    (work / "scl").symlink_to(room.trained)
    (line,) = compare(LiveConfig(work_dir=work, items_per_s=50, seconds=0.4))
    assert line["items"] == 20 and 1 <= line["batches"] <= 20
    assert 0 < line["p50_s"] <= line["ours"] <= line["worst_s"]
    assert 0 < line["encoding_s_an_item"] <= line["baseline"]


def test_what_has_no_vector_in_time_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "LOOK_S", 0.01)
    index, _ = new_index(tmp_path, (FIRST_ID, 1, 7), (FIRST_ID + 2, 1, 7))
    seen = watch(index, 3, 0.1)
    assert np.isnan(seen).tolist() == [False, True, False]


def test_without_a_server_it_is_refused_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="redis-server must be on the PATH: apt-get install"):
        LiveConfig()
