"""Score requests/test with a ranker's checkpoint: exact AUC, GAUC, log loss, and slices.

python -m apps.evaluate --run_dir runs/id
torchrun --nproc-per-node 2 -m apps.evaluate --run_dir runs/id --data market
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchrec_mm.config import parse, run
from torchrec_mm.data.encoded.encoded import EncodedRequests
from torchrec_mm.errors import InputError
from torchrec_mm.files import write_json
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.parallel.library_warnings import suppress_library_warnings
from torchrec_mm.parallel.process_group import Worker, on_first_rank, process_group
from torchrec_mm.ranking.collators import rows_of_vectors
from torchrec_mm.scoring.evaluation import Evaluated, measure
from torchrec_mm.scoring.score import ScoreSettings, open_vectors, score
from torchrec_mm.scoring.trained_run import TrainedRun
from torchrec_mm.targets import check_file
from torchrec_mm.train.encode_or_open import encoded_requests, reads_of


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(ScoreSettings):
    """Load a sharded checkpoint, in one process or several, and measure it on requests/test.

    GAUC: the impression-weighted mean of each user's AUC over all of that user's test
    impressions, users with one class left out, ties one half.
    """

    run_dir: Path
    """Folder of a ranker run; metrics.json is written into it."""
    data: Path | None = None
    """Folder that holds items/ and requests/test; they are encoded first, as training was. Without
    data and encoded: what the run was trained on."""
    encoded: Path | None = None
    """Encoded data set that the run was trained on, instead of data; its split test is scored."""
    vectors: Path | None = None
    """Folder of item vectors of the same encoder, where they have moved or items were added."""
    predictions: Path | None = None
    """Parquet file to write every impression's logit to."""

    def __post_init__(self) -> None:
        if self.data and self.encoded:
            rule = "data must not be given with encoded"
            raise InputError(f"{rule}, got {self.data} and {self.encoded}")
        super().__post_init__()


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    config = parse(EvaluateConfig, argv)
    trained = TrainedRun.open(config.run_dir, config.checkpoint)
    vectors = open_vectors(trained, config.vectors, config.vector_storage)
    data, encoded = config.data, config.encoded
    if not data and not encoded:
        data, encoded = trained.input("data"), trained.input("encoded")
    if encoded and config.at:
        raise InputError(f"at must not be given for data that are encoded, {encoded}")
    with suppress_library_warnings(), process_group() as worker:
        on_first_rank(lambda: _check_targets(config, reads_of(data, encoded, config.vectors)))
        with encoded_requests(
            data,
            encoded,
            config.run_dir / ".encoded",
            worker,
            ("test",),
            max_behaviours=trained.behaviours_read,
            vocabularies=trained.vocabularies,
            at=config.at,
        ) as folder:
            test = EncodedRequests(folder, "test")
            trained.check_vocabulary(test)
            metrics = evaluate(config, trained, test, vectors, worker)
            if worker.is_first:
                write_json(config.run_dir / "metrics.json", metrics)
                print(in_a_line(metrics))


def _check_targets(config: EvaluateConfig, reads: list[Path]) -> None:
    check_file(config.run_dir / "metrics.json", "run_dir")
    if config.predictions:
        check_file(config.predictions, "predictions", reads)


def evaluate(
    config: EvaluateConfig,
    trained: TrainedRun,
    data: EncodedRequests,
    vectors: ItemVectors | None,
    worker: Worker,
) -> dict[str, Any]:
    """What metrics.json says, on the first rank. Collective."""
    scored = score(trained, data, vectors, config, worker)
    has_vector = rows_of_vectors(data.items, vectors) >= 0 if vectors else None
    evaluated = Evaluated(data, trained.frequency, has_vector)
    return measure(scored, evaluated, config.run_dir, worker, config.predictions) | {
        "method": method_name(trained.method, vectors),
        "vectors": vectors and {"encoder": vectors.encoder, "modality": vectors.modality},
        "seed": trained.config["seed"],
        "checkpoint": str(trained.checkpoint),
        **({"at": config.at} if config.at else {}),
    }


def in_a_line(metrics: dict[str, Any]) -> str:
    """The figures for the terminal."""
    return (
        f"{metrics['method']}: AUC {in_words(metrics['auc'])}, GAUC {in_words(metrics['gauc'])}, "
        f"log loss {in_words(metrics['log_loss'])} on {metrics['impressions']} impressions"
    )


def in_words(value: float | None) -> str:
    """Four digits, or that there is no such figure: all labels alike, or no weight."""
    return "undefined" if value is None else f"{value:.4f}"


def method_name(method: str, vectors: ItemVectors | None) -> str:
    """The method as tables call it: random vectors make it the control."""
    return f"{method}/random" if vectors and vectors.encoder == "random" else method


if __name__ == "__main__":
    sys.exit(run(main))
