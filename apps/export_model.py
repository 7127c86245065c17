"""Write a ranker's dense part as a program that PyTorch alone loads.

python -m apps.export_model --run_dir runs/simtier --output exported
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torchrec_mm.config import parse, run
from torchrec_mm.errors import InputError
from torchrec_mm.exporting.export import trial_of, write_program
from torchrec_mm.files import new_folder
from torchrec_mm.parallel.library_warnings import suppress_library_warnings
from torchrec_mm.scoring.score import open_vectors
from torchrec_mm.scoring.trained_run import TrainedRun
from torchrec_mm.serving.scorer import load_network
from torchrec_mm.targets import check_new_folder


@dataclass(frozen=True, kw_only=True)
class ExportModelConfig:
    """Write OUTPUT/program.pt2, and in program.json what it takes; apps.export_tables has the rest.

    Embeddings and item vectors go in, click probabilities come out, of any number of requests,
    candidates and behaviours. It is compared with the scorer first, on requests that are drawn.
    """

    run_dir: Path
    """Folder of a ranker run, of any method but bias."""
    output: Path
    """Folder to create."""
    vectors: Path | None = None
    """Folder of item vectors of the same encoder; not given: the run's."""
    aot: bool = False
    """Write compiled.pt2 as well, a library for x86-64 with AVX2: faster, and no longer portable.
    It needs a C++ compiler here, and none where it is loaded."""
    checkpoint: str = "latest"
    """Which of the run's checkpoints: latest, best (by test AUC in training) or its steps."""


def main(argv: Sequence[str] | None = None) -> None:
    """Load, export, compare, write."""
    config = parse(ExportModelConfig, argv)
    trained = TrainedRun.open(config.run_dir, config.checkpoint)
    if trained.method == "bias":
        rule = "run_dir must be of a method with a network"
        raise InputError(f"{rule}, got {config.run_dir} of method bias")
    check_new_folder(config.output, "output", [config.run_dir])
    vectors = open_vectors(trained, config.vectors, "mapped")
    with suppress_library_warnings(), new_folder(config.output) as folder:
        model = load_network(trained, (lambda: vectors) if vectors else None)
        told = write_program(trained, trial_of(trained, model, vectors), folder, config.aot)
    print(
        f"{trained.checkpoint} exported in {told.export_s:.1f} s, loaded in {told.load_s:.1f} s, "
        f"{told.bytes >> 10} KB; differs from the scorer by {told.difference:.1e}, written to "
        f"{config.output}"
    )
    if told.compiled_difference is not None:
        print(f"compiled for AVX2; differs from the scorer by {told.compiled_difference:.1e}")


if __name__ == "__main__":
    sys.exit(run(main))
