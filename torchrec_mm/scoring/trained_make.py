"""A run of MAKE as the rankers that take it read it."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from torchrec_mm.data.encoded.encoded import EncodedRequests
from torchrec_mm.item_vectors.store import ItemVectors, check_origin
from torchrec_mm.ranking.make import MakeSpec, make_spec_from_json
from torchrec_mm.runs.checkpoint import read_checkpoint
from torchrec_mm.runs.checkpoint_folders import find_checkpoint
from torchrec_mm.runs.run_folder import CHECKPOINTS, read_run

logger = logging.getLogger(__name__)
COUNTED = ("requests", "impressions", "clicks")  # behaviours are cut as each model asks


@dataclass(frozen=True)
class TrainedMake:
    """The folder of a run of apps.train_make, and its model.json."""

    path: Path
    model: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> "TrainedMake":
        """InputError unless it is one."""
        return cls(path, read_run(path, "make")[1])

    def spec(self, vectors: ItemVectors) -> MakeSpec:
        """Its shape; InputError if it saw other ``vectors``."""
        check_origin(vectors, self.model["vectors"], f"make {self.path}")
        return make_spec_from_json(self.model["spec"])

    def weights(self) -> dict[str, Tensor]:
        """Of its latest checkpoint, by the names that ``MakeSpec.build`` gives them."""
        return read_checkpoint(find_checkpoint(self.path / CHECKPOINTS).folder, "model.make.")

    def has_folds_of(self, train: EncodedRequests) -> bool:
        """Whether there are folds, and the requests are those that they were made of.

        Of others it saw none: what its folds say of them is as good as of any request to come, and
        the ranker takes the mean. A line in the log says so.
        """
        learned = [self.model["train"][count] for count in COUNTED]
        found = [train.sizes[count] for count in COUNTED]
        has_folds = make_spec_from_json(self.model["spec"]).folds > 1
        if has_folds and learned != found:
            logger.warning(
                "make %s has folds of %s %s, and the ranker trains on %s: it takes the mean of all "
                "folds; if MAKE saw these requests, train it on the ranker's data",
                *(self.path, " / ".join(map(str, learned)), " / ".join(COUNTED)),
                " / ".join(map(str, found)),
            )
        return has_folds and learned == found
