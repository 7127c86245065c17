"""Item vectors from Parquet files of your own.

python -m apps.import_vectors --vectors DIR --run_dir DIR
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torchrec_mm.config import parse, run
from torchrec_mm.item_vectors.interchange import import_parquet
from torchrec_mm.targets import check_new_folder


@dataclass(frozen=True)
class ImportVectorsConfig:
    """Turn a folder of Parquet files into item vectors that rankers read."""

    vectors: Path
    """Folder of Parquet files, or one file: item_id int64 or text, vector list<float> or list<int8>
    of one length. Text becomes the number that apps.prepare gives it."""
    run_dir: Path
    """The item-vectors folder to create."""
    dtype: Literal["keep", "int8", "float32"] = "keep"
    """How the vectors are stored; keep: int8 stays int8, floats become float32."""
    encoder: str = "imported"
    """Who made the vectors; reports show it."""
    modality: Literal["image", "text", "fused"] = "fused"
    """What the vectors were made from; reports show it."""
    item_column: str = "item_id"
    """Column of the ids; 205 in TAOBAO-MM's scl_embedding_int8_p90."""
    vector_column: str = "vector"
    """Column of the vectors; 205_c in TAOBAO-MM's scl_embedding_int8_p90."""


def main(argv: Sequence[str] | None = None) -> None:
    config = parse(ImportVectorsConfig, argv)
    check_new_folder(config.run_dir, "run_dir", [config.vectors])
    import_parquet(
        config.vectors,
        config.run_dir,
        dtype=None if config.dtype == "keep" else config.dtype,
        encoder=config.encoder,
        modality=config.modality,
        columns=(config.item_column, config.vector_column),
    )


if __name__ == "__main__":
    sys.exit(run(main))
