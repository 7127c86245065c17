"""Click probabilities of a ranker's checkpoint for any folder of requests, labelled or not.

python -m apps.predict --run_dir runs/id --requests market/requests/test --output scores.parquet
torchrun --nproc-per-node 2 -m apps.predict --run_dir runs/id --requests today \
    --output scores.parquet
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from torchrec_mm.columns.parquet import INT64
from torchrec_mm.columns.parquet_folder import ParquetFolder
from torchrec_mm.columns.text_ids import IdTexts, id_maps
from torchrec_mm.config import parse, run
from torchrec_mm.data.encode.encode import SCORED, encode_to_score
from torchrec_mm.data.encoded.encoded import EncodedRequests
from torchrec_mm.files import beside
from torchrec_mm.parallel.library_warnings import suppress_library_warnings
from torchrec_mm.parallel.process_group import on_first_rank, process_group
from torchrec_mm.scoring.evaluation import write_scores
from torchrec_mm.scoring.predictions import shared_folder
from torchrec_mm.scoring.score import ScoreSettings, open_vectors, score
from torchrec_mm.scoring.trained_run import TrainedRun
from torchrec_mm.targets import check_file
from torchrec_mm.train.encode_or_open import first_writes


@dataclass(frozen=True, kw_only=True)
class PredictConfig(ScoreSettings):
    """Score requests in batch, in one process or several, into one Parquet file.

    A row a request, in the order of the input (files by name, then rows): user_id, timestamp if
    every request has one, candidate_item_ids, and click_probabilities in their order.
    """

    run_dir: Path
    """Folder of a ranker run."""
    requests: Path
    """Folder of Parquet files like requests/test; labels, and columns that the run does not know,
    are not read, the latter named on stderr. Each request has at least one candidate; behaviours
    may be none."""
    output: Path
    """Parquet file to create or replace, whole or not at all; where all ranks can write."""
    items: Path | None = None
    """Folder like items/, holding every candidate; not given: items/ of the run's data. Ids that
    training never showed are scored by what is known of them: attributes and vectors."""
    ids: Path | None = None
    """Folder of maps from ids to texts, which apps.prepare writes; not given: ids/ of the data
    folder that requests/ lies in, if there. user_id and candidate_item_ids are then those texts"""
    vectors: Path | None = None
    """Folder of item vectors of the same encoder; not given: the run's."""


def main(argv: Sequence[str] | None = None) -> None:
    """Encode, score, write."""
    config = parse(PredictConfig, argv)
    trained = TrainedRun.open(config.run_dir, config.checkpoint)
    vectors = open_vectors(trained, config.vectors, config.vector_storage)
    items = config.items or trained.items
    encode = partial(
        encode_to_score,
        config.requests,
        items,
        max_behaviours=trained.behaviours_read,
        vocabularies=trained.vocabularies,
        at=config.at,
    )
    with suppress_library_warnings(), process_group() as worker:
        on_first_rank(lambda: check_file(config.output, "output", [config.requests, items]))
        with shared_folder(beside(config.output, "parts"), worker) as folder:
            first_writes(folder / "encoded", encode)
            data = EncodedRequests(folder / "encoded", SCORED)
            texts = _texts(config, data)
            scored = score(trained, data, vectors, config, worker)
            write_scores(scored, data, folder, worker, config.output, texts)
            if worker.is_first:
                print(
                    f"{len(data)} requests with {data.num_impressions} candidates scored by "
                    f"{trained.checkpoint}, written to {config.output}"
                )


def _texts(config: PredictConfig, data: EncodedRequests) -> dict[str, IdTexts]:
    """Of all users and items of the requests, where there is a map."""
    folder = config.ids
    if folder is None:
        above = config.requests.absolute().parent
        folder = above.parent / "ids"
        if above.name != "requests" or not folder.exists():
            return {}
    maps = id_maps(folder)
    ids = {"item_id": data.items.item_ids}
    if "user_id" in maps:
        ids["user_id"] = _user_ids(config.requests)
    return {name: IdTexts(file, ids[name]) for name, file in maps.items()}


def _user_ids(requests: Path) -> np.ndarray:
    """(U,) int64, each once."""
    users = np.empty(0, np.int64)
    for table, _ in ParquetFolder(requests).chunks({"user_id": INT64}):
        users = np.union1d(users, table["user_id"].to_numpy())
    return users


if __name__ == "__main__":
    sys.exit(run(main))
