"""apps.replay: a table, a page, and what it refuses."""

import json

import pytest

import apps.replay
from apps.replay import name_of
from tests.helpers.runs import train_ranker


@pytest.fixture(scope="module")
def ranker(market, tmp_path_factory):
    return train_ranker(market, tmp_path_factory.mktemp("ranker") / "run", "simtier")


def flags(market, ranker, run_dir, *more) -> list[str]:
    where = ["--ranker", ranker, *market.flags, "--run_dir", run_dir, "--resamples", 100]
    return [str(flag) for flag in (*where, *more)]


def test_each_delay_has_a_row_on_paper_and_on_a_page(market, ranker, tmp_path, capsys):
    delays = ["--delays_s", "[0,86424,null]", "--window_s", "5"]
    apps.replay.main(flags(market, ranker, tmp_path / "out", *delays))
    found = json.loads((tmp_path / "out" / "replay.json").read_text())
    names = ["after 0 seconds", "after 86424 seconds", "never"]
    assert [row["name"] for row in found["rows"]] == names and found["method"] == "simtier"
    table = (tmp_path / "out" / "replay.md").read_text()
    page = (tmp_path / "out" / "replay.html").read_text()
    assert all(name in table and name in page for name in names) and "<svg" in page
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "replay.html")
    coverage = [row["slices"]["all"]["coverage"] for row in found["rows"]]
    assert coverage[1] < coverage[0] == coverage[2]  # none is born in the replay


@pytest.mark.parametrize(
    ("delay_s", "name"),
    [(None, "never"), (10, "after 10 seconds"), (3600, "after 1 hour"), (86400, "after 1 day")],
)
def test_a_delay_has_a_name(delay_s, name):
    assert name_of(delay_s) == name


def test_a_ranker_without_vectors_is_refused(market, tmp_path, refused):
    ranker = train_ranker(market, tmp_path / "id", "id")
    said = refused(apps.replay.main, flags(market, ranker, tmp_path / "out"))
    assert "ranker must be of a method with vectors, got method id" in said


@pytest.mark.parametrize("delays", ["[]", "[1,1]", "[-1]", "[.inf]", "[null,null]"])
def test_delays_must_be_one_each(market, ranker, tmp_path, refused, delays):
    more = ["--delays_s", delays]
    said = refused(apps.replay.main, flags(market, ranker, tmp_path / "out", *more))
    assert "delays_s" in said and not (tmp_path / "out").exists()
