"""Item vectors as Parquet files, for any other system.

python -m apps.export_vectors --vectors DIR --run_dir DIR
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torchrec_mm.config import parse, run
from torchrec_mm.item_vectors.interchange import export_parquet
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.targets import check_new_folder


@dataclass(frozen=True)
class ExportVectorsConfig:
    """Write item vectors as Parquet, for any other system to read."""

    vectors: Path
    """Item-vectors folder to read."""
    run_dir: Path
    """Folder to create: Parquet with item_id int64 and vector list<int8> or list<float>."""


def main(argv: Sequence[str] | None = None) -> None:
    config = parse(ExportVectorsConfig, argv)
    check_new_folder(config.run_dir, "run_dir", [config.vectors])
    export_parquet(ItemVectors.open(config.vectors), config.run_dir)


if __name__ == "__main__":
    sys.exit(run(main))
