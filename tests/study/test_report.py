"""A study's tables: ties are marked, and what is not there is not shown."""

from torchrec_mm.study.report import (
    JSON_FILE,
    PAGE_FILE,
    TABLE_FILE,
    difference,
    how_it_was_made,
    write_study,
)

FIGURE = {"value": 0.7, "low": 0.69, "high": 0.71, "p": None, "deviation": 0.001}
GAIN = {"value": 0.01, "low": 0.005, "high": 0.015, "p": 0.002}
NAMES = ("auc", "gauc", "log_loss")


def study(**changed) -> dict:
    row = {
        "row": "simtier<b>",
        "method": "simtier",
        "encoder": "scl",
        "option": {"epochs": 2},
        "figures": dict.fromkeys([*NAMES, "calibration"], FIGURE),
        "against": {"id": dict.fromkeys(NAMES, GAIN)},
        "parameters": 12345,
        "impressions_per_s": None,
        "epochs": [],
        "epochs_of_make": [],
    }
    whole = {
        "title": "Which?",
        "about": "Why.",
        "seeds": [0, 1],
        "resamples": 1000,
        "tune": [{}, {"epochs": 2}],
        "validation": 0.15,
        "claims": [],
        "encoders": {},
    }
    return {**whole, "rows": [row | changed]}


def test_a_difference_whose_bracket_holds_0_is_a_tie():
    assert difference(GAIN) == "+0.0100 [+0.0050, +0.0150] p 0.002"
    assert difference(GAIN | {"low": -0.001}).startswith("= +0.0100 [-0.0010, +0.0150]")
    worse = {"value": -0.01, "low": -0.02, "high": -0.005, "p": 0.01}
    assert not difference(worse).startswith("=")


def test_the_table_says_how_sure_it_is_what_it_cost_and_what_it_was_tuned_to(tmp_path):
    write_study(study(), tmp_path)
    text = (tmp_path / TABLE_FILE).read_text()
    assert "| 0.7000 ± 0.0010 [0.6900, 0.7100] |" in text
    assert "| 12,345 | – | epochs 2 |" in text
    assert "GAUC by slice" not in text and "by epoch" not in text
    assert (tmp_path / JSON_FILE).is_file()


def test_a_rows_name_is_no_html(tmp_path):
    write_study(study(), tmp_path)
    page = (tmp_path / PAGE_FILE).read_text()
    assert "simtier&lt;b&gt;" in page and "<b>" not in page


def test_the_budget_is_stated():
    assert "tried with the defaults; epochs 2 on the last 15% of training" in how_it_was_made(
        study()
    )
    assert how_it_was_made(study() | {"tune": [{}]}).startswith("No row was tuned.")


def test_slices_epochs_and_claims_are_shown_where_there_are_any(tmp_path):
    slices = {"item_frequency/0": 0.6, "item_age/<24h": None}
    epochs = [{"epoch": 1, "train_auc": 0.7, "test_auc": 0.65}]
    told = study(slices=slices, epochs=epochs, epochs_of_make=epochs * 2)
    told["claims"] = [{"above": "simtier", "below": "id", "holds": False}]
    write_study(told, tmp_path)
    text = (tmp_path / TABLE_FILE).read_text()
    assert "| simtier<b> | 0.6000 | – |" in text
    assert "| simtier<b> | 0.7000 / 0.6500 | – |" in text
    assert "| MAKE alone, of simtier<b> | 0.7000 / 0.6500 | 0.7000 / 0.6500 |" in text
    assert "| simtier | is not above | id |" in text


def test_what_phase_one_found_of_an_encoder_stands_beside_the_rows_of_its_vectors(tmp_path):
    found = {"recall@1": 0.2, "recall@10": 0.4, "mrr": 0.3, "hard_negative_accuracy": None}
    write_study(study() | {"encoders": {"scl": found, "clip-e": found}}, tmp_path)
    text = (tmp_path / TABLE_FILE).read_text()
    assert "| simtier<b> | scl | 0.200 | 0.400 | 0.300 | – | 0.7000 | 0.7000 |" in text
    assert "clip-e" not in text
