"""Write the tables of a ranker's checkpoint to plain files, each of any size, in bounded memory.

python -m apps.export_tables --run_dir runs/id --output tables --format parquet
"""

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from torchrec_mm.config import parse, run
from torchrec_mm.data.contract.feature_names import table_name
from torchrec_mm.data.encoded.vocabulary import TABLES, rows_of_tables, said
from torchrec_mm.data.stream.batches import USER_ID
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_folder
from torchrec_mm.ranking.effects import EFFECTS
from torchrec_mm.ranking.spec import spec_from_json
from torchrec_mm.runs.checkpoint import checkpoint_shapes
from torchrec_mm.runs.checkpoint_folders import find_checkpoint
from torchrec_mm.runs.run_folder import CHECKPOINTS, read_run
from torchrec_mm.scoring.export import (
    RawTable,
    SavedTable,
    file_of,
    write_parquet,
    write_safetensors,
)
from torchrec_mm.scoring.trained_run import CODEBOOKS, VOCABULARIES
from torchrec_mm.targets import check_new_folder

LONGEST_NAME = 200  # of a file, its ending and what it is called while it is written apart
WRITERS = {"parquet": write_parquet, "safetensors": write_safetensors}


@dataclass(frozen=True)
class ExportTablesConfig:
    """Write every table as OUTPUT/request/FEATURE.FORMAT, OUTPUT/item/... or OUTPUT/behaviour/...

    One that several features share is OUTPUT/shared/TABLE.FORMAT.

    parquet: a row a table row, with the id or text it is of. safetensors: weights, and the ids of
    its rows from 2 on, of text hashes; row 0 is of unseen ids, row 1 of rare ones. A table of raw
    ids has the id that owns each row instead.
    """

    run_dir: Path
    """Folder of a ranker run."""
    output: Path
    """Folder to create."""
    format: Literal["parquet", "safetensors"] = "parquet"
    """What to write."""
    checkpoint: str = "latest"
    """Which of the run's checkpoints: latest, best (by test AUC in training) or its steps."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    config = parse(ExportTablesConfig, argv)
    read_run(config.run_dir, "ranker")
    checkpoint = find_checkpoint(config.run_dir / CHECKPOINTS, config.checkpoint).folder
    tables = dict(tables_of(checkpoint, config.run_dir))
    if not tables:
        raise InputError(f"{config.run_dir} must have tables, got a run of a method without them")
    check_new_folder(config.output, "output", [config.run_dir / CHECKPOINTS])
    with new_folder(config.output) as folder:
        for name, table in tqdm(tables.items(), desc="tables", disable=None):
            WRITERS[config.format](table, folder / f"{name}.{config.format}")


def tables_of(checkpoint: Path, run_dir: Path) -> Iterator[tuple[str, SavedTable | RawTable]]:
    """Tables by ``<group>/<feature>``; InputError for no vocabulary of their size."""
    vocabularies, codebooks = run_dir / VOCABULARIES, run_dir / CODEBOOKS
    groups = rows_of_tables(vocabularies)
    codes = rows_of_tables(codebooks)["item"] if codebooks.is_file() else {}
    groups["item"] |= codes
    vocabulary_of = {
        table_name(feature): (group, feature, feature)
        for group, features in groups.items()
        for feature in features
    }
    group_of = {feature: group for group, features in groups.items() for feature in features}
    shared = said(vocabularies, TABLES)
    for feature, called in shared.items():
        vocabulary_of[table_name(called)] = (group_of[feature], feature, called)
    if USER_ID in groups["request"]:
        vocabulary_of.setdefault(table_name(EFFECTS), ("request", USER_ID, EFFECTS))
    for key in checkpoint_shapes(checkpoint):
        if table := re.fullmatch(r"model\..*\.embedding_bags\.([^.]*)\.weight", key):
            if table[1] not in vocabulary_of:
                raise InputError(f"{vocabularies} must hold the ids of {table[1]}, got none")
            group, feature, called = vocabulary_of[table[1]]
            file = file_of(group, called, called if feature in shared else None)
            if len(name := file.partition("/")[2]) > LONGEST_NAME:
                raise InputError(
                    f"feature {called[:20]}... must have a name of at most {LONGEST_NAME} bytes "
                    f"to become a file, got {len(name)}"
                )
            if key.startswith("model.zero_collision_tables."):
                yield file, raw_table(checkpoint, key, run_dir, feature)
                continue
            ids = codebooks if feature in codes else vocabularies
            yield file, SavedTable(checkpoint, key, ids, f"{group}/{feature}")


def raw_table(checkpoint: Path, key: str, run_dir: Path, feature: str) -> RawTable:
    """A table of raw ids; the checkpoint has their owners beside it."""
    spec = spec_from_json(read_run(run_dir, "ranker")[1]["spec"])
    (owners,) = (
        name
        for name in checkpoint_shapes(checkpoint)
        if name.startswith("model.zero_collision_tables.")
        and name.endswith(f".{table_name(feature)}.ids")
    )
    return RawTable(checkpoint, key, owners, spec.zero_collision[feature].partitions)


if __name__ == "__main__":
    sys.exit(run(main))
