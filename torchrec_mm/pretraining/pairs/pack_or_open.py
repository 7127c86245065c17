"""Where a run's content comes from: packed before, or packed on the way."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torchrec_mm.data.content.pack import pack
from torchrec_mm.data.content.packed import META, PackedContent
from torchrec_mm.errors import InputError
from torchrec_mm.files import beside, remove_unfinished
from torchrec_mm.parallel.process_group import Worker, on_first_rank


@contextmanager
def packed_content(
    data: Path | None,
    packed: Path | None,
    run_dir: Path,
    worker: Worker,
    modalities: Sequence[str] | None,
    goes_on: bool,
) -> Iterator[PackedContent]:
    """Packed content for the block. Collective.

    Args:
        data: items/ and searches/, packed by the first rank; None where ``packed`` is there.
        run_dir: of the run. Packed content lies beside it until the block ends; where the block
            raises after the run has begun, it stays for the next attempt.
        modalities: what is needed of it; None: what there is.
        goes_on: the run has begun before; packed content that it left is used.

    Raises:
        InputError: what ``pack`` refuses, on every rank; or a modality that was not packed.
    """
    if packed is not None:
        yield open_packed(packed, modalities or ())
        return
    aside = beside(run_dir, "packed")
    assert data is not None  # one of the two is given
    if not (goes_on and (aside / META).is_file()):
        on_first_rank(lambda: _pack_anew(data, aside, modalities))
    is_done = False
    try:
        yield PackedContent.open(aside)
        is_done = True
    finally:
        if worker.is_first and (is_done or not has_begun(run_dir)):
            _remove(aside)


def open_packed(packed: Path, modalities: Sequence[str]) -> PackedContent:
    """Content packed before; InputError for one that is not whole or lacks a modality."""
    content = PackedContent.open(packed)
    for modality in modalities:
        if modality not in content.by_modality:
            rule = f"modality must be one that {packed} holds, {', '.join(content.by_modality)}"
            raise InputError(f"{rule}, got {modality}")
    return content


def has_begun(run_dir: Path) -> bool:
    """Whether there is a run that could be gone on with."""
    return (run_dir / "config.yaml").is_file()


def _pack_anew(data: Path, aside: Path, modalities: Sequence[str] | None) -> None:
    _remove(aside)
    remove_unfinished(aside.parent, aside.name)
    pack(data, aside, modalities)


def _remove(aside: Path) -> None:
    (aside / META).unlink(missing_ok=True)  # first, so that what is left looks like nothing
    shutil.rmtree(aside, ignore_errors=True)
