"""Seeds of an encoder become one row, rows come in the paper's order."""

import pytest

from tests.reporting.made_up import put_pretraining
from torchrec_mm.reporting.encoders import (
    ENCODERS,
    Interval,
    category_tables,
    group_encoders,
    in_order,
)
from torchrec_mm.reporting.runs import find_runs


def groups_below(folder):
    return group_encoders(find_runs(folder).pretraining)


def test_seeds_of_an_encoder_are_one_group_and_groups_come_in_the_papers_order(tmp_path):
    for number, encoder in enumerate(["mine", *reversed(ENCODERS)]):
        for seed in (10, 9):
            put_pretraining(tmp_path / f"{number}-{seed}", encoder, seed=seed)
    groups = groups_below(tmp_path)
    assert [group.encoder for group in groups] == [*ENCODERS, "mine"]
    assert {group.seeds for group in groups} == {"9, 10"}
    assert [run.seed for run in in_order(find_runs(tmp_path).pretraining)[:2]] == [9, 10]


def test_runs_that_measured_other_spaces_are_a_group_of_their_own(tmp_path):
    for space in ("image", "text"):
        put_pretraining(tmp_path / space, spaces={space: {"recall@1": 0.5}}, seed=0)
    groups = groups_below(tmp_path)
    assert [group.spaces for group in groups] == [("image",), ("text",)]
    assert groups[1].of_space("text", "recall@1") == Interval(0.5, None)


def test_the_interval_is_over_seeds_and_not_over_runs(tmp_path):
    put_pretraining(tmp_path / "a", recall=0.25, seed=0)
    put_pretraining(tmp_path / "b", recall=0.75, seed=1)
    (group,) = groups_below(tmp_path)
    expected = group.metric("recall@1")
    assert expected.mean == 0.5
    assert expected.half_width == pytest.approx(12.706 * 0.25)
    put_pretraining(tmp_path / "c", recall=0.75, seed=1)
    (group,) = groups_below(tmp_path)
    assert group.metric("recall@1") == expected


def test_a_figure_is_averaged_over_the_seeds_that_have_it(tmp_path):
    more = {"title_to_picture": {"recall@10": 0.5}}
    put_pretraining(tmp_path / "a", seed=0, **more)
    put_pretraining(tmp_path / "b", seed=1)
    (group,) = groups_below(tmp_path)
    assert group.titles("recall@10") == Interval(0.5, None)
    assert group.metric("hard_negative_accuracy") == Interval(None, None)


def test_a_table_of_categories_lists_the_values_of_the_first_run_that_has_them(tmp_path):
    def categories(**recall):
        return {"brand": {key: {"recall@10": r, "searches": 5} for key, r in recall.items()}}

    put_pretraining(tmp_path / "a", "off-the-shelf", seed=0)
    put_pretraining(tmp_path / "b", "scl", seed=0, categories=categories(b7=0.5, b3=0.25))
    put_pretraining(tmp_path / "c", "scl", seed=1, categories=categories(b7=1.0, b9=0.5))
    groups = groups_below(tmp_path)
    (table,) = category_tables(groups)
    assert (table.attribute, table.searches) == ("brand", {"b7": 5, "b3": 5})
    assert groups[1].of_value("brand", "b7").mean == 0.75
    assert groups[1].of_value("brand", "b3") == Interval(0.25, None)
    assert groups[0].of_value("brand", "b7") == Interval(None, None)
