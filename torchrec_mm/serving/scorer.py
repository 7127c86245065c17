"""A ranker's checkpoint that scores in one process: no process group, no optimizer, no files.

Shape letters: R requests, I impressions.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torchrec.modules.embedding_modules import EmbeddingBagCollection

from torchrec_mm.data.contract.requests import Requests
from torchrec_mm.data.encoded.arrays import EncodedItems, RequestArrays
from torchrec_mm.data.stream.batches import RequestBatch
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.codes import Codebooks
from torchrec_mm.parallel.cpu.lone import LoneTables
from torchrec_mm.parallel.cpu.quantised import QuantisedTables
from torchrec_mm.ranking.bias import BiasModel
from torchrec_mm.ranking.collators import collator_for_ranker, with_codes
from torchrec_mm.ranking.frozen_make import FrozenMake, ProjectedOnDemand
from torchrec_mm.ranking.ranker import Ranker
from torchrec_mm.ranking.spec import RankerSpec, spec_from_json
from torchrec_mm.ranking.zero_collision import build_zero_collision_tables
from torchrec_mm.runs.checkpoint import read_checkpoint
from torchrec_mm.runs.checkpoint_folders import folder_of
from torchrec_mm.runs.delta import Delta, last_delta
from torchrec_mm.scoring.trained_run import TrainedRun
from torchrec_mm.serving.catalogue import Catalogue
from torchrec_mm.serving.requests import RequestEncoder
from torchrec_mm.serving.vectors import Latest, VectorsOfBatch
from torchrec_mm.serving.weights import Weights


@dataclass(frozen=True)
class BiasScorer:
    """Method bias, which has no network."""

    model: BiasModel

    def logits(self, arrays: RequestArrays, items: EncodedItems) -> np.ndarray:
        return self.model.logits(arrays, items)


@dataclass(frozen=True)
class NetworkScorer:
    """Every other method. source: of item vectors. codebooks: of method codes, else None."""

    ranker: Ranker
    source: VectorsOfBatch | None
    make: FrozenMake | None
    codebooks: Codebooks | None
    max_behaviours: int

    @torch.no_grad()
    def logits(self, arrays: RequestArrays, items: EncodedItems) -> np.ndarray:
        """(I,) float32 of the batch's impressions, by the item vectors of this moment."""
        _, outputs = self.ranker(self.batch(arrays, items))
        return outputs.logits.numpy()

    def batch(self, arrays: RequestArrays, items: EncodedItems) -> RequestBatch:
        """What the ranker is given, of the item vectors of this moment."""
        vectors = self.source.begin() if self.source else None
        if self.codebooks is not None:
            assert vectors is not None  # codes are of vectors
            items = with_codes(items, vectors, self.codebooks)
        spec = self.ranker.network.spec
        collator = collator_for_ranker(spec, items, self.source, self.max_behaviours, self.make)
        return collator(arrays, 0.0)


