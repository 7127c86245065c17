"""What came to a live index becomes its next snapshot, or the last publish is undone.

python -m apps.publish_vectors --index DIR
python -m apps.publish_vectors --index DIR --vectors vectors
python -m apps.publish_vectors --index DIR --roll_back
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torchrec_mm.config import check_fields, parse, run
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.live.index import LMDB, adopt, create_index, has_index, space_of
from torchrec_mm.item_vectors.live.pointer import KEEP, read_pointer
from torchrec_mm.item_vectors.live.publish import publish, roll_back
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.targets import check_new_folder


@dataclass(frozen=True, kw_only=True)
class PublishVectorsConfig:
    """Publish a live index of item vectors: readers switch in one step, and go on meanwhile."""

    index: Path
    """folder of the live index, made by --vectors or by apps.update_vectors"""
    vectors: Path | None = None
    """item vectors to begin with: the first snapshot of a new index, or of a new space in it"""
    log: str | None = None
    """with the --vectors of a new index only: lmdb, a log in the folder, the default; or
    redis://HOST:PORT/DB, one that several hosts share, its password in REDIS_PASSWORD"""
    space: str | None = None
    """origin of the vectors to publish and to serve from now on, where the index has several; by
    default what it serves"""
    keep: int = KEEP
    """snapshots that can be gone back to, this one included; older ones are removed"""
    roll_back: bool = False
    """serve what was served before the last publish; within a space nothing that came after is
    followed until the next publish"""

    def __post_init__(self) -> None:
        """Refuse values out of range, and flags that would not be heeded."""
        check_fields(self, lambda x: x >= 1, "at least 1", "keep")
        if (self.roll_back or self.vectors) and self.space:
            rule = "space must be left out with roll_back or vectors"
            raise InputError(f"{rule}, got {self.space}")
        if self.roll_back and self.vectors:
            raise InputError(f"vectors must be left out with roll_back, got {self.vectors}")
        if self.log and not self.vectors:
            raise InputError(f"log must be left out without vectors, got {self.log}")


def main(argv: Sequence[str] | None = None) -> None:
    """Do it, and say what is served."""
    config = parse(PublishVectorsConfig, argv)
    if config.roll_back:
        roll_back(config.index)
    elif config.vectors:
        _adopt(config, ItemVectors.open(config.vectors))
    else:
        publish(config.index, space=config.space, keep=config.keep)
    now = read_pointer(config.index).now
    snapshot, vectors = now.snapshots[now.space], ItemVectors.open(config.index)
    print(
        f"{config.index} serves {len(vectors)} items of {now.space}, snapshot {snapshot.version}"
        + ("" if snapshot.follows else ", and nothing that came after it")
    )


def _adopt(config: PublishVectorsConfig, vectors: ItemVectors) -> None:
    if not has_index(config.index):
        check_new_folder(config.index, "index", [config.vectors])
        create_index(config.index, space_of(vectors), config.log or LMDB)
    elif config.log:
        raise InputError(f"log must be left out of an index that is there, got {config.log}")
    adopt(config.index, vectors)


if __name__ == "__main__":
    sys.exit(run(main))
