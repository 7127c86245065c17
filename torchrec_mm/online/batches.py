"""Requests of a window to batches: encoded as a scorer encodes, collated as a trainer does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torchrec_mm.data.contract.requests import Requests
from torchrec_mm.data.stream.batch_limits import BatchLimits
from torchrec_mm.data.stream.loader import RequestLoader
from torchrec_mm.data.stream.vector_source import GatheredVectors
from torchrec_mm.item_vectors.codes import Codebooks
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.online.window_data import WindowData
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.parallel.sharded_vectors import collates_ahead
from torchrec_mm.ranking.collators import attended_behaviours, collator_for_ranker, with_codes
from torchrec_mm.ranking.frozen_make import FrozenMake, ProjectedOnDemand
from torchrec_mm.ranking.ranker import Ranker
from torchrec_mm.serving.requests import RequestEncoder, together
from torchrec_mm.train.settings import TrainSettings


@dataclass(frozen=True)
class WindowBatches:
    """Makes a window's loaders. latest: gives the item vectors of now, None for methods without."""

    ranker: Ranker
    encoder: RequestEncoder
    latest: Callable[[], ItemVectors] | None
    codebooks: Codebooks | None
    max_behaviours: int
    settings: TrainSettings
    worker: Worker

    def loader(self, parts: Sequence[Requests], files: Sequence[str]) -> RequestLoader:
        """This rank's share of a window, in the order in which the requests came.

        All of it goes by the item vectors of one moment. Of a MAKE of several folds, as none of
        them has seen these requests, they get the mean.
        """
        arrays, items = self.encoder(together(parts))
        data = WindowData(arrays, items, files)
        spec = self.ranker.network.spec
        vectors = self.latest() if self.latest else None
        source = None if vectors is None else GatheredVectors(vectors)
        if self.codebooks is not None:
            assert vectors is not None  # codes are of vectors
            items = with_codes(items, vectors, self.codebooks)
        make = None if source is None else self._make(source)
        attended = attended_behaviours(spec, self.max_behaviours)
        return RequestLoader(
            data,
            collator_for_ranker(spec, items, source, self.max_behaviours, make),
            BatchLimits.to_learn(
                self.settings.batch_requests,
                behaviours=self.settings.batch_behaviours,
                attended=attended,
            ),
            rank=self.worker.rank,
            world_size=self.worker.world_size,
            pin_memory=self.worker.device.type == "cuda",
            collate_ahead=collates_ahead(source, self.worker),
        )

    def _make(self, source: GatheredVectors) -> FrozenMake | None:
        make, spec = self.ranker.network.make, self.ranker.network.spec
        if make is None:
            return None
        assert spec.make is not None  # its shape
        further = [spec.sequences.index(event) for event in spec.make.sequences]
        return FrozenMake(make, ProjectedOnDemand(make, source), further)
