"""Both phases as a chain of stages, each skipped where its result is there already.

python -m apps.pipeline --data market --run_dir runs/market
python -m apps.pipeline --data market --run_dir runs/market --processes 2 \
    --pretrain '{epochs: 3}' --train_ranker '{embedding_dim: 32}'
python -m apps.pipeline --data market --run_dir runs/market --method simtier --vectors vectors

pack -> pretrain -> embed_items --+-> train_make --+-> train_ranker -> evaluate
encode ---------------------------+----------------+----------------> (read by all three)
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torchrec_mm.columns.files import data_files, nothing, pictures
from torchrec_mm.config import check_fields, parse, run
from torchrec_mm.documents import read_json
from torchrec_mm.errors import InputError
from torchrec_mm.files import write_json
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.runs.run_folder import MAY_CHANGE
from torchrec_mm.stages.chain import Chain
from torchrec_mm.stages.fingerprint import files_signature, path_signature
from torchrec_mm.stages.launch import Launch, run_stage
from torchrec_mm.stages.stage import Stage
from torchrec_mm.targets import check_working_folder

from .embed_items import EmbedConfig
from .encode import EncodeConfig
from .evaluate import EvaluateConfig, in_words
from .pack import PackConfig
from .pretrain import PretrainConfig
from .train_make import TrainMakeConfig
from .train_ranker import TrainRankerConfig

CONFIGS: dict[str, type] = {
    "pack": PackConfig,
    "pretrain": PretrainConfig,
    "embed_items": EmbedConfig,
    "encode": EncodeConfig,
    "train_make": TrainMakeConfig,
    "train_ranker": TrainRankerConfig,
    "evaluate": EvaluateConfig,
}

# What the chain itself gives each stage.
WIRES = ("data", "packed", "encoder", "encoded", "vectors", "make", "run_dir")
OWN = {*WIRES, "config", "resume"}
OWN_OF = {
    "train_ranker": {"method", "min_count", "searched_behaviours"},  # the last two are encode's
    "evaluate": {"predictions"},
}
FOLDERS_OR_NAMES = ("image_encoder", "text_encoder")


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """Pack, pre-train, embed, encode, train MAKE, train the ranker, evaluate: what is needed of it.

    Each stage is a folder RUN_DIR/<stage>-<fingerprint>, named after all that its result depends
    on, so pipelines that differ in some flags share the stages before. A stage that is whole is
    skipped, one that was cut short goes on: after a failure, a kill or a changed flag, give the
    same command again. RUN_DIR/pipeline.json names the folders. With several nodes each of them
    runs this command, and RUN_DIR is on storage that all of them see.
    """

    data: Path
    """Folder that holds requests/, items/ and, where phase one is not left out, searches/."""
    run_dir: Path
    """Folder for everything; several pipelines may share it."""
    method: Literal[
        "bias", "id", "vector", "simscore", "simtier", "make", "simtier+make", "codes", "muse"
    ] = "simtier+make"
    """Of the ranker; bias and id leave phase one out, all but make and simtier+make MAKE."""
    vectors: Path | None = None
    """Folder of item vectors made elsewhere, instead of phase one."""
    seed: int = 0
    """Of all trainings that are not given one of their own."""
    pack: dict[str, Any] = field(default_factory=dict)
    """Flags of apps.pack, {name: value}; modality is that of pretrain unless given."""
    pretrain: dict[str, Any] = field(default_factory=dict)
    """Flags of apps.pretrain, for example '{epochs: 3}'."""
    embed_items: dict[str, Any] = field(default_factory=dict)
    """Flags of apps.embed_items; modality is what pretrain trains unless given."""
    encode: dict[str, Any] = field(default_factory=dict)
    """Flags of apps.encode; min_count is the ranker's default unless given."""
    train_make: dict[str, Any] = field(default_factory=dict)
    """Flags of apps.train_make."""
    train_ranker: dict[str, Any] = field(default_factory=dict)
    """Flags of apps.train_ranker, for example '{embedding_dim: 32}'."""
    evaluate: dict[str, Any] = field(default_factory=dict)
    """Flags of apps.evaluate."""
    nodes: int = 1
    """Machines that run this command together."""
    processes: int = 1
    """Ranks on each node, one a GPU where there are GPUs."""
    rdzv_endpoint: str = "localhost:29500"
    """host:port of the first node, where several meet: each stage at a port of its own, from this
    one on."""
    max_restarts: int = 3
    """How often all ranks of a stage start again from its last checkpoint when one dies."""

    def __post_init__(self) -> None:
        check_fields(self, lambda x: x >= 1, "at least 1", "nodes", "processes")
        check_fields(self, lambda x: x >= 0, "at least 0", "max_restarts", "seed")
        host, _, port = self.rdzv_endpoint.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) <= 65535 - len(CONFIGS):
            rule = f"rdzv_endpoint must be host:port with a port in [1, {65535 - len(CONFIGS)}]"
            raise InputError(f"{rule}, got {self.rdzv_endpoint}")
        if self.vectors is not None and not self.uses_vectors:
            rule = f"vectors must not be given with method {self.method}"
            raise InputError(f"{rule}, got {self.vectors}")
        for app in CONFIGS:
            for name in getattr(self, app):
                if name in OWN | OWN_OF.get(app, set()):
                    raise InputError(f"{app} must not hold {name}, which the pipeline itself sets")

    @property
    def uses_vectors(self) -> bool:
        """Whether the method reads item vectors."""
        return self.method not in ("bias", "id")

    @property
    def launch(self) -> Launch:
        """How stages are launched."""
        host, _, port = self.rdzv_endpoint.rpartition(":")
        return Launch(
            nodes=self.nodes,
            processes=self.processes,
            host=host,
            port=int(port),
            max_restarts=self.max_restarts,
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Check all flags, then run the stages that are not whole."""
    config = parse(PipelineConfig, argv)
    check_working_folder(config.run_dir, "run_dir")
    stages = plan(config)
    for number, stage in enumerate(stages):
        status, skipped = run_stage(stage, config.launch, number)
        if status:
            print(
                f"pipeline: {stage.app} ended with status {status}; the same command goes on there",
                file=sys.stderr,
            )
            sys.exit(status)
        done = "is there already, skipped" if skipped else "is whole"
        print(f"pipeline: {stage.folder} {done}", flush=True)
    _summarise(config, stages)


def plan(config: PipelineConfig) -> list[Stage]:
    """The stages that the method needs.

    Raises:
        InputError: an unknown or wrong flag of a stage, or of one that is left out; no data.
    """
    flags = {app: getattr(config, app) for app in CONFIGS}
    chain = Chain(config.run_dir, CONFIGS, flags, (*WIRES, *MAY_CHANGE), FOLDERS_OR_NAMES)
    reads: dict[str, Stage] = {}
    inputs: dict[str, str] = {}
    outside: dict[str, Any] = {}
    if config.vectors is not None:
        outside = {"vectors": config.vectors}
        inputs = {"vectors": ItemVectors.open(config.vectors).fingerprint}
    elif config.uses_vectors:
        reads = {"vectors": _phase_one(config, chain)}
    reads["encoded"] = _encode(config, chain)
    training = {**outside, "seed": config.seed, "resume": True}
    if "make" in config.method:
        reads["make"] = chain.add("train_make", training, reads, inputs)
    wires = training | {"method": config.method}
    ranker = chain.add("train_ranker", wires, reads, inputs)
    scored = {name: stage for name, stage in reads.items() if name != "make"}
    result = ranker.folder / "metrics.json"
    chain.add("evaluate", outside, scored | {"run_dir": ranker}, inputs, results=(result,))
    for app, given in flags.items():
        if given and app not in chain.stages:
            raise InputError(
                f"{app} must be left out, as its stage is with method {config.method} and "
                f"vectors {config.vectors}, got {given}"
            )
    return list(chain.stages.values())


def _phase_one(config: PipelineConfig, chain: Chain) -> Stage:
    """From items/ and searches/ to item vectors."""
    modality = config.pretrain.get("modality", "auto")
    items, searches = (_parquet(config.data, name) for name in ("items", "searches"))
    packed = chain.add(
        "pack",
        {"data": config.data, "modality": modality},
        {},
        {"items": items, "searches": searches},
        in_one_move=True,
        alone=True,
    )
    encoder = chain.add("pretrain", {"seed": config.seed, "resume": True}, {"packed": packed}, {})
    return chain.add(
        "embed_items",
        {"data": config.data},
        {"encoder": encoder},
        {"items": items},
        in_one_move=True,
    )


def _encode(config: PipelineConfig, chain: Chain) -> Stage:
    """Requests as rankers read them."""
    data, flags = config.data, config.encode
    if flags.get("source") == "taobao_mm":
        inputs = {"data": path_signature(data)}
    else:
        splits = flags.get("splits", EncodeConfig.splits)
        names = ["items", *(f"requests/{split}" for split in splits)]
        inputs = {name: _parquet(data, name) for name in names}
    return chain.add(
        "encode",
        {"data": data, "min_count": TrainRankerConfig.min_count},
        {},
        inputs,
        in_one_move=True,
        alone=True,
    )


def _parquet(data: Path, name: str) -> str:
    """Signature of a folder's Parquet files; pictures that items/ names by path are not in it."""
    beside = pictures if name in ("items", "searches") else nothing
    return files_signature(data_files(data / name, beside=beside), data)


def _summarise(config: PipelineConfig, stages: Sequence[Stage]) -> None:
    """Write pipeline.json and say how good the ranker is."""
    result = stages[-1].folder / "metrics.json"
    summary = {s.app: {"folder": s.folder.name, "seconds": s.seconds()} for s in stages}
    write_json(config.run_dir / "pipeline.json", {"stages": summary, "metrics": str(result)})
    metrics = read_json(result)
    print(
        f"{result}: {metrics['method']}, AUC {in_words(metrics['auc'])}, "
        f"GAUC {in_words(metrics['gauc'])}, log loss {in_words(metrics['log_loss'])} "
        f"on {metrics['impressions']} impressions"
    )


if __name__ == "__main__":
    sys.exit(run(main))
