"""Which runs a folder holds, and which files are refused."""

import json

import pytest

from tests.reporting.made_up import metrics, put_epochs, put_pretraining, put_ranker
from torchrec_mm.errors import InputError
from torchrec_mm.reporting.runs import EpochAuc, find_runs


def test_runs_are_found_at_any_depth_but_not_in_hidden_folders(tmp_path):
    put_ranker(tmp_path / "a" / "b" / "id", method="id", seed=3)
    put_pretraining(tmp_path / "scl")
    put_ranker(tmp_path / ".unfinished")
    runs = find_runs(tmp_path)
    assert [(run.name, run.method, run.seed) for run in runs.rankers] == [("a/b/id", "id", 3)]
    assert [(run.name, run.encoder) for run in runs.pretraining] == [("scl", "scl")]


def test_a_method_on_random_vectors_is_a_control(tmp_path):
    put_ranker(tmp_path / "1", method="simtier+make", encoder="random")
    put_ranker(tmp_path / "2", method="simtier+make/random", encoder="random")
    put_ranker(tmp_path / "3", method="simtier+make", encoder="scl")
    methods = [run.method for run in find_runs(tmp_path).rankers]
    assert methods == ["simtier+make/random"] * 2 + ["simtier+make"]


def test_epoch_lines_are_read_whatever_else_the_log_holds(tmp_path):
    put_ranker(tmp_path / "id")
    put_epochs(tmp_path / "id", [(0.7, 0.6), (0.8, None)])
    with (tmp_path / "id" / "metrics.jsonl").open("a") as log:
        log.write('{"epoch": 2, "train_auc": 0.9, "test_auc": NaN}\n{"epoch": 3, "tra')
    (run,) = find_runs(tmp_path).rankers
    assert run.epochs == (EpochAuc(1, 0.7, 0.6), EpochAuc(2, 0.9, None))


def test_a_training_that_was_never_evaluated_is_a_curve(tmp_path):
    put_ranker(tmp_path / "id")
    put_epochs(tmp_path / "make", [(0.7, 0.6)])
    put_epochs(tmp_path / "only-steps", [])
    (curve,) = find_runs(tmp_path).curves
    assert (curve.name, curve.epochs) == ("make", (EpochAuc(1, 0.7, 0.6),))


def test_epochs_of_pretraining_are_no_curve_of_clicks(tmp_path):
    put_pretraining(tmp_path / "scl")
    (tmp_path / "scl" / "metrics.jsonl").write_text('{"epoch": 1, "recall@1": 0.1}\n')
    assert find_runs(tmp_path).curves == ()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "id/metrics.json must be JSON"),
        ("[1]", "id/metrics.json must be a JSON object"),
        ("\x00\xff", "id/metrics.json must be JSON"),
        (json.dumps(metrics(auc="high")), "metrics.json auc must be a number or null, got 'high'"),
        (json.dumps(metrics(gauc=0.5) | {"gauc": True}), "gauc must be a number or null"),
        (json.dumps(metrics(auc=float("nan"))), "must hold JSON numbers or null, got NaN"),
        (json.dumps(metrics(method=7)), "method must be str, got 7"),
        (json.dumps(metrics(seed=None)), "seed must be int, got None"),
        (json.dumps(metrics(vectors="scl")), "encoder must be str"),
        (json.dumps(metrics(slices=[1])), "slices must be an object of objects"),
    ],
)
def test_a_garbled_metrics_file_is_refused_by_name(tmp_path, text, complaint):
    (tmp_path / "id").mkdir()
    (tmp_path / "id" / "metrics.json").write_text(text)
    with pytest.raises(InputError, match=complaint):
        find_runs(tmp_path)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="found none"):
        find_runs(tmp_path)
    with pytest.raises(InputError, match="must be a folder"):
        find_runs(tmp_path / "nowhere")
