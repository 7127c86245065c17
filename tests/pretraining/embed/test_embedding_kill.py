"""Embedding that is killed at random moments and started again ends with the same bytes.

TORCHREC_MM_KILLS is the number of kills in each test; half of them hit two ranks.
"""

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest

import apps.embed_items
from tests.helpers.forks import PATIENCE_S
from tests.helpers.request_folders import contents
from tests.pretraining.embed.embedded import Room, make_room, read_items, write_items
from tests.runs.killed import KILLS, MARKS, Launched

ITEMS = 4000  # eight parts
ENCODERS = ("trained", "off-the-shelf") if KILLS > 2 else ("trained",)

pytestmark = MARKS


class Launch(Launched):
    """The command on some ranks."""

    def __init__(self, flags: list[str], run_dir: Path, world_size: int) -> None:
        ranks = ("--standalone", f"--nproc_per_node={world_size}", "-m", "apps.embed_items")
        super().__init__(run_dir.with_suffix(".log"), *ranks, *flags)

    def kill_when(self, happened) -> bool:
        """Kill launcher and ranks once ``happened()``; False if it all ended before."""
        deadline = time.monotonic() + PATIENCE_S
        while not happened() and self.process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        ended = self.process.poll() is not None
        with suppress(FileNotFoundError, ProcessLookupError):  # it may end at this moment
            for pid in [*self.ranks(), self.process.pid]:
                os.kill(pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)
        return not ended


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Room:
    folder = tmp_path_factory.mktemp("embed")
    room = make_room(folder)
    items = pa.concat_tables([read_items(room.data)] * (ITEMS // 40)).drop_columns("item_id")
    many = items.append_column("item_id", [range(ITEMS)])
    return Room(write_items(folder / "many", many, 1500), room.trained, room.specs)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ENCODERS)
def test_killed_and_begun_again_it_writes_the_bytes_of_a_run_that_was_not(room, tmp_path, encoder):
    of_encoder = room.off_the_shelf if encoder != "trained" else ["--encoder", str(room.trained)]
    common = ["--data", str(room.data), "--dtype", "float32", *of_encoder]
    apps.embed_items.main([*common, "--run_dir", str(tmp_path / "whole")])
    run_dir, chance = tmp_path / "killed", random.Random(encoder)
    flags = [*common, "--run_dir", str(run_dir)]
    kills = 0
    for number in range(KILLS):
        if is_finished(run_dir):
            break
        entries = count(run_dir) + chance.randrange(1, 6)
        launch = Launch(flags, run_dir, 1 + number % 2)
        kills += launch.kill_when(
            lambda entries=entries: count(run_dir) >= entries or run_dir.exists()
        )
    assert kills
    if not is_finished(run_dir):
        Launch(flags, run_dir, 1 + KILLS % 2).finish()
    assert contents(run_dir) == contents(tmp_path / "whole")
    assert {entry.name for entry in tmp_path.iterdir()} == {"killed", "killed.log", "whole"}


def is_finished(run_dir: Path) -> bool:
    """Whether nothing is left to do: another start would be refused."""
    return run_dir.exists() and not run_dir.with_name(f"{run_dir.name}.parts").exists()


def count(run_dir: Path) -> int:
    """Files and folders of unfinished work, half-written ones too."""
    # os.walk passes over a folder that is renamed or removed while it looks.
    parts = os.walk(run_dir.with_name(f"{run_dir.name}.parts"))
    return sum(len(folders) + len(files) for _, folders, files in parts)
