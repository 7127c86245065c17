"""What others may import: the guide's list, its docstrings and their examples, and its weight."""

import doctest
import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.commands import ROOT, files_of

GUIDE = ROOT / "torchrec_mm" / "README.md"
ROOMS = {
    "torchrec_mm.nn": {"torch", "numpy"},
    "torchrec_mm.losses": {"torch", "numpy"},
    "torchrec_mm.metrics": {"numpy"},
    "torchrec_mm.metrics.retrieval": {"torch", "numpy"},
    "torchrec_mm.item_vectors": {"numpy"},
    "torchrec_mm.pretraining.scl": {"torch", "numpy"},
    "torchrec_mm.runs": {"torch", "numpy"},
    "torchrec_mm.parallel.process_group": {"torch", "numpy"},
}
# What torch itself loads is no weight of ours, so all that could be is named.
HEAVY = {
    *("torch", "numpy", "pandas", "pyarrow", "torchrec", "fbgemm_gpu", "tensordict", "torchx"),
    *("jsonargparse", "yaml", "faiss", "timm", "torchvision", "transformers", "matplotlib"),
    *("sentence_transformers", "tensorboard", "safetensors", "duckdb", "pyspark", "PIL"),
}
NAMES = [(room, name) for room in ROOMS for name in import_module(room).__all__]


def listed() -> list[tuple[str, str]]:
    """Rooms and names of the guide's table; a row without a room goes on with the one before."""
    rows = re.findall(r"^\| (?:`(torchrec_mm\S*)`)? ?\| (`.*?`) \|", GUIDE.read_text(), re.M)
    room, pairs = "", []
    for own, names in rows:
        room = own or room
        pairs += [(room, name) for name in re.findall(r"`(\w+)`", names)]
    return pairs


def test_the_guide_lists_what_the_rooms_offer():
    assert sorted(listed()) == sorted(NAMES)


def test_an_example_of_the_guide_can_be_read_at_a_sitting():
    assert {name: len(text.splitlines()) <= 60 for name, text in files_of(GUIDE).items()} == {
        "answer.py": True,
        "monday.py": True,
    }


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_loads_no_more_than_it_needs(room):
    code = f"import sys, {room}; print(*{HEAVY!r} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=True
    )
    assert set(done.stdout.split()) == ROOMS[room]


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(("room", "name"), NAMES)
def test_a_docstrings_examples_are_true(room, name, tmp_path):
    module = import_module(room)
    torch.manual_seed(0)
    names = {"np": np, "torch": torch, "folder": tmp_path / "new"}
    names |= {each: getattr(module, each) for each in module.__all__}
    (example, *_) = doctest.DocTestFinder(recurse=False).find(
        getattr(module, name), name, globs=names
    )
    assert example.examples, f"{name} has no example"
    said: list[str] = []
    failed, _ = doctest.DocTestRunner(verbose=False).run(example, out=said.append)
    assert not failed, "".join(said)


def functions_of(public: object) -> list[object]:
    """A function itself; of a class its constructor and methods, not those made for a tuple."""
    if not inspect.isclass(public):
        return [public]
    if issubclass(public, tuple):
        return [public.__new__]
    own = [getattr(public, name) for name in vars(public) if name[0] != "_"]
    return [public.__init__, *filter(inspect.isroutine, own)]


def unexplained(public: object) -> set[str]:
    """Arguments that no docstring of a public name says a word about."""
    pages = [inspect.getdoc(each) or "" for each in [public, *functions_of(public)]]
    text = re.sub(r"^(>>>|\.\.\.).*", "", "\n".join(pages), flags=re.MULTILINE)
    named = {name for each in functions_of(public) for name in inspect.signature(each).parameters}
    return {name for name in named - {"self", "_cls"} if not re.search(rf"\b{name}\b", text)}


@pytest.mark.parametrize(("room", "name"), NAMES)
def test_a_docstring_says_what_each_argument_is(room, name):
    public = getattr(import_module(room), name)
    assert not unexplained(public)
    if inspect.isfunction(public) and inspect.signature(public).return_annotation is not None:
        assert re.search(r"Returns:|\bin [\[(]|copy", public.__doc__), "what comes back?"


def test_an_argument_left_out_is_noticed():
    def scale(values, factor):
        """Multiply ``values``.

        >>> scale([1], factor=2)
        """

    assert unexplained(scale) == {"factor"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_lives_there_in_ten_lines(room):
    module = import_module(room)
    assert module.__doc__
    assert not Path(module.__file__).stem == "__init__" or len(module.__doc__.splitlines()) <= 10
