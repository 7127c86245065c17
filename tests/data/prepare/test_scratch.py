"""The folder a long command works in."""

import os

import pytest

from torchrec_mm.errors import InputError
from torchrec_mm.files import scratch_folder


def test_it_lies_beside_the_run_folder_and_is_gone_in_the_end(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with scratch_folder(tmp_path / "runs" / "data") as scratch:
            assert scratch.is_dir() and scratch.is_relative_to(tmp_path / "runs")
            (scratch / "spilled").write_text("rows")
            raise KeyboardInterrupt
    assert os.listdir(tmp_path / "runs") == []


def test_what_a_killed_process_left_is_removed(tmp_path):
    with scratch_folder(tmp_path / "data") as scratch:
        place = scratch
    (place / "spill").mkdir(parents=True)
    (place / "spill" / "rows").write_text("old")
    with scratch_folder(tmp_path / "data") as scratch:
        assert scratch == place and os.listdir(scratch) == []


def test_two_at_work_on_one_run_folder_are_refused(tmp_path):
    with scratch_folder(tmp_path / "data") as scratch:
        with pytest.raises(InputError, match="run_dir must not be in use, got .*data"):
            with scratch_folder(tmp_path / "data"):
                pass
        assert scratch.is_dir()
        with scratch_folder(tmp_path / "other"):
            pass
