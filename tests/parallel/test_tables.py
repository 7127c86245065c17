"""What a config may ask of a table, and what it is told otherwise."""

import pytest

from torchrec_mm.errors import InputError
from torchrec_mm.parallel.tables import (
    TableSettings,
    check_device,
    follow_plan,
    read_tables,
    settings_by_table,
)

FEATURES = {"item_id_table": ["item_id"], "user_id_table": ["user_id"]}


def complaint(**given) -> str:
    """What the user is told of one table's settings."""
    with pytest.raises(InputError) as caught:
        read_tables({"item_id": given})
    return str(caught.value)


def test_what_is_given_is_kept_and_the_rest_is_left_open():
    raw = {"item_id": {"sharding": "row_wise", "optimizer": "adagrad", "learning_rate": 0.5}}
    settings = read_tables(raw)["item_id"]
    assert settings == TableSettings("row_wise", None, "fp32", "adagrad", 0.5, None)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"sharding": "diagonal"}, "sharding must be one of table_wise, row_wise, "),
        ({"kernel": "quick"}, "kernel must be one of fused, fused_uvm, fused_uvm_caching, got"),
        ({"dtype": "fp8"}, "dtype must be one of fp32, fp16, got fp8"),
        ({"dtype": None}, "dtype must be one of fp32, fp16, got None"),
        ({"optimizer": "lion"}, "optimizer must be one of rowwise_adagrad, adagrad, adam, sgd"),
        ({"learning_rate": 0}, "learning_rate must be above 0, got 0"),
        ({"learning_rate": "fast"}, "learning_rate must be a number, got fast"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0, got nan"),
        (
            {"kernel": "fused_uvm_caching", "cache_load_factor": 1.5},
            "cache_load_factor must be in (0, 1], got 1.5",
        ),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_table(given, told):
    assert complaint(**given).startswith(f"tables.item_id.{told}")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"sharding": "data_parallel"}, "another rule"),
        ({"kernel": "dense"}, "another rule"),
        ({"dtype": "bf16"}, "TorchRec would store fp16 instead"),
        ({"sharding": "column_wise"}, "each part of a row would learn at its own rate"),
        ({"cache_load_factor": 0.5}, "must go with kernel fused_uvm_caching"),
    ],
)
def test_what_would_train_something_else_is_refused_with_the_reason(given, why):
    assert why in complaint(**given)


def test_an_unknown_setting_is_named():
    assert complaint(shading="row_wise").endswith("got shading")


def test_a_table_is_named_by_itself_or_by_its_feature():
    fast = TableSettings(learning_rate=1.0)
    for name in ("item_id", "item_id_table"):
        assert settings_by_table({name: fast}, FEATURES) == {
            "item_id_table": fast,
            "user_id_table": TableSettings(),
        }


def test_a_table_that_the_model_lacks_is_named_with_those_it_has():
    with pytest.raises(InputError, match=r"\(item_id, user_id\), got item"):
        settings_by_table({"item": TableSettings()}, FEATURES)


def test_a_table_named_twice_is_refused():
    twice = {"item_id": TableSettings(), "item_id_table": TableSettings()}
    with pytest.raises(InputError, match="each table once, got item_id_table again"):
        settings_by_table(twice, FEATURES)


def test_a_name_of_a_table_and_of_another_tables_feature_is_refused():
    features = {"x_table": ["x"], "x_table_table": ["x_table"]}
    with pytest.raises(InputError, match="one table each, got x_table: say x or x_table_table"):
        settings_by_table({"x_table": TableSettings()}, features)
    fast = TableSettings(learning_rate=0.5)
    for name, table in (("x", "x_table"), ("x_table_table", "x_table_table")):
        assert settings_by_table({name: fast}, features)[table] == fast


@pytest.mark.parametrize(
    "given", [{"kernel": "fused_uvm"}, {"kernel": "fused_uvm_caching"}, {"optimizer": "adam"}]
)
def test_what_only_cuda_has_is_refused_on_the_cpu_alone(given):
    tables = {"item_id_table": TableSettings(**given)}
    (name, value) = next(iter(given.items()))
    check_device(tables, "cuda")
    with pytest.raises(InputError, match=f"tables.item_id_table.{name} .* on the CPU, got {value}"):
        check_device(tables, "cpu")


def test_an_earlier_plan_fills_in_what_the_config_leaves_open():
    tables = settings_by_table({"item_id": TableSettings(dtype="fp16")}, FEATURES)
    earlier = {"item_id_table": TableSettings(sharding="row_wise", kernel="fused")}
    merged = follow_plan(tables, earlier)
    assert merged["item_id_table"] == TableSettings("row_wise", "fused", dtype="fp16")
    assert merged["user_id_table"] == TableSettings()
