"""Pack items/ and searches/ for phase one, once for many runs of apps.pretrain.

python -m apps.pack --data DIR --run_dir PACKED
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from torchrec_mm.config import parse, run
from torchrec_mm.data.content.content_columns import MODALITIES
from torchrec_mm.data.content.pack import pack
from torchrec_mm.data.content.packed import PackedContent
from torchrec_mm.parallel.process_group import on_first_rank, process_group
from torchrec_mm.targets import check_new_folder


@dataclass(frozen=True)
class PackConfig:
    """Write pictures, texts and clicks as apps.pretrain --packed reads them.

    Of several processes the first works and the others wait.
    """

    data: Path
    """folder that holds items/ and searches/"""
    run_dir: Path
    """folder to create"""
    modality: Literal["auto", "both", "image", "text"] = "auto"
    """what to pack; auto: what items/ has a column of"""


def main(argv: Sequence[str] | None = None) -> None:
    """Pack, then say what."""
    config = parse(PackConfig, argv)
    given: dict[str, Sequence[str] | None] = {"auto": None, "both": MODALITIES}
    modalities = given.get(config.modality, [config.modality])
    with process_group() as worker:
        on_first_rank(lambda: _pack(config, modalities))
        if worker.is_first:
            print(_sentence(PackedContent.open(config.run_dir)))


def _pack(config: PackConfig, modalities: Sequence[str] | None) -> None:
    reads = (config.data / "items", config.data / "searches")
    check_new_folder(config.run_dir, "run_dir", reads)
    pack(config.data, config.run_dir, modalities)


def _sentence(packed: PackedContent) -> str:
    parts = []
    for modality, contents in packed.by_modality.items():
        content = contents.content
        distinct = int((content == np.arange(len(content))).sum())
        parts.append(f"{distinct} distinct of {contents.present.sum()} {modality}s")
    return f"packed {packed.num_items} items and {packed.num_searches} searches: {', '.join(parts)}"


if __name__ == "__main__":
    sys.exit(run(main))
