"""Pack items and searches once, for many runs of phase one.

python -m apps.pack --data DIR --run_dir DIR
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torchrec_mm.config import parse, run
from torchrec_mm.data.pack import pack
from torchrec_mm.data.packed import PackedContent
from torchrec_mm.files import refuse_existing


@dataclass(frozen=True)
class PackConfig:
    """Copy pictures and texts to where training can read them in any order, by memory mapping.

    apps.pretrain takes the result as --packed, and keeps the features of frozen backbones in it.
    """

    data: Path
    """folder that holds items/ and searches/"""
    run_dir: Path
    """folder to create"""
    modality: Literal["both", "image", "text"] = "both"
    """what to pack"""


def main(argv: Sequence[str] | None = None) -> None:
    """Pack, and say what was packed."""
    config = parse(PackConfig, argv)
    refuse_existing(config.run_dir)
    modalities = ("image", "text") if config.modality == "both" else (config.modality,)
    pack(config.data, config.run_dir, modalities)
    packed = PackedContent.open(config.run_dir)
    counts = ", ".join(
        f"{contents.present.sum()} of {len(contents.present)} with {modality}"
        for modality, contents in packed.by_modality.items()
    )
    print(
        f"{packed.num_items} items, {packed.num_searches} searches ({counts}) in {config.run_dir}"
    )


if __name__ == "__main__":
    sys.exit(run(main))
