"""Recipes: what is shipped can be read, and a mistake in one is named."""

from pathlib import Path

import pytest
import yaml

from tests.helpers.commands import files_of
from torchrec_mm.errors import InputError
from torchrec_mm.study import recipe
from torchrec_mm.study.recipe import SHIPPED, read_recipe

SMALL = {"title": "Small", "about": "Which?", "rows": {"id": {"method": "id"}}}


def read(folder: Path, **changed):
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump({**SMALL, **changed}))
    return read_recipe(str(file))


@pytest.mark.parametrize("name", [file.stem for file in SHIPPED.glob("*.yaml")])
def test_a_shipped_recipe_can_be_read_by_its_name(name):
    assert len(read_recipe(name).rows) >= 4


def test_every_question_of_the_paper_has_a_recipe():
    assert {file.stem for file in SHIPPED.glob("*.yaml")} == {
        *("integration", "methods", "pretraining", "epochs", "where", "design", "scaling", "quick")
    }


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"seedz": 3}, "unknown key: seedz"),
        ({"rows": {"id": {"method": "id", "trein": 1}}}, "unknown key: trein"),
        ({"rows": {"s": {"method": "simtier", "vectors": {"off": "own"}}}}, "option .off"),
        ({"rows": {}}, "rows must hold at least one entry, got none"),
        ({"rows": {"../id": {"method": "id"}}}, "rows must have plain names, got '../id'"),
        ({"rows": {"id": {"method": "id", "train": 2}}}, r"train must be in \(0, 1\], got 2"),
        ({"baselines": ["ids"]}, "ids must be among rows: others are compared with it"),
        ({"claims": [["id", "bias"]]}, "bias must be among rows"),
        ({"validation": 1}, r"validation must be in \(0, 1\), got 1"),
        ({"tune": []}, "tune must hold at least one entry, got none"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_by_name(tmp_path, changed, complaint):
    with pytest.raises(InputError, match=f"recipe.yaml .*{complaint}"):
        read(tmp_path, **changed)


def test_an_unknown_recipe_is_refused_with_those_that_there_are():
    with pytest.raises(InputError, match="one of design, epochs, .*, got integratoin"):
        read_recipe("integratoin")


def test_the_guides_recipe_is_one(tmp_path):
    guide = Path(recipe.__file__).with_name("README.md")
    (text,) = (content for name, content in files_of(guide).items() if name == "wide.yaml")
    (tmp_path / "wide.yaml").write_text(text)
    assert read_recipe(str(tmp_path / "wide.yaml")).rows["simtier, wide"].control == "id, wide"


def test_the_guide_names_every_recipe():
    text = Path(recipe.__file__).with_name("README.md").read_text()
    assert all(f"(recipes/{file.name})" in text for file in SHIPPED.glob("*.yaml"))
