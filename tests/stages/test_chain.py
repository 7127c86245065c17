"""A chain of stages of made-up commands: names of folders, flags, refusals."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from torchrec_mm.config import check_fields
from torchrec_mm.errors import InputError
from torchrec_mm.stages.chain import Chain


@dataclass(frozen=True)
class MixConfig:
    """Mix."""

    run_dir: Path
    """where to"""
    data: Path
    """of what"""
    speed: int = 1
    """how fast"""
    workers: int = 2
    """how many"""
    bowl: str = "steel"
    """a name or a folder"""

    def __post_init__(self) -> None:
        check_fields(self, lambda x: x >= 1, "at least 1", "speed")


@dataclass(frozen=True)
class BakeConfig:
    """Bake."""

    run_dir: Path
    """where to"""
    dough: Path
    """what apps.mix made"""
    minutes: float = 30.0
    """how long"""


@dataclass(frozen=True)
class TasteConfig:
    """Taste."""

    run_dir: Path
    """what apps.bake made"""


CONFIGS = {"mix": MixConfig, "bake": BakeConfig, "taste": TasteConfig}
LEFT_OUT = ("run_dir", "data", "dough", "workers")


def chain_of(run_dir: Path, inputs: str = "flour", data: str = "here", **flags) -> Chain:
    given = {app: flags.get(app, {}) for app in CONFIGS}
    chain = Chain(run_dir, CONFIGS, given, LEFT_OUT, ("bowl",))
    dough = chain.add("mix", {"data": data, "speed": 2}, {}, {"data": inputs}, in_one_move=True)
    cake = chain.add("bake", {}, {"dough": dough}, {})
    chain.add("taste", {}, {"run_dir": cake}, {})
    return chain


def changed(one: Chain, other: Chain) -> set[str]:
    return {
        app
        for app, stage in one.stages.items()
        if stage.fingerprint != other.stages[app].fingerprint
    }


@pytest.mark.parametrize(
    ("other", "stages"),
    [
        ({}, set()),
        ({"mix": {"speed": 2}}, set()),  # what it is anyway
        ({"mix": {"bowl": "steel"}}, set()),
        ({"mix": {"workers": 9}}, set()),
        ({"data": "there"}, set()),
        ({"mix": {"speed": 3}}, {"mix", "bake", "taste"}),
        ({"inputs": "rye"}, {"mix", "bake", "taste"}),
        ({"bake": {"minutes": 31}}, {"bake", "taste"}),
        ({"bake": {"minutes": "3e1"}}, set()),
    ],
)
def test_a_change_renames_its_stage_and_those_after_it_alone(tmp_path, other, stages):
    assert changed(chain_of(tmp_path), chain_of(tmp_path, **other)) == stages


def test_a_folder_given_by_name_counts_by_its_files(tmp_path):
    bowl = tmp_path / "bowl"
    bowl.mkdir()
    before = chain_of(tmp_path, mix={"bowl": str(bowl)})
    (bowl / "scratch").write_text("")
    assert changed(before, chain_of(tmp_path, mix={"bowl": str(bowl)})) == set(CONFIGS)


def test_each_stage_gets_a_folder_of_its_own_name_and_those_that_it_reads(tmp_path):
    mix, bake, taste = chain_of(tmp_path, mix={"workers": 9}).stages.values()
    for stage in (mix, bake, taste):
        assert stage.folder == tmp_path / f"{stage.app}-{stage.fingerprint[:8]}"
    assert mix.flags == {"data": "here", "speed": 2, "workers": 9, "run_dir": mix.folder}
    assert bake.flags == {"dough": mix.folder, "run_dir": bake.folder}
    assert taste.flags == {"run_dir": bake.folder}
    assert mix.in_one_move and not bake.in_one_move


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"bake": {"minute": 1}}, "bake: unknown flag: --minute"),
        ({"bake": {"minutes": "long"}}, "bake: --minutes must be a number, got long"),
        ({"mix": {"speed": 0}}, "mix: speed must be at least 1, got 0"),
    ],
)
def test_what_a_command_would_refuse_is_refused_after_its_name(tmp_path, flags, problem):
    with pytest.raises(InputError, match=f"^{problem}"):
        chain_of(tmp_path, **flags)
