"""Items as an encoder reads them: decoded and tokenised in threads.

Shape letters: n items of a part, R items of a batch.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from threading import Lock
from typing import TypeVar

import numpy as np
import torch

from torchrec_mm.data.content.images import decode_images
from torchrec_mm.data.content.item_stream import ItemRows
from torchrec_mm.pretraining.encoder.item_encoder import ItemEncoder
from torchrec_mm.pretraining.encoder.side import Inputs, Side, side_of

Batch = TypeVar("Batch")
Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class ItemBatch:
    """A batch of items.

    rows: (R,) int64 of the part. side: what the encoder reads. corrupt: those of ``rows`` whose
    picture could not be decoded; they are without one in ``side``.
    """

    rows: np.ndarray
    side: Side
    corrupt: np.ndarray


class BatchLoader:
    """Makes the batches of a part, decoded and tokenised, on the encoder's device."""

    def __init__(
        self,
        encoder: ItemEncoder,
        *,
        max_image_pixels: int,
        batch_size: int,
        num_threads: int,
        device: torch.device,
    ) -> None:
        """Hold what turns contents into inputs.

        Args:
            encoder: which inputs are for: it has the tokeniser and the pictures' size.
            max_image_pixels: as in ``decode_images``.
            batch_size: items of a batch.
            num_threads: that decode and tokenise, one batch each.
            device: of the encoder.
        """
        by_modality = encoder.encoders
        self._tokenise = by_modality["text"].tokenise if "text" in by_modality else None
        self._one_at_a_time = Lock()  # a tokeniser is not made for threads
        self._image_size = next(iter(encoder.specs.values())).image_size
        self._max_image_pixels = max_image_pixels
        self._batch_size, self._num_threads, self._device = batch_size, num_threads, device

    def batches(self, items: ItemRows, rows: np.ndarray) -> Iterator[ItemBatch]:
        """Some rows (m,) of a part, texts of alike length together: less padding."""
        if items.texts is not None:
            lengths = [len(items.texts[row] or "") for row in rows]
            rows = rows[np.argsort(lengths, kind="stable")]
        starts = range(0, len(rows), self._batch_size)
        batches = [rows[start : start + self._batch_size] for start in starts]

        def load(batch: np.ndarray) -> ItemBatch:
            return self.load(items, batch)

        on_gpu = self._device.type == "cuda"
        for batch in load_in_threads(load, batches, self._num_threads, ahead=on_gpu):
            yield replace(batch, side=batch.side.to(self._device))

    def load(self, items: ItemRows, rows: np.ndarray) -> ItemBatch:
        """Decode and tokenise what the rows (R,) of a batch have; still in the host's memory."""
        inputs: dict[str, Inputs] = {}
        places, corrupt = {}, rows[:0]
        if items.pictures is not None:
            at = _present(items.pictures, rows)
            pictures = [found for row in rows if (found := items.pictures[row]) is not None]
            images, ok = decode_images(
                pictures, self._image_size, max_pixels=self._max_image_pixels
            )
            filler = images.new_zeros(1, *images.shape[1:])
            inputs["image"] = images[ok] if ok.any() else filler
            corrupt, places["image"] = rows[at[~ok]], at[ok]
        if items.texts is not None:
            assert self._tokenise is not None  # the encoder is of the items' modalities
            places["text"] = _present(items.texts, rows)
            texts = [found for row in rows if (found := items.texts[row]) is not None]
            with self._one_at_a_time:
                inputs["text"] = self._tokenise(texts or [""])
        side = side_of(len(rows), inputs, places)
        return ItemBatch(rows, side.pin_memory() if self._device.type == "cuda" else side, corrupt)


def _present(contents: Sequence[object], rows: np.ndarray) -> np.ndarray:
    """(k,) int64: which of the rows (R,) have a content."""
    return np.array([i for i, row in enumerate(rows) if contents[row] is not None], np.int64)


def load_in_threads(
    load: Callable[[Batch], Loaded], batches: Sequence[Batch], num_threads: int, ahead: bool
) -> Iterator[Loaded]:
    """``map(load, batches)``, ``num_threads`` of them at once.

    Args:
        load: what each thread does for one batch.
        batches: in order.
        num_threads: at least 1; at most twice as many loaded batches are in memory.
        ahead: load the next batches while the caller works, as suits a caller on a GPU. On the CPU
            both would compete for the cores in every operation: False lets them take turns.
    """
    with ThreadPoolExecutor(num_threads) as threads:
        loaded: list[Future[Loaded]] = []
        for start in range(0, len(batches), num_threads):
            group = batches[start : start + num_threads]
            loading = [threads.submit(load, batch) for batch in group]
            if not ahead:
                wait(loading)
            yield from (future.result() for future in loaded)
            loaded = loading
        yield from (future.result() for future in loaded)


def cores_of_process() -> int:
    """This process's share of the machine's cores, at least 1."""
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
