"""Map every id of a data set to its table row, once.

python -m apps.encode --data DIR --run_dir ENCODED
"""

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torchrec_mm.config import check_fields, parse, run
from torchrec_mm.data.encode.encode import encode, encode_folder
from torchrec_mm.data.encode.taobao_mm import TaobaoMM
from torchrec_mm.data.encoded.frequency import ItemFrequency
from torchrec_mm.data.encoded.vocabulary import Vocabularies
from torchrec_mm.errors import InputError
from torchrec_mm.files import beside
from torchrec_mm.targets import check_new_folder


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """Write an encoded data set, which rankers read without looking at an id again.

    Memory grows with the number of distinct ids, not with that of requests; the disk must hold
    the result twice for a while. Of several processes the first works and the others wait.
    """

    data: Path
    """folder of items/ and requests/, and of features.yaml where columns are to be taken for other
    than their types say; or of the tables of TAOBAO-MM"""
    run_dir: Path
    """folder to create"""
    source: Literal["requests", "taobao_mm"] = "requests"
    """requests: items/ and requests/<split>; taobao_mm: {train,test}_samples,
    {train,test}_user_features and item_features as published, each a Parquet file, numbered parts
    of it or a folder"""
    splits: tuple[str, ...] = ("train", "test")
    """splits to encode"""
    min_count: int = 1
    """training occurrences from which an item has a table row of its own"""
    max_behaviours: int = 1000
    """behaviours of a request at most, the newest"""
    vocabulary: Path | None = None
    """encoded data set or ranker run whose vocabularies to use; not given: learned from train"""

    def __post_init__(self) -> None:
        check_fields(self, lambda number: number >= 1, "at least 1", "min_count", "max_behaviours")
        if not self.splits or len({*self.splits}) < len(self.splits):
            raise InputError(f"splits must name each split once, got {', '.join(self.splits)}")


def main(argv: Sequence[str] | None = None) -> None:
    """Read everything once, then map what is left of it on disk."""
    config = parse(EncodeConfig, argv)
    settings: dict[str, Any] = {"min_count": config.min_count}
    if config.vocabulary is not None:
        settings["vocabularies"] = Vocabularies.load(config.vocabulary / "vocabularies.safetensors")
        settings["frequency"] = ItemFrequency.load(config.vocabulary / "item_frequency.safetensors")
    if "WORLD_SIZE" not in os.environ:
        _encode(config, settings)
        return
    # Alone it needs no torch, which loads for seconds.
    from torchrec_mm.parallel.process_group import on_first_rank, process_group

    with process_group():
        on_first_rank(lambda: _encode(config, settings))


def _encode(config: EncodeConfig, settings: dict[str, Any]) -> None:
    reads = (config.data / "items", config.data / "requests", config.vocabulary)
    check_new_folder(config.run_dir, "run_dir", reads)
    if config.source == "requests":
        most = config.max_behaviours
        encode_folder(config.data, config.splits, config.run_dir, max_behaviours=most, **settings)
    else:
        _encode_taobao_mm(config, settings)


def _encode_taobao_mm(config: EncodeConfig, settings: dict[str, Any]) -> None:
    aside = beside(config.run_dir, "samples")
    aside.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=aside.parent, prefix=f"{aside.name}.") as scratch:
        source = TaobaoMM(config.data, config.splits, config.max_behaviours, Path(scratch))
        encode(source, config.run_dir, **settings)


if __name__ == "__main__":
    sys.exit(run(main))
