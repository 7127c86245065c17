"""Every way to train encoders, on several seeds: the ablation table of phase one.

python -m apps.compare_encoders --data market --run_dir runs/encoders --flags '{epochs: 10}'
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from torchrec_mm.commands import call
from torchrec_mm.config import check_fields, flag_words, parse, run
from torchrec_mm.documents import read_json, read_yaml
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_file, write_json
from torchrec_mm.pretraining.judge.ablation import ENCODERS, OFF_THE_SHELF, plan
from torchrec_mm.reporting.encoder_table import encoder_rows, to_markdown
from torchrec_mm.stages.claim import claimed
from torchrec_mm.stages.jobs import Job, run_side_by_side
from torchrec_mm.targets import check_working_folder

from .pretrain import PretrainConfig, settled

DEFAULTS = {"holdout_by": "item"}
OWN_FLAGS = ("config", "data", "packed", "run_dir", "method", "seed", "resume")
CLAIM_FILE, RESULT_FILE = "comparison.yaml", "retrieval.json"
INTERVAL_NOTE = (
    "± is half the 95 % confidence interval over the seeds of training (Student's t). The held-out "
    "searches are the same in every run: how much other searches would differ is not in it."
)


@dataclass(frozen=True, kw_only=True)
class CompareEncodersConfig:
    """Train and judge all encoders on the same searches, for as many steps; write the table.

    The table is encoders.json and encoders.md. Runs that are finished already are skipped and
    broken-off ones go on, so an interrupted comparison goes on too.
    """

    run_dir: Path
    """Folder to create: packed content, a run folder for each encoder and seed, the table."""
    data: Path | None = None
    """Folder that holds items/ and searches/, packed on the way; either this or --packed."""
    packed: Path | None = None
    """What apps.pack made of them."""
    encoders: tuple[str, ...] = tuple(ENCODERS)
    """Which to compare: off-the-shelf, clip-e (an item's title and picture), scl, scl-no-bank,
    scl-no-triplet, co-click (two items of a search)."""
    flags: dict[str, Any] = field(default_factory=dict)
    """Further flags of apps.pretrain for every run, {name: value}. Epochs are SCL's; the others get
    the whole number of epochs closest to as many steps. holdout_by is item unless given."""
    seeds: int = 3
    """Runs of each encoder; the off-the-shelf encoder depends on no seed and is judged once."""
    seed: int = 0
    """Of the first run of each encoder."""
    processes: int = 1
    """Encoders trained side by side; they share the cores."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if (self.data is None) == (self.packed is None):
            rule = "either data or packed must be given"
            raise InputError(f"{rule}, got {self.data} and {self.packed}")
        check_fields(self, lambda x: x >= 1, "at least 1", "seeds", "processes")
        for name in self.encoders:
            if name not in ENCODERS:
                raise InputError(f"encoders must be some of {', '.join(ENCODERS)}, got {name}")
        for name in self.flags:
            if name in OWN_FLAGS:
                raise InputError(f"flags must not hold {name}, which each run has its own of")

    @property
    def content(self) -> Path:
        """Where the packed content is."""
        return self.packed or self.run_dir / "packed"

    def seeds_of(self, encoder: str) -> range:
        """The seeds that an encoder is trained with."""
        return range(self.seed, self.seed + (1 if encoder == OFF_THE_SHELF else self.seeds))

    def run_of(self, encoder: str, seed: int) -> Path:
        """The run folder of an encoder."""
        return self.run_dir / f"{encoder}-{seed}"


def main(argv: Sequence[str] | None = None) -> None:
    """Pack, train, judge, write the table."""
    config = parse(CompareEncodersConfig, argv)
    comparison = prepare(config)
    jobs = comparison.jobs
    cores = os.cpu_count() or 1
    run_side_by_side(
        jobs[:1], 1, threads=cores
    )  # leaves the features of frozen backbones for the others
    run_side_by_side(jobs[1:], config.processes, threads=max(1, cores // config.processes))
    print(write_table(config, comparison))


@dataclass(frozen=True)
class Comparison:
    """What a comparison trains. jobs: a run each. encoders: names. notes: of the table."""

    jobs: list[Job]
    encoders: list[str]
    notes: list[str]


def prepare(config: CompareEncodersConfig) -> Comparison:
    """Take the folder and pack; nothing is trained yet."""
    check_working_folder(config.run_dir, "run_dir")
    scl = _scl_settings(config)
    _claim(config)
    from torchrec_mm.data.content.packed import PackedContent

    if not config.content.exists():
        flags = ("--data", config.data, "--run_dir", config.content, "--modality", scl.modality)
        call("pack", *flags)
    scl = settled(scl, PackedContent.open(config.content))
    encoders, notes = plan(config.encoders, asdict(scl), *_pairs(config, scl))
    jobs = [
        _job(config, encoder, seed, flags)
        for encoder, flags in encoders.items()
        for seed in config.seeds_of(encoder)
    ]
    return Comparison(jobs, list(encoders), [*notes, INTERVAL_NOTE])


def _scl_settings(config: CompareEncodersConfig) -> PretrainConfig:
    """The flags checked, and what they leave out by default."""
    flags = DEFAULTS | config.flags | {"packed": config.content, "run_dir": config.run_dir}
    settings = parse(PretrainConfig, flag_words(flags))
    check_fields(settings, lambda x: x >= 1, "at least 1", "epochs")
    return settings


def _claim(config: CompareEncodersConfig) -> None:
    """Take the folder, or go on if data and flags are as before; InputError for anything else."""
    source = config.data or config.content
    now = {"data": str(source.resolve()), "flags": config.flags}
    claimed(config.run_dir, CLAIM_FILE, yaml.safe_dump(now, sort_keys=False))
    before = read_yaml(config.run_dir / CLAIM_FILE)
    for name, value in now.items():
        if before[name] != value:
            rule = f"{name} must stay as the comparison in {config.run_dir} began, {before[name]}"
            raise InputError(f"{rule}, got {value}")


def _pairs(config: CompareEncodersConfig, scl: PretrainConfig) -> tuple[dict[str, int], bool]:
    """Training pairs of each method, and whether any search has a hard negative."""
    from torchrec_mm.data.content.packed import PackedContent
    from torchrec_mm.pretraining.pairs.methods import Method, training_pairs, unseen_items
    from torchrec_mm.pretraining.pairs.pairs import PairSet

    packed = PackedContent.open(config.content)
    train, _ = packed.split(scl.holdout, scl.holdout_by)
    unseen = unseen_items(packed, scl.holdout, scl.holdout_by)
    methods: list[Method] = ["scl", "co-click"]
    if scl.modality == "both":
        methods.append("clip-e")
    pairs = {name: training_pairs(packed, name, scl.modalities, train, unseen) for name in methods}
    of_scl = pairs["scl"]
    assert isinstance(of_scl, PairSet)
    return {name: len(of) for name, of in pairs.items()}, bool((of_scl.hard >= 0).any())


def _job(config: CompareEncodersConfig, encoder: str, seed: int, flags: dict[str, Any]) -> Job:
    run_dir = config.run_of(encoder, seed)
    own = {"packed": config.content, "run_dir": run_dir, "seed": seed, "resume": True}
    words = flag_words(DEFAULTS | config.flags | flags | own)
    return Job((("pretrain", words),), run_dir / RESULT_FILE)


def write_table(config: CompareEncodersConfig, comparison: Comparison) -> str:
    """Write the table of the runs that are done; its Markdown."""
    encoders, notes = comparison.encoders, comparison.notes
    reports = {
        encoder: {
            seed: read_json(config.run_of(encoder, seed) / RESULT_FILE)
            for seed in config.seeds_of(encoder)
        }
        for encoder in encoders
    }
    if OFF_THE_SHELF in reports:  # stands beside the runs of every seed
        (run,) = reports[OFF_THE_SHELF].values()
        report = run[OFF_THE_SHELF]  # as it came, not as the run's heads have it
        reports[OFF_THE_SHELF] = dict.fromkeys(config.seeds_of("scl"), report)
    rows = encoder_rows(reports)
    write_json(config.run_dir / "encoders.json", {"encoders": rows, "notes": notes})
    text = to_markdown(rows, notes)
    with new_file(config.run_dir / "encoders.md") as aside:
        aside.write_text(text, encoding="utf-8")
    return text


if __name__ == "__main__":
    sys.exit(run(main))
