"""Item events to vectors, by the encoder of a run of phase one.

Shape letters: n events of a batch, m of them with a vector.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from torchrec_mm.data.content.item_stream import ItemRows
from torchrec_mm.item_vectors.live.log import Space
from torchrec_mm.item_vectors.store import DTYPES
from torchrec_mm.item_vectors.writer import as_stored
from torchrec_mm.near_line.events import ItemEvent
from torchrec_mm.near_line.updater import Encoded
from torchrec_mm.pretraining.embed.item_batches import BatchLoader
from torchrec_mm.pretraining.encoder.encoder_files import load_encoder, trained_modalities
from torchrec_mm.pretraining.encoder.fingerprint import origin_of
from torchrec_mm.pretraining.encoder.item_encoder import FUSED, MODALITIES

UNREADABLE = (
    "picture must be a JPEG, PNG or WebP that can be decoded, and there is no title instead"
)


class RunEncoder:
    """An ``EventEncoder`` whose vectors are those that apps.embed_items makes of the same items."""

    def __init__(
        self, run_dir: Path, *, modality: str | None, dtype: str, max_image_pixels: int
    ) -> None:
        """Load it.

        Args:
            run_dir: of apps.pretrain.
            modality: "image", "text" or "fused"; None: what the run trained.
            dtype: "int8" or "float32", how vectors are stored.
            max_image_pixels: a picture with more counts as one that cannot be decoded.

        Raises:
            InputError: no such run, or it was not trained for the modality.
        """
        trained = trained_modalities(run_dir)
        space = modality or (trained[0] if len(trained) == 1 else FUSED)
        self._wanted = MODALITIES if space == FUSED else (space,)
        saved = load_encoder(run_dir, self._wanted)
        self._encoder = saved.encoder.eval()
        self.origin = origin_of(saved.name, saved.encoder, space)
        self.space = Space(
            width=saved.encoder.widths[space],
            dtype=dtype,
            encoder=saved.name,
            modality=space,
            origin=self.origin,
        )
        self._loader = BatchLoader(
            saved.encoder,
            max_image_pixels=max_image_pixels,
            batch_size=1,  # batches are made before they come here
            num_threads=1,
            device=torch.device("cpu"),
        )

    @torch.inference_mode()
    def encode(self, events: Sequence[ItemEvent]) -> Encoded:
        item_ids = np.array([event.item_id for event in events], np.int64)
        pictures = [event.picture for event in events] if "image" in self._wanted else None
        texts = [event.title for event in events] if "text" in self._wanted else None
        batch = self._loader.load(ItemRows(item_ids, pictures, texts), np.arange(len(events)))
        made = self._encoder(batch.side)[self.space.modality].float().numpy()
        has = torch.stack(list(batch.side.mask.values())).any(0).numpy()
        vectors = np.zeros(made.shape, DTYPES[self.space.dtype])
        vectors[has] = as_stored(made[has], item_ids[has], self.space.dtype)
        broken = {int(place): UNREADABLE for place in batch.corrupt if not has[place]}
        return Encoded(vectors, has, broken)
