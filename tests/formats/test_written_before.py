"""What commands wrote before the rooms of this library were divided is read by those of today.

``written_before.zip`` holds the small market and search data of other tests, what each command made
of them, runs cut back to a checkpoint in their middle, and the losses of the whole runs.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import apps.embed_items
import apps.predict
import apps.pretrain
import apps.train_make
import apps.train_ranker
from tests.helpers.runs import SMALL_MAKE, SMALL_RANKER, lines_of
from torchrec_mm.item_vectors.store import ItemVectors

FOLDER = Path(__file__).parent


@pytest.fixture
def before(tmp_path, monkeypatch) -> Path:
    shutil.unpack_archive(FOLDER / "written_before.zip", tmp_path)
    monkeypatch.chdir(tmp_path)  # the encoder knows its backbone as the folder "image" here
    for kind in ("make", "ranker", "encoder"):  # a run that begins anew would write this line anew
        lines = (tmp_path / kind / "metrics.jsonl").read_text().splitlines()
        lines[0] = json.dumps(json.loads(lines[0]) | {"written": "before"})
        (tmp_path / kind / "metrics.jsonl").write_text("\n".join([*lines, ""]))
    return tmp_path


def losses(run_dir: Path) -> list[float]:
    return [line["loss"] for line in lines_of(run_dir, "loss")]


def check_resumed(before: Path, kind: str, relative: float) -> None:
    expected = json.loads((before / "losses.json").read_text())[kind]
    assert losses(before / kind) == pytest.approx(expected, rel=relative)
    assert len(lines_of(before / kind, "written")) == 1


def flags_of_ranking(before: Path) -> list[str]:
    return ["--encoded", str(before / "encoded"), "--vectors", str(before / "vectors")]


def test_a_run_of_make_goes_on_from_its_checkpoint(before):
    flags = [*flags_of_ranking(before), *SMALL_MAKE, "--keep_checkpoints", "9"]
    apps.train_make.main([*flags, "--run_dir", str(before / "make"), "--resume"])
    check_resumed(before, "make", 1e-5)


def test_a_run_of_the_ranker_goes_on_from_its_checkpoint(before):
    at = SMALL_RANKER.index("--min_count")  # was said when the data were encoded
    flags = [*flags_of_ranking(before), *SMALL_RANKER[:at], *SMALL_RANKER[at + 2 :]]
    flags += ["--method", "simtier+make", "--make", str(before / "make"), "--epochs", "2"]
    flags += ["--checkpoint_steps", "3", "--keep_checkpoints", "9", "--resume", "--effects", "0"]
    apps.train_ranker.main([*flags, "--run_dir", str(before / "ranker")])
    check_resumed(before, "ranker", 1e-5)


def test_the_checkpoint_of_a_ranker_predicts_what_it_did(before):
    flags = {
        "run_dir": before / "ranker",
        "requests": before / "data" / "requests" / "test",
        "items": before / "data" / "items",
        "vectors": before / "vectors",
        "output": before / "today.parquet",
    }
    apps.predict.main([f"--{name}={value}" for name, value in flags.items()])
    then, today = pq.read_table(before / "predictions.parquet"), pq.read_table(flags["output"])
    assert today.drop(["click_probabilities"]) == then.drop(["click_probabilities"])
    for mine, expected in zip(
        today["click_probabilities"].to_pylist(),
        then["click_probabilities"].to_pylist(),
        strict=True,
    ):
        assert mine == pytest.approx(expected, rel=1e-5)


def test_a_run_of_phase_one_goes_on_with_content_packed_then(before):
    flags = ["--packed", str(before / "packed"), "--image_encoder", "image"]
    flags += ["--modality", "image", "--image_size", "32", "--batch_size", "8", "--epochs", "2"]
    flags += ["--width", "128", "--learning_rate", "0.003"]  # the defaults then
    flags += ["--bank_slots", "8", "--num_workers", "0", "--log_every_steps", "2"]
    flags += ["--keep_checkpoints", "9", "--resume", "--run_dir", str(before / "encoder")]
    apps.pretrain.main(flags)
    check_resumed(before, "encoder", 1e-3)


def test_an_encoder_gives_the_vectors_that_it_gave(before):
    flags = ["--data", str(before / "shop"), "--encoder", str(before / "encoder")]
    apps.embed_items.main([*flags, "--modality", "image", "--run_dir", str(before / "today")])
    then, today = ItemVectors.open(before / "shop_vectors"), ItemVectors.open(before / "today")
    assert today.origin == then.origin
    assert np.array_equal(today.item_ids, then.item_ids)
    expected, _ = then.lookup(then.item_ids)
    values, _ = today.lookup(then.item_ids)
    assert values.dtype == np.int8
    assert np.abs(values.astype(int) - expected).max() <= 1  # another CPU may round otherwise
