"""One modality of a run: its contents, its encoder, and what it learns from.

Shape letters: N items, Q held-out searches, C distinct contents, F feature width, D vector width.
"""

import numpy as np
import torch
from torch import Tensor, nn

from torchrec_mm.data.item_content import ItemContent
from torchrec_mm.data.searches import Searches
from torchrec_mm.errors import InputError
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.pretraining.embedding import component_sample, encode_all, to_device
from torchrec_mm.pretraining.encoder import Encoder
from torchrec_mm.pretraining.pairs import ContentPool, make_pairs
from torchrec_mm.pretraining.tower import Inputs


class ModalityTask:
    """What the tower of one modality trains and is judged on.

    With a frozen backbone, features of every distinct content are computed once, here, and only
    the head is run from then on: 5 KB of memory for each picture, 1.5 KB for each text with the
    packaged encoders. Otherwise pictures and texts go through the whole encoder each time.

    trained: the module that turns ``load``'s inputs into unit vectors: head, or whole encoder.
    pairs: the PairSet to train on.
    """

    def __init__(
        self,
        modality: str,
        encoder: Encoder,
        items: ItemContent,
        searches: Searches,
        train_rows: np.ndarray,
        encode_batch_size: int,
        worker: Worker,
    ) -> None:
        self.modality, self.encoder, self.worker = modality, encoder.to(worker.device), worker
        self._encode_batch_size = encode_batch_size
        self._pool = ContentPool(items.by_modality[modality], searches.by_modality[modality])
        self.pairs = make_pairs(self._pool, searches.purchased, searches.hard, train_rows)
        if len(self.pairs) == 0:
            raise InputError(
                f"searches/ must hold a pair to train --modality {modality} on: none of "
                f"{len(train_rows)} searches has it in the query and in the purchased item"
            )
        in_sample = component_sample(self._pool.item_contents >= 0)
        sample = self._pool.item_contents[in_sample]
        frozen = encoder.backbone_is_frozen
        features = self._encode(
            encoder.backbone, np.arange(len(self._pool)) if frozen else sample, self._pool.load
        )
        self._features = features if frozen else None
        encoder.head.fit_principal_components(features[sample] if frozen else features)
        self.trained: nn.Module = encoder.head if frozen else encoder

    def load(self, contents: np.ndarray) -> Inputs:
        """(B,) int64 contents -> the inputs of ``trained``, on the worker's device."""
        if self._features is not None:
            return self._features[torch.from_numpy(contents)]
        return to_device(self._pool.load(contents), self.worker.device)

    def vectors(self, query_rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Vectors by the encoder as it is now; all ranks call it.

        Args:
            query_rows: (Q,) int64 searches.

        Returns:
            items (N, D) and queries (Q, D), unit length, zeros where missing.
        """
        of_items, of_queries = self._pool.item_contents, self._pool.query_contents[query_rows]
        wanted = np.union1d(of_items, of_queries)
        wanted = wanted[wanted >= 0]
        encoded = self._encode(self.trained, wanted, self.load)
        with_missing = torch.cat([encoded, encoded.new_zeros(1, encoded.shape[1])])
        return tuple(
            with_missing[
                torch.from_numpy(np.where(of >= 0, np.searchsorted(wanted, of), len(wanted)))
            ]
            for of in (of_items, of_queries)
        )

    def _encode(self, module: nn.Module, contents: np.ndarray, load) -> Tensor:
        label = f"{self.modality}: encode"
        return encode_all(
            module,
            load,
            contents,
            self._encode_batch_size,
            self.worker,
            label,
            self._pool.lengths[contents],
        )
