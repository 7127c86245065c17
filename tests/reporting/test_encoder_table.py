"""Encoders beside each other, from reports small enough to check by hand."""

import pytest

from torchrec_mm.reporting.encoder_table import encoder_rows, to_markdown


def report(recall: float | None, accuracy: float | None = None, **more) -> dict:
    figures = {"recall@10": recall, "hard_negative_accuracy": accuracy, "searches": 50}
    return {"spaces": {"fused": figures, "image": {"recall@10": None, "searches": 0}}, **more}


REPORTS = {
    "off-the-shelf": dict.fromkeys([0, 1, 2], report(0.2)),
    "scl": {0: report(0.5, 0.7), 1: report(0.6, 0.8), 2: report(0.7, 0.9)},
    "co-click": {0: report(0.3, 0.7), 1: report(0.4, 0.7), 2: report(0.5, 0.7)},
}


def rows(**reports) -> dict:
    return {row["encoder"]: row for row in encoder_rows(reports or REPORTS)}


def test_a_row_holds_mean_interval_and_the_value_of_each_run():
    recall = rows()["scl"]["spaces"]["fused"]["recall@10"]
    assert recall["values"] == [0.5, 0.6, 0.7]
    assert recall["mean"] == pytest.approx(0.6)
    assert recall["interval"] == pytest.approx(4.303 * 0.1 / 3**0.5)  # Student's t, 2 degrees


def test_differences_pair_the_runs_of_equal_seed():
    reports = dict(REPORTS, scl={2: report(0.7), 1: report(0.6), 0: report(0.5)})
    recall = rows(**reports)["co-click"]["minus_scl"]["fused"]["recall@10"]
    assert recall["values"] == pytest.approx([-0.2] * 3)
    assert recall["mean"] == pytest.approx(-0.2) and recall["interval"] == pytest.approx(0)


def test_an_encoder_without_a_seed_is_one_run_and_differs_from_each_of_the_others():
    row = rows()["off-the-shelf"]
    assert row["runs"] == 1 and row["searches"] == {"fused": 50}
    assert row["spaces"]["fused"]["recall@10"] == {"mean": 0.2, "interval": None, "values": [0.2]}
    difference = row["minus_scl"]["fused"]["recall@10"]
    assert difference["values"] == pytest.approx([-0.3, -0.4, -0.5])


def test_what_was_not_measured_is_none_and_a_space_without_any_figure_is_left_out():
    spaces = rows()["off-the-shelf"]["spaces"]
    assert list(spaces) == ["fused"]
    assert spaces["fused"]["hard_negative_accuracy"] is None and spaces["fused"]["mrr"] is None


def test_scl_has_no_difference_and_neither_has_anything_beside_no_scl():
    assert rows()["scl"]["minus_scl"] == {}
    assert rows(**{"co-click": REPORTS["co-click"]})["co-click"]["minus_scl"] == {}


def test_a_seed_of_one_side_only_is_in_no_difference():
    reports = dict(REPORTS, scl={1: report(0.6), 5: report(0.9)})
    recall = rows(**reports)["co-click"]["minus_scl"]["fused"]["recall@10"]
    assert recall["values"] == pytest.approx([-0.2]) and recall["interval"] is None


def test_titles_that_find_pictures_are_a_table_of_their_own():
    found = report(0.5, title_to_picture={"recall@10": 0.8, "searches": 9})
    (row,) = encoder_rows({"clip-e": {0: found}})
    assert row["spaces"]["title_to_picture"]["recall@10"]["mean"] == 0.8
    assert row["searches"]["title_to_picture"] == 9


def test_a_difference_shows_its_sign():
    rows = encoder_rows({"scl": {0: report(0.5)}, "clip-e": {0: report(0.75)}})
    assert "| clip-e | 1 | 50 | +0.250 |" in to_markdown(rows, [])


def test_the_markdown_shows_figures_then_differences_then_notes():
    text = to_markdown(encoder_rows(REPORTS), ["a note", "another"])
    assert [line for line in text.splitlines() if line] == [
        "## Search to item, all modalities together",
        "| encoder | runs | searches | Recall@10 | hard-negative accuracy |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| off-the-shelf | 1 | 50 | 0.200 | – |",
        "| scl | 3 | 50 | 0.600 ± 0.248 | 0.800 ± 0.248 |",
        "| co-click | 3 | 50 | 0.400 ± 0.248 | 0.700 ± 0.000 |",
        "Minus scl, run by run:",
        "| encoder | runs | searches | Recall@10 | hard-negative accuracy |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| off-the-shelf | 1 | 50 | -0.400 ± 0.248 | – |",
        "| co-click | 3 | 50 | -0.200 ± 0.000 | -0.100 ± 0.248 |",
        "- a note",
        "- another",
    ]
