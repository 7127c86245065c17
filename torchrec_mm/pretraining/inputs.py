"""Where a run's content comes from: packed before, or packed on the way."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist

from torchrec_mm.data.pack import pack
from torchrec_mm.data.packed import PackedContent
from torchrec_mm.errors import InputError
from torchrec_mm.parallel.process_group import Worker


@contextmanager
def packed_content(
    data: Path | None,
    packed: Path | None,
    aside: Path,
    worker: Worker,
    modalities: Sequence[str],
    reuse: bool = False,
) -> Iterator[PackedContent]:
    """Packed content for the block. Collective.

    Args:
        data: items/ and searches/, packed by the first rank; None where ``packed`` is there.
        aside: where to pack to; gone when the block ends without an exception.
        modalities: what is needed of it.
        reuse: take what an interrupted run of the same config left at ``aside``.

    Raises:
        InputError: what ``pack`` refuses, on every rank; or a modality that was not packed.
    """
    if packed is not None:
        content = PackedContent.open(packed)
        for modality in modalities:
            if modality not in content.by_modality:
                raise InputError(
                    f"modality must be one that {packed} holds, "
                    f"{', '.join(content.by_modality)}, got {modality}"
                )
        yield content
        return
    problem: list[str | None] = [None]
    if worker.is_first and not (reuse and aside.exists()):
        shutil.rmtree(aside, ignore_errors=True)
        try:
            pack(data, aside, modalities)
        except InputError as error:
            problem = [str(error)]
    dist.broadcast_object_list(problem)
    if problem[0] is not None:
        raise InputError(problem[0])
    yield PackedContent.open(aside)
    dist.barrier()
    if worker.is_first:
        shutil.rmtree(aside, ignore_errors=True)