@dataclass(frozen=True)
class Scorer:
    """Scores requests by one checkpoint, whichever its method; calls may come from any one thread.

    checkpoint: which one. encoder: of the requests. model: of what it gives. delta: the last that
    is in it, None of a run without. follows: checksum of that delta, empty if the checkpoint was
    loaded whole.
    """

    checkpoint: Path
    encoder: RequestEncoder
    model: BiasScorer | NetworkScorer
    delta: int | None = None
    follows: str = ""

    @classmethod
    def open(
        cls,
        trained: TrainedRun,
        items: Path,
        vectors: Latest | None = None,
        encoder: RequestEncoder | None = None,
        tables: Literal["fp32", "int8"] = "fp32",
    ) -> "Scorer":
        """Load a checkpoint: its tables, and one batch at a time, are what memory must hold.

        Args:
            trained: the run. items: folder in the layout of ``items/``, what is known of items.
            vectors: give those of now, of the run's origin; for methods that use any.
            encoder: of another checkpoint of the run, which has the same; else it is made.
            tables: how their rows are held, see ``QuantisedTables`` for int8.

        Raises:
            InputError: files that are missing, garbled or another run's; no tables to hold in int8.
        """
        encoder = encoder or encoder_of(trained, items)
        if trained.method == "bias":
            if tables != "fp32":
                raise InputError(f"tables must be fp32 for method bias, got {tables}")
            bias = BiasModel.from_tensors(read_checkpoint(trained.checkpoint, ""))
            return cls(trained.checkpoint, encoder, BiasScorer(bias))
        network = load_network(trained, vectors, tables)
        return cls(trained.checkpoint, encoder, network, last_delta(trained.checkpoint))

    def check(self, delta: Delta) -> None:
        """InputError unless this is what the delta starts from, and it fits."""
        head, step = delta.header, int(self.checkpoint.name.rpartition("-")[2])
        if head.base_step != step or (self.follows and head.follows != self.follows):
            rule = f"delta {head.number} must follow {self.checkpoint.name} {self.follows[:12]}"
            raise InputError(f"{rule}, got step {head.base_step} {head.follows[:12]}")
        assert isinstance(self.model, NetworkScorer)  # method bias has no deltas
        Weights(self.model.ranker).check(delta)

    def changed(self, delta: Delta) -> "Scorer":
        """The scorer after a delta that was checked, in the place of this one.

        Both are one model, which is written to: nobody may score meanwhile.
        """
        assert isinstance(self.model, NetworkScorer)
        Weights(self.model.ranker).put(delta)
        return replace(
            self,
            checkpoint=folder_of(self.checkpoint.parent, delta.header.step),
            delta=delta.header.number,
            follows=delta.checksum,
        )

    def logits(self, requests: Requests) -> np.ndarray:
        """(I,) float32 click log-odds of R requests, R > 0, request after request."""
        return self.model.logits(*self.encoder(requests))

    def probabilities(self, requests: Requests) -> np.ndarray:
        """(I,) float32 click probabilities, as ``apps.predict`` writes them."""
        return torch.from_numpy(self.logits(requests)).sigmoid().numpy()


def load_network(
    trained: TrainedRun, vectors: Latest | None, tables: Literal["fp32", "int8"] = "fp32"
) -> NetworkScorer:
    """The network of a checkpoint of any method but bias; arguments as of ``Scorer.open``."""
    spec = spec_from_json(trained.model["spec"])
    if spec.zero_collision and tables != "fp32":
        raise InputError(f"tables must be fp32 for a ranker with tables of raw ids, got {tables}")
    held = LoneTables if tables == "fp32" else QuantisedTables
    ranker = lone_ranker(spec, read_checkpoint(trained.checkpoint, "model."), held)
    source = VectorsOfBatch(vectors) if vectors else None
    make, newest = frozen(ranker, source), trained.config["max_behaviours"]
    return NetworkScorer(ranker, source, make, trained.codebooks, newest)


def encoder_of(trained: TrainedRun, items: Path) -> RequestEncoder:
    """What all checkpoints of a run have their requests encoded by."""
    catalogue = Catalogue.open(items, trained.vocabularies)
    return RequestEncoder.of(trained.vocabularies, catalogue, trained.behaviours_read)


def lone_ranker(
    spec: RankerSpec,
    tensors: dict[str, Tensor],
    held: type[LoneTables | QuantisedTables],
) -> Ranker:
    """A ranker that has ``tensors``, the model's of a checkpoint, and only scores.

    ``held``: what its tables become.
    """
    ranker = Ranker(spec)
    if ranker.zero_collision_tables is not None:
        ranker.zero_collision_tables = build_zero_collision_tables(
            spec.zero_collision, spec.embedding_dim, device="cpu"
        )
    for name, collection in list(ranker.named_children()):
        own = {
            key.removeprefix(f"{name}."): t
            for key, t in tensors.items()
            if key.startswith(f"{name}.")
        }
        if isinstance(collection, EmbeddingBagCollection):
            weights = {key.split(".")[1]: tensor for key, tensor in own.items()}
            setattr(ranker, name, held(collection, weights))
        else:
            collection.load_state_dict(own)
    return ranker.eval()


def frozen(ranker: Ranker, source: VectorsOfBatch | None) -> FrozenMake | None:
    """The ranker's MAKE, None for methods without."""
    make, spec = ranker.network.make, ranker.network.spec
    if make is None:
        return None
    assert source is not None and spec.make is not None  # whatever has MAKE has both
    further = [spec.sequences.index(event) for event in spec.make.sequences]
    return FrozenMake(make, ProjectedOnDemand(make, source), further)
