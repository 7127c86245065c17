"""Publishing: the next snapshot, the way back, and what stays on disk."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from tests.helpers.commands import ROOT
from tests.helpers.live import OTHER, SPACE, changes, new_index
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors import write_item_vectors
from torchrec_mm.item_vectors.live import publish as publish_module
from torchrec_mm.item_vectors.live.index import (
    add_space,
    adopt,
    create_index,
    locked,
    open_log,
    space_of,
)
from torchrec_mm.item_vectors.live.pointer import read_pointer
from torchrec_mm.item_vectors.live.publish import publish, roll_back
from torchrec_mm.item_vectors.live.reader import IndexReader
from torchrec_mm.item_vectors.store import ItemVectors


def fill(vectors: ItemVectors, item: int) -> int | None:
    values, mask = vectors.lookup(np.array([item]))
    return int(values[0, 0]) if mask[0] else None


def versions(index) -> list[str]:
    return sorted(path.name for path in (index / "spaces" / SPACE.origin / "versions").iterdir())


def write(log, *events) -> None:
    log.write(changes(*events), SPACE.origin)


def test_a_snapshot_is_item_vectors_like_any_other(tmp_path):
    index, log = new_index(tmp_path, (5, 1, 50), (-3, 1, 30), (7, 1, 70))
    publish(index)
    write(log, (7, 2, None), (5, 2, 51), (6, 1, 60))
    publish(index)
    vectors = ItemVectors.open(index)
    assert vectors.item_ids.tolist() == [-3, 5, 6]
    assert vectors.values[:, 0].tolist() == [30, 51, 60]
    assert (vectors.origin, vectors.encoder, vectors.modality) == (SPACE.origin, "scl", "text")


def test_vectors_are_published_bit_for_bit(tmp_path):
    index = tmp_path / "index"
    create_index(index, OTHER)
    log = open_log(index, OTHER.origin)
    once = np.random.default_rng(0).normal(size=(50, 2))
    once = (once / np.linalg.norm(once, axis=1, keepdims=True)).astype(np.float32)
    batch = replace(changes(*[(i, 1, 1) for i in range(50)], space=OTHER), vectors=once)
    log.write(batch, OTHER.origin)
    publish(index)
    assert (ItemVectors.open(index).values == once).all()


def test_an_index_that_has_nothing_published_is_refused_as_vectors(tmp_path):
    index, _ = new_index(tmp_path)
    with pytest.raises(InputError, match="must be published first, by apps.publish_vectors"):
        ItemVectors.open(index)
    with pytest.raises(InputError, match="vectors must not be empty"):
        publish(index)


def test_nothing_new_publishes_nothing(tmp_path):
    index, _ = new_index(tmp_path, (1, 1, 1))
    assert publish(index) == publish(index)
    assert versions(index) == ["000001"]


def test_the_last_snapshots_stay_and_those_before_go(tmp_path):
    index, log = new_index(tmp_path)
    for version in range(1, 6):
        write(log, (1, version, version))
        publish(index, keep=2)
    assert versions(index) == ["000004", "000005"]
    roll_back(index)
    assert fill(ItemVectors.open(index), 1) == 4
    with pytest.raises(InputError, match="roll_back must have a snapshot to go back to"):
        roll_back(index)


def test_after_a_roll_back_readers_have_what_was_published_before_until_the_next(tmp_path):
    index, log = new_index(tmp_path, (1, 1, 10))
    publish(index)
    write(log, (1, 2, 11))
    publish(index)
    reader = IndexReader(index)
    roll_back(index)
    reader.refresh()
    assert fill(reader.vectors, 1) == 10
    write(log, (2, 1, 20))
    assert not reader.refresh()
    assert fill(reader.vectors, 2) is None
    write(log, (1, 3, 12))  # what was wrong is mended by a newer event
    publish(index)
    reader.refresh()
    assert (fill(reader.vectors, 1), fill(reader.vectors, 2)) == (12, 20)
    write(log, (3, 1, 30))
    assert reader.refresh()


def test_readers_switch_to_another_encoders_space_at_once_and_back(tmp_path):
    index, log = new_index(tmp_path, (1, 1, 10))
    publish(index)
    add_space(index, OTHER)
    other = open_log(index, OTHER.origin)
    other.write(changes((1, 1, 1), space=OTHER), OTHER.origin)
    reader = IndexReader(index)
    assert reader.vectors.origin == SPACE.origin
    publish(index, space=OTHER.origin)
    reader.refresh()
    assert reader.vectors.origin == OTHER.origin
    roll_back(index)
    write(log, (1, 2, 11))  # its updater never stopped
    reader.refresh()
    assert reader.vectors.origin == SPACE.origin
    assert fill(reader.vectors, 1) == 11


def test_a_space_is_added_once(tmp_path):
    index, log = new_index(tmp_path, (1, 1, 10))
    publish(index)
    before = read_pointer(index)
    add_space(index, SPACE)
    assert read_pointer(index) == before


def test_item_vectors_that_are_there_become_the_first_snapshot(tmp_path):
    made = tmp_path / "vectors"
    write_item_vectors(
        made, [1, 2], np.eye(2), dtype="int8", encoder="scl", modality="text", origin="scl-1"
    )
    vectors, index = ItemVectors.open(made), tmp_path / "index"
    create_index(index, space_of(vectors))
    adopt(index, vectors)
    assert ItemVectors.open(index).fingerprint == vectors.fingerprint
    log = open_log(index, "scl-1")
    log.write(changes((2, 0, None), space=space_of(vectors)), "scl-1")
    assert IndexReader(index).vectors.rows(np.array([1, 2])).tolist() == [0, -1]
    with pytest.raises(InputError, match="vectors must be of a space that is new, got scl-1"):
        adopt(index, vectors)
    with pytest.raises(InputError, match="roll_back must have a snapshot"):
        roll_back(index)


def test_an_origin_that_cannot_name_a_folder_is_a_space_too(tmp_path):
    odd = replace(SPACE, origin="../é/ a")
    create_index(tmp_path / "index", odd)
    open_log(tmp_path / "index", odd.origin).write(changes((1, 1, 1)), odd.origin)
    publish(tmp_path / "index")
    assert ItemVectors.open(tmp_path / "index").origin == odd.origin
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index"]


@pytest.mark.parametrize("log", ["leveldb", "redis://user:secret@127.0.0.1:1/0"])
def test_a_log_of_another_kind_is_refused(tmp_path, log):
    with pytest.raises(InputError, match="log must be lmdb or redis://"):
        create_index(tmp_path / "index", SPACE, log)
    assert not (tmp_path / "index").exists()


def test_only_one_publishes_at_a_time(tmp_path):
    index, _ = new_index(tmp_path, (1, 1, 1))
    with locked(index), pytest.raises(InputError, match="must not be in use by another"):
        publish(index)


def test_what_was_not_switched_to_is_not_seen_and_is_cleared_up(tmp_path, monkeypatch):
    index, log = new_index(tmp_path, (1, 1, 1))
    publish(index)
    write(log, (1, 2, 2))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(publish_module, "write_pointer", killed)
        publish(index)
    assert versions(index) == ["000001", "000002"]
    assert fill(ItemVectors.open(index), 1) == 1
    publish(index)
    assert fill(ItemVectors.open(index), 1) == 2
    assert versions(index) == ["000001", "000003"]


READ = """
import sys
import numpy as np
from torchrec_mm.item_vectors.live.reader import IndexReader

