"""A ranker's run as it is described for scoring: which checkpoint, and where its inputs are."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchrec_mm.data.encoded.encoded import EncodedRequests
from torchrec_mm.data.encoded.frequency import ItemFrequency
from torchrec_mm.data.encoded.vocabulary import Vocabularies
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_file
from torchrec_mm.item_vectors.codes import Codebooks
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.parallel.plan_files import PLAN_FILE
from torchrec_mm.parallel.process_group import on_first_rank
from torchrec_mm.parallel.sharding import TableOptions
from torchrec_mm.parallel.tables import read_tables
from torchrec_mm.ranking.spec import RankerSpec, spec_to_json
from torchrec_mm.runs.checkpoint_folders import find_checkpoint
from torchrec_mm.runs.run_folder import CHECKPOINTS, RunFolder, read_run

VOCABULARIES, FREQUENCY = "vocabularies.safetensors", "item_frequency.safetensors"
CODEBOOKS = "codebooks.safetensors"  # of method codes


def behaviours_read(method: str) -> str:
    """The flag that says how many of a request's newest behaviours the model looks at."""
    return "searched_behaviours" if method == "muse" else "max_behaviours"


def write_ranker(
    run_folder: RunFolder,
    method: str,
    train: EncodedRequests,
    vectors: ItemVectors | None = None,
    spec: RankerSpec | None = None,
    is_crosswise: bool = False,
) -> None:
    """Write what ``TrainedRun`` reads, but for the config and checkpoints. Collective.

    Args:
        train: what is learned from. vectors: those of the method, if it has any.
        spec: of the network, None for method bias.
        is_crosswise: whether each of the requests meets the MAKE that did not see it.

    Raises:
        InputError: the run that is resumed is of another model, or of other data.
    """
    model = {
        "kind": "ranker",
        "method": method,
        "vectors": vectors.origin if vectors else None,
        "vocabulary": train.meta["vocabulary"],
        "train": train.sizes,
        "spec": spec_to_json(spec) if spec else None,
    }
    if spec and spec.make and spec.make.folds > 1:
        model["crosswise"] = is_crosswise
    run_folder.write_model(model)
    if run_folder.worker.is_first:
        for name in (VOCABULARIES, FREQUENCY):
            with new_file(run_folder.path / name) as aside:
                shutil.copyfile(train.folder / name, aside)
    if vectors and method == "codes":
        on_first_rank(lambda: freeze_codebooks(vectors, run_folder.path / CODEBOOKS))


def freeze_codebooks(vectors: ItemVectors, path: Path) -> None:
    """Learn a run's codebooks, unless it is one that is resumed, and has them."""
    if not path.is_file():
        Codebooks.learn(vectors).save(path)


@dataclass(frozen=True)
class TrainedRun:
    """A ranker's run folder, and one of its checkpoints.

    config: config.yaml. model: model.json. checkpoint: folder.
    """

    path: Path
    config: dict[str, Any]
    model: dict[str, Any]
    checkpoint: Path

    @classmethod
    def open(cls, path: Path, checkpoint: str) -> "TrainedRun":
        """Read a run; ``checkpoint``: latest, best or its steps; InputError if there is none."""
        config, model = read_run(path, "ranker")
        return cls(path, config, model, find_checkpoint(path / CHECKPOINTS, checkpoint).folder)

    @property
    def method(self) -> str:
        return self.model["method"]

    @property
    def behaviours_read(self) -> int:
        """Newest behaviours of a request that the model looks at."""
        return self.config[behaviours_read(self.method)]

    @property
    def vocabularies(self) -> Vocabularies:
        """The ids of the model's rows; InputError if they are missing or not the run's."""
        path = self.path / VOCABULARIES
        vocabularies, wanted = Vocabularies.load(path), self.model["vocabulary"]
        if vocabularies.fingerprint != wanted:
            rule = f"{path} must be the vocabularies that the run was trained with, {wanted[:12]}"
            raise InputError(f"{rule}, got {vocabularies.fingerprint[:12]}")
        return vocabularies

    @property
    def codebooks(self) -> Codebooks | None:
        """What the run's semantic codes mean; None for another method."""
        return Codebooks.load(self.path / CODEBOOKS) if self.method == "codes" else None

    @property
    def frequency(self) -> ItemFrequency:
        return ItemFrequency.load(self.path / FREQUENCY)

    @property
    def tables(self) -> TableOptions:
        """What training asked of the tables; a plan that it followed is in its own folder again."""
        plan = self.path / PLAN_FILE if self.config.get("plan") else None
        return TableOptions(read_tables(self.config.get("tables") or {}), plan=plan)

    @property
    def items(self) -> Path:
        """items/ that the run was trained on; InputError if encoded data were, or they are gone."""
        data = self.input("data", flag="items")
        if data is None:
            rule = f"items must be given: {self.path} was trained on an encoded data set"
            raise InputError(f"{rule}, {self.config['encoded']}, which does not hold them")
        return data / "items"

    def check_vocabulary(self, data: EncodedRequests) -> None:
        """Refuse requests that were encoded for another model: their rows mean other ids."""
        wanted, found = self.model["vocabulary"], data.meta["vocabulary"]
        if wanted != found:
            rule = f"encoded must have the vocabulary of {self.path}, {wanted[:12]}"
            raise InputError(f"{rule}, got {found[:12]} in {data.folder}")

    def input(self, name: str, flag: str = "") -> Path | None:
        """The folder that the run's config names, None where it names none.

        Args:
            name: data, encoded or vectors.
            flag: which says where it is now, ``name`` if empty.

        Raises:
            InputError: it is gone.
        """
        named = self.config.get(name)
        if named is None:
            return None
        if not Path(named).exists():
            config = self.path / "config.yaml"
            raise InputError(f"{flag or name} must be given: {config} names {named}, which is gone")
        return Path(named)
