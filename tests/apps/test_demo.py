"""The demo, small: every stage, TorchX included, down to the report."""

import json

import pytest

from apps.demo import main, ranks_here
from tests.helpers.forks import pools_of_forks
from torchrec_mm.errors import InputError
from torchrec_mm.parallel import process_group

pytestmark = pytest.mark.slow

SMALL = ["--items", "100", "--impressions", "3000", "--searches", "500", "--seeds", "1"]
SMALL += ["--processes", "2"]
METHODS = {"bias", "id", "vector", "simscore", "simtier", "make", "simtier+make"}

# Not clip-e: so few items are less than a batch. 256 pairs of co-click take 460 searches.
ENCODERS = {"off-the-shelf", "co-click", "scl-no-bank", "scl-no-triplet", "scl"}


def test_the_demo_leads_from_nothing_to_a_report_and_is_not_done_twice(tmp_path, capfd):
    run_dir = tmp_path / "demo"
    with pools_of_forks():
        main(["--run_dir", str(run_dir), *SMALL])
    report = json.loads((run_dir / "report.json").read_text())
    assert {row["method"] for row in report["rows"]} == METHODS | {"simtier+make/random"}
    assert all(0 < row["auc"] < 1 and row["slices"] for row in report["rows"])
    assert {row["encoder"] for row in report["pretraining"]} == ENCODERS
    assert report["seconds"] > 0
    assert "simulated" in (run_dir / "report.html").read_text().lower()

    stages = (run_dir / "stages.json").read_text()
    capfd.readouterr()
    main(["--run_dir", str(run_dir), *SMALL])
    assert (run_dir / "stages.json").read_text() == stages
    assert "simtier+make/random" in capfd.readouterr().out

    with pytest.raises(InputError, match="holds a demo with other settings"):
        main(["--run_dir", str(run_dir), *SMALL, "--seed", "1"])


@pytest.mark.parametrize(("gpus", "ranks"), [(0, 2), (1, 1), (2, 2), (8, 2)])
def test_there_are_two_ranks_or_as_many_as_gpus(gpus, ranks, monkeypatch):
    monkeypatch.setattr(process_group, "usable_gpus", lambda: gpus)
    assert ranks_here() == ["-j", f"1x{ranks}", "--gpu", str(min(gpus, 2))]


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds something else"):
        main(["--run_dir", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
