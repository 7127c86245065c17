"""apps.update_vectors from flags to a live index, on tiny encoders."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from apps.publish_vectors import main as publish_vectors
from apps.update_vectors import main
from tests.helpers.commands import ROOT
from tests.pretraining.embed.embedded import Room, learned, make_room
from torchrec_mm.item_vectors.live.reader import IndexReader
from torchrec_mm.pretraining.encoder.encoder_files import load_encoder, save_encoder


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Room:
    return make_room(tmp_path_factory.mktemp("update"))


@pytest.fixture
def call(room, tmp_path, capsys):
    """Runs the command once over what lies in the spool; its last line."""
    (tmp_path / "spool").mkdir()

    def call(*flags: object) -> str:
        main(["--once", "--batch_s", "0.01", *flags_of(room, tmp_path), *map(str, flags)])
        return capsys.readouterr().out.splitlines()[-1]

    return call


def flags_of(room: Room, tmp_path: Path) -> list[str]:
    flags = {"index": tmp_path / "index", "encoder": room.trained, "events": tmp_path / "spool"}
    text = {"modality": "text"}
    return [word for name, value in (flags | text).items() for word in (f"--{name}", str(value))]


def send(tmp_path: Path, name: str, *events: dict) -> None:
    lines = "".join(f"{json.dumps(event)}\n" for event in events)
    (tmp_path / "spool" / name).write_text(lines)


def known(tmp_path: Path, *items: int) -> list[bool]:
    return (IndexReader(tmp_path / "index").vectors.rows(np.array(items)) >= 0).tolist()


def test_events_are_indexed_published_and_never_twice(call, tmp_path):
    send(
        tmp_path,
        "1.jsonl",
        {"item_id": 1, "version": 1, "title": "word1"},
        {"item_id": 2, "version": 1, "title": "word2"},
        {"item_id": "?", "version": 1},
    )
    assert call() == "applied 2, late 0, buried 1"
    publish_vectors(["--index", str(tmp_path / "index")])
    send(
        tmp_path,
        "2.jsonl",
        {"item_id": 2, "version": 2, "event": "deleted"},
        {"item_id": 1, "version": 0, "title": "word9"},
        {"item_id": 3, "version": 1, "title": "word3", "event": "created"},
    )
    assert call() == "applied 2, late 1, buried 0"
    assert known(tmp_path, 1, 2, 3) == [True, False, True]
    assert call() == "applied 0, late 0, buried 0"


def test_another_encoder_fills_a_space_of_its_own_from_the_same_events(
    call, room, tmp_path, refused
):
    send(tmp_path, "1.jsonl", {"item_id": 1, "version": 1, "title": "word1"})
    call()
    publish_vectors(["--index", str(tmp_path / "index")])
    changed = learned(load_encoder(room.trained).encoder)
    for parameter in changed.encoders["text"].head.parameters():
        parameter.data.mul_(1.5).add_(0.01)
    save_encoder(tmp_path, "scl", changed)
    again = [*flags_of(room, tmp_path), "--once", "--encoder", tmp_path]
    said = refused(main, again)
    assert said.startswith("error: encoder must have the origin of the index, scl-text-")
    assert call("--encoder", tmp_path, "--new_space") == "applied 1, late 0, buried 0"
    reader = IndexReader(tmp_path / "index")
    old = reader.vectors.origin
    (new,) = {path.name for path in (tmp_path / "index" / "spaces").iterdir()} - {old}
    publish_vectors(["--index", str(tmp_path / "index"), "--space", new])
    assert reader.refresh()
    assert reader.vectors.origin == new != old
    assert known(tmp_path, 1) == [True]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ["--events", "nowhere"],
            "events must be a folder, redis://HOST:PORT/DB or kafka://HOST:PORT/TOPIC, got nowhere",
        ),
        (["--stream", "s"], "stream must be left out of events "),
        (["--events", "redis://h:1/0", "--kafka_properties", "p"], "kafka_properties must be left"),
        (["--events", "kafka://h:1/t", "--stream", "s"], "stream must be left out of events kafka"),
        (["--batch_size", 0], "batch_size must be at least 1, got 0"),
        (["--metrics_port", 0], "metrics_port must be a port, 1 to 65535, got 0"),
        (["--log", "files"], "log must be lmdb or redis://HOST:PORT/DB, a password in REDIS_PASS"),
    ],
)
def test_a_mistake_is_told_in_one_line(refused, room, tmp_path, flags, said):
    (tmp_path / "spool").mkdir()
    told = refused(main, [*flags_of(room, tmp_path), "--once", *flags])
    assert told.startswith(f"error: {said}")
    assert not (tmp_path / "index").exists()


def test_vectors_of_another_dtype_than_the_index_has_are_refused(call, refused, room, tmp_path):
    call("--dtype", "float32")
    said = refused(main, [*flags_of(room, tmp_path), "--once"])
    assert said == "error: dtype must be that of the index, float32, got int8"


@pytest.mark.kill
def test_sigterm_finishes_what_is_held_and_leaves_with_143(room, tmp_path):
    (tmp_path / "spool").mkdir()
    send(tmp_path, "1.jsonl", {"item_id": 1, "version": 1, "title": "word1"})
    command = [sys.executable, "-m", "apps.update_vectors", *flags_of(room, tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, text=True
    ) as updater:
        assert updater.stdout.readline().startswith(f"{tmp_path}/index takes vectors of scl-text-")
        updater.send_signal(signal.SIGTERM)
        out, _ = updater.communicate()
    assert updater.returncode == 143
    applied = {"applied 0, late 0, buried 0\n": False, "applied 1, late 0, buried 0\n": True}
    assert known(tmp_path, 1) == [applied[out]]
