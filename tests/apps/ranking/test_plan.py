"""apps.plan: the plan, the memory, and the cure in one line."""

import json

import pytest

from apps.plan import main
from tests.helpers.runs import train_ranker
from tests.helpers.small_market import write_small_market
from torchrec_mm.errors import InputError

ITEMS = ["--rows", "{item_id: 243000000}", "--embedding_dim", "64"]


def planned(capsys, *flags: str) -> dict:
    main([*flags, "--json"])
    return json.loads(capsys.readouterr().out)


def complaint(*flags: str) -> str:
    with pytest.raises(InputError) as caught:
        main(flags)
    return str(caught.value)


def test_a_taobao_sized_table_on_16_h100s_is_what_one_counts_by_hand(capsys):
    plan = planned(capsys, *ITEMS, "--device", "h100", "--world_size", "16")
    by_hand = 243_000_000 * (64 * 4 + 4) / 16  # row-wise Adagrad: one number a row
    for rank in plan["ranks"]:
        table = rank["tables"]["item_id_table"]
        assert table["weights"] + table["optimizer"] == pytest.approx(by_hand, rel=0.05)
        # 65 536 ids a rank: ids of two batches, a bag and its gradient for those of all ranks,
        # and the rank's own
        ids, row = 65_536, 64 * 4
        by_hand_used = by_hand + ids * 16 + 16 * ids * row * 2 + ids * (16 + row * 2)
        used = rank["used"] - rank["reserve"]
        assert used == pytest.approx(by_hand_used, rel=0.05)
        assert rank["reserve"] == pytest.approx(0.15 * 79 * 2**30)
    assert {table["sharding"] for table in plan["tables"]} == {"row_wise"}
    shards = plan["tables"][0]["shards"]
    assert sum(shard["bytes"] for shard in shards) == 243_000_000 * 260


def test_the_print_names_tables_parts_and_the_tightest_rank(capsys):
    main([*ITEMS, "--world_size", "16", "--vectors_rows", "240000000"])
    out = capsys.readouterr().out
    for words in (
        "item_id_table                  243,000,000     64  row_wise       fused",
        "16 on rank 0-15; fp32, rowwise_adagrad",
        "rank 0-15                        weights   optimizer       cache     buffers",
        "reserve                      11.85 GiB",
        "tightest: rank 0, ",
        "host: 29.42 GiB a node, of tables there and copies that checkpoints are written from",
        "item vectors: 28.61 GiB a node",
    ):
        assert words in out


def test_what_does_not_fit_is_one_line_with_what_would():
    told = complaint(*ITEMS, "--device", "a100-40gb")
    assert told == (
        "tables must fit in 39.0 GiB on each of 1 ranks, got 58.8 GiB with their optimizers; "
        "fits with tables.item_id.dtype fp16, or with tables.item_id.kernel fused_uvm_caching, "
        "or with 2 ranks"
    )


@pytest.mark.parametrize(
    "cure",
    [
        ["--tables", "{item_id: {dtype: fp16}}"],
        ["--tables", "{item_id: {kernel: fused_uvm_caching}}"],
        ["--world_size", "2"],
    ],
)
def test_what_is_said_to_fit_does(capsys, cure):
    plan = planned(capsys, *ITEMS, "--device", "a100-40gb", *cure)
    assert all(rank["used"] <= rank["capacity"] for rank in plan["ranks"])


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--world_size", "0"], "world_size must be at least 1, got 0"),
        (["--world_size", "12"], "world_size must be a multiple of devices_per_node (8), got 12"),
        (["--tables", "{item: {}}"], "tables must name tables of the model (item_id), got item"),
        (["--rows", "{item_id: 0}"], "rows.item_id must be at least 1, got 0"),
        (
            ["--rows", "{a.b: 5, a_b: 5}"],
            "rows.a_b must not be named like rows.a.b, as both tables would be a_b_table",
        ),
        (["--train", "c.yaml"], "train or rows must be given, and not both"),
        (
            ["--device", "cpu", "--tables", "{item_id: {optimizer: adam}}"],
            "tables.item_id_table.optimizer must be rowwise_adagrad or adagrad or sgd on the CPU, "
            "got adam",
        ),
    ],
)
def test_a_mistake_is_one_line(flags, told):
    given = ITEMS if "--rows" not in flags else ()
    assert complaint(*given, *flags) == told


def test_nothing_to_plan_is_refused():
    assert complaint("--world_size", "2") == "train or rows must be given, and not both"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    market = write_small_market(tmp_path_factory.mktemp("market"))
    run = tmp_path_factory.mktemp("runs") / "id"
    more = ["--tables", "{item_id: {sharding: row_wise, optimizer: sgd}}"]
    return train_ranker(market, run, "id", *more)


def test_a_finished_run_is_planned_with_its_own_tables_and_dense_part(capsys, run_dir):
    plan = planned(capsys, "--train", str(run_dir / "config.yaml"), "--world_size", "4")
    saved = json.loads((run_dir / "plan.json").read_text())
    ours = {table["table"]: table for table in plan["tables"]}
    assert {table["table"]: table["rows"] for table in saved["tables"]} == {
        name: table["rows"] for name, table in ours.items()
    }
    assert ours["item_id_table"]["sharding"] == "row_wise"
    assert ours["item_id_table"]["optimizer"] == "sgd"
    assert plan["ranks"][0]["dense"] > 0


def test_tables_given_here_win_over_those_of_the_config(capsys, run_dir):
    flags = ["--train", str(run_dir / "config.yaml"), "--tables", "{item_id: {dtype: fp16}}"]
    tables = {table["table"]: table for table in planned(capsys, *flags)["tables"]}
    assert tables["item_id_table"]["dtype"] == "fp16"
    assert tables["item_id_table"]["optimizer"] == "rowwise_adagrad"


def test_each_rank_holds_the_dense_part_and_its_own_batch(capsys):
    flags = ["--rows", "{item_id: 100}", "--batch_ids", "10", "--dense_parameters", "1000"]
    (rank,) = planned(capsys, *flags)["ranks"]
    assert (rank["dense"], rank["batch"]) == (16 * 1000, 10 * (16 + 16 * 4 * 2))


def test_a_saved_plan_constrains_another(capsys, run_dir):
    flags = ["--rows", "{item_id: 1000}", "--world_size", "2"]
    told = complaint(*flags, "--plan", str(run_dir / "plan.json"))
    assert told.startswith("plan must hold tables of the model (item_id_table), got ")
    table = {"table": "item_id_table", "sharding": "table_row_wise", "kernel": "fused_uvm"}
    file = run_dir / "other.json"
    file.write_text(json.dumps({"format": 1, "tables": [table | {"optimizer": "rowwise_adagrad"}]}))
    plan = planned(capsys, *flags, "--plan", str(file))
    assert plan["tables"][0]["sharding"] == "table_row_wise"
    assert plan["tables"][0]["kernel"] == "fused_uvm"
