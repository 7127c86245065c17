"""apps.export_model: a whole folder that bare PyTorch can use, or none and one line."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import apps.export_model
from tests.exporting.test_program import tried
from tests.helpers.runs import train_make, train_ranker
from torchrec_mm.exporting import export, program

pytestmark = pytest.mark.slow

LOADS = """
import sys, torch
program = torch.export.load(sys.argv[1]).module()
print(*sorted({str(n.target).split(".")[0] for n in program.graph.nodes if "OpOverload" in
    type(n.target).__name__}))
print({"torchrec", "fbgemm_gpu", "torchrec_mm"} & {*sys.modules})
"""


@pytest.fixture(scope="module")
def run_dir(market, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    make = train_make(market, folder / "make_itself")
    return train_ranker(market, folder / "ranker", "simtier+make", make=make)


@pytest.fixture(scope="module")
def exported(run_dir, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("exported") / "program"
    apps.export_model.main(["--run_dir", str(run_dir), "--output", str(output)])
    return output


def test_the_folder_holds_what_the_guide_says(exported, run_dir):
    assert {path.name for path in exported.iterdir()} == {
        *("program.pt2", "program.json", "vocabularies.safetensors"),
    }
    about = json.loads((exported / "program.json").read_text())
    assert about["checkpoint"] == "step-00000004" and about["method"] == "simtier+make"
    for name in ("request_features", "item_features", "behaviour_features"):
        given = {"request_features": "requests", "item_features": "items"}
        shape = about["inputs"][given.get(name, "behaviour_attributes")]["shape"]
        assert shape[-1] == about["embedding_dim"] * len(about[name]) > 0


def test_the_program_takes_lists_of_any_length_and_says_what_the_scorer_says(exported, run_dir):
    _, trial = tried(run_dir)
    loaded = torch.export.load(exported / "program.pt2").module()
    assert trial.difference(loaded) < export.TOLERANCE
    sizes = {
        tuple(x.shape[1] for x in list(trial.inputs(trial.arrays.take(some)).values())[:2])
        for some in torch.arange(4)[:, None].numpy()
    }
    assert {length for _, length in sizes} >= {0} and {count for count, _ in sizes} >= {1}


def test_bare_torch_loads_it_and_nothing_but_its_own_operators_is_in_it(exported):
    command = [sys.executable, "-c", LOADS, str(exported / "program.pt2")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=exported, check=True)
    assert done.stdout.splitlines() == ["aten", "set()"]


def test_a_program_that_says_something_else_is_not_written(run_dir, tmp_path, refused, monkeypatch):
    beside = program._beside  # embeddings, here of the wrong requests and items
    monkeypatch.setattr(program, "_beside", lambda names, rows: beside(names, rows.flip(0)))
    flags = ["--run_dir", run_dir, "--output", tmp_path / "program"]
    line = refused(apps.export_model.main, flags)
    assert line.startswith("error: program.pt2 must score as the run does, to 1e-05, got a differ")
    assert not any(tmp_path.iterdir())


def test_what_cannot_be_exported_is_refused_in_one_line(market, run_dir, tmp_path, refused):
    bias = train_ranker(market, tmp_path / "bias", "bias")
    flags = ["--run_dir", bias, "--output", tmp_path / "program"]
    line = refused(apps.export_model.main, flags)
    assert line == f"error: run_dir must be of a method with a network, got {bias} of method bias"
    flags = ["--run_dir", run_dir, "--output", run_dir / "program"]
    assert "output must not lie in what is read" in refused(apps.export_model.main, flags)


def test_without_a_compiler_nothing_is_compiled(run_dir, tmp_path, refused, monkeypatch):
    def none(*given: object, **named: object) -> None:
        raise torch._inductor.exc.InvalidCxxCompiler

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", none)
    flags = ["--run_dir", run_dir, "--output", tmp_path / "program", "--aot", "true"]
    line = refused(apps.export_model.main, flags)
    assert line.startswith("error: aot must have a C++ compiler and an x86-64 processor: ")
    assert not any(tmp_path.iterdir())


def test_what_is_compiled_says_the_same_where_there_is_no_compiler(run_dir, tmp_path, capsys):
    output = tmp_path / "program"
    apps.export_model.main(["--run_dir", str(run_dir), "--output", str(output), "--aot", "true"])
    said = re.search(
        r"compiled for AVX2; differs from the scorer by (\S+)", capsys.readouterr().out
    )
    assert said is not None and float(said[1]) <= export.TOLERANCE
    load = "import torch; torch._inductor.aoti_load_package('compiled.pt2')"
    command = [sys.executable, "-c", load]
    subprocess.run(command, cwd=output, env=os.environ | {"PATH": "", "CXX": ""}, check=True)
