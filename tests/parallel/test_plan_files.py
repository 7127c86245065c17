"""plan.json: written whole, read back as constraints, refused where it is none."""

import json
from dataclasses import replace

import pytest

from torchrec_mm.errors import InputError
from torchrec_mm.parallel.plan_files import PlannedShard, PlannedTable, read_plan, save_plan
from torchrec_mm.parallel.tables import TableSettings

TABLE = PlannedTable(
    name="item_id_table",
    rows=10,
    width=4,
    sharding="row_wise",
    kernel="fused",
    settings=TableSettings(dtype="fp16"),
    shards=(
        PlannedShard(rank=0, rows=5, columns=4, row_offset=0, column_offset=0),
        PlannedShard(rank=1, rows=5, columns=4, row_offset=5, column_offset=0),
    ),
)


def test_a_plan_is_read_back_as_sharding_and_kernel(tmp_path):
    sgd = TableSettings(optimizer="sgd")
    split = replace(TABLE, name="b", sharding="column_wise", settings=sgd)
    save_plan(tmp_path, [TABLE, split], world_size=2)
    assert read_plan(tmp_path / "plan.json") == {
        "item_id_table": TableSettings(sharding="row_wise", kernel="fused"),
        "b": TableSettings(sharding="column_wise", kernel="fused", optimizer="sgd"),
    }


def test_a_plan_says_who_owns_which_block_and_its_bytes(tmp_path):
    save_plan(tmp_path, [TABLE], world_size=2)
    (table,) = json.loads((tmp_path / "plan.json").read_text())["tables"]
    assert (table["dtype"], table["optimizer"]) == ("fp16", "rowwise_adagrad")
    assert table["shards"][1] == {
        "rank": 1,
        "rows": 5,
        "columns": 4,
        "row_offset": 5,
        "column_offset": 0,
        "bytes": 5 * (4 * 2 + 4),
    }


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format": 2, "tables": []}', '{"format": 1, "tables": [{"table": "a"}]}'],
)
def test_what_is_no_plan_is_refused_by_name(tmp_path, text):
    file = tmp_path / "plan.json"
    file.write_text(text)
    with pytest.raises(InputError, match="plan.json must"):
        read_plan(file)


def test_a_plan_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="plan must be a file, got .*none.json"):
        read_plan(tmp_path / "none.json")
