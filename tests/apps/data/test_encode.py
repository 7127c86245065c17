"""python -m apps.encode: what its flags mean and refuse."""

import json
import subprocess
import sys

import pytest

from apps.encode import main
from tests.helpers.commands import ROOT
from tests.helpers.small_market import write_small_market
from torchrec_mm.errors import InputError


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--min_count=0", "min_count must be at least 1, got 0"),
        ("--max_behaviours=0", "max_behaviours must be at least 1, got 0"),
        ("--splits=[]", "splits must name each split once, got"),
        ("--splits=[train,train]", "splits must name each split once, got train, train"),
        ("--vocabulary=none", "none/vocabularies.safetensors must be the vocabularies"),
    ],
)
def test_a_wrong_flag_is_refused_by_name(tmp_path, flag, words):
    with pytest.raises(InputError, match=words):
        main([f"--data={tmp_path}", f"--run_dir={tmp_path / 'out'}", flag])
    assert not (tmp_path / "out").exists()


def test_requests_are_encoded_with_the_flags_that_are_given(tmp_path):
    data = write_small_market(tmp_path).data
    flags = [f"--data={data}", "--max_behaviours=2"]
    main([*flags, f"--run_dir={tmp_path / 'train'}", "--splits=[train]", "--min_count=20"])
    test = ["--splits=[test]", f"--vocabulary={tmp_path / 'train'}"]
    main([*flags, f"--run_dir={tmp_path / 'test'}", *test])
    files = (tmp_path / split / "meta.json" for split in ("train", "test"))
    train, test = (json.loads(file.read_text()) for file in files)
    assert (list(train["splits"]), list(test["splits"])) == (["train"], ["test"])
    assert train["vocabulary"] == test["vocabulary"]
    names = ("vocabularies.safetensors", "item_frequency.safetensors")  # both are of training
    for name in names:
        assert (tmp_path / "test" / name).read_bytes() == (tmp_path / "train" / name).read_bytes()
    assert train["max_behaviours"] == 2
    assert train["splits"]["train"]["behaviours"] <= 2 * train["splits"]["train"]["requests"]


def test_a_process_that_encodes_alone_loads_neither_torch_nor_pandas(tmp_path):
    data = write_small_market(tmp_path).data
    flags = [f"--data={data}", f"--run_dir={tmp_path / 'out'}"]
    code = f"import sys, apps.encode; apps.encode.main({flags}); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=True
    )
    assert not {"torch", "pandas"} & set(done.stdout.split())