reader, asked = IndexReader(sys.argv[1]), np.arange(64)
print("ready", flush=True)
moments = set()
while True:
    reader.refresh()
    values, mask = reader.vectors.lookup(asked)
    assert mask.all(), "an item was not there"
    (moment,) = set(values.ravel().tolist())  # or half of another moment was seen
    if moment not in moments:
        moments.add(moment)
        print(moment, flush=True)
    if moment == 20:
        break
"""


def test_two_readers_in_other_processes_see_whole_moments_only_while_others_publish(tmp_path):
    def batch(version: int) -> list[tuple[int, int, int]]:
        return [(item, version, version) for item in range(64)]

    index, log = new_index(tmp_path, *batch(1))
    command = [sys.executable, "-c", READ, str(index)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    readers = [
        subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)
        for _ in range(2)
    ]
    try:
        for reader in readers:
            assert reader.stdout.readline() == "ready\n", reader.stderr.read()
        for version in range(2, 21):
            write(log, *batch(version))
            if version % 3 == 0:
                publish(index, keep=1)  # the snapshot that they have mapped is removed
        for reader in readers:
            seen, complaint = reader.communicate()
            assert reader.returncode == 0, complaint
            moments = [int(line) for line in seen.split()]
            assert moments == sorted(moments)
            assert moments[-1] == 20
    finally:
        for reader in readers:
            if reader.poll() is None:
                reader.send_signal(signal.SIGKILL)
                reader.communicate()
