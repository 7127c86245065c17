"""Four collections on two ranks, the short way and TorchRec's; what each rank saves is compared.

Run by ``tests.parallel.launch``.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from tests.helpers.two_ranks import ids_by_rows
from torchrec_mm.data.stream.bags import one_id_bags
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.parallel.scoring import distribute_for_scoring
from torchrec_mm.parallel.sharding import (
    DistributedModel,
    OptimizerSettings,
    TableOptions,
    distribute,
)
from torchrec_mm.parallel.strides import equalise_strides
from torchrec_mm.parallel.tables import TableSettings
from torchrec_mm.ranking.ranker import build_one_id_tables, build_tables
from torchrec_mm.runs.tensor_shards import model_shards

ROWS = {"a": 40, "b": 9, "c": 30}
BAGS = {"d": 20, "e": 20, "f": 11}  # the first two averaged, of one table
WIDTH = 8
STEPS = 4
SETTINGS = OptimizerSettings(
    learning_rate=0.1, weight_decay=0.1, table_learning_rate=0.1, table_scale=0.5
)
# Of the second table all rows are on one rank; the third learns faster.
OPTIONS = TableOptions(
    {
        "a": TableSettings(sharding="row_wise"),
        "b": TableSettings(sharding="table_wise"),
        "c": TableSettings(sharding="row_wise", learning_rate=0.3),
    }
)


@dataclass
class Batch:
    """Of the collections. share: of the global batch's loss."""

    first: KeyedJaggedTensor
    second: KeyedJaggedTensor
    third: KeyedJaggedTensor
    share: float


class Collections(nn.Module):
    """A loss of all rows, each weighed by dense weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first = build_one_id_tables({"a": ROWS["a"], "b": ROWS["b"]}, WIDTH)
        self.second = build_one_id_tables({"c": ROWS["c"]}, WIDTH)
        shared = {"d": "words", "e": "words"}
        self.third = build_tables({"d": 20, "e": 20}, WIDTH, {"d": "mean"}, shared)
        self.fourth = build_tables({"f": BAGS["f"]}, WIDTH)
        self.weight = nn.Parameter(torch.linspace(-1, 1, WIDTH))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        first, second = self.first(batch.first), self.second(batch.second)
        third, fourth = self.third(batch.third), self.fourth(batch.third)
        found = [first["a"], first["b"], second["c"], third["d"], third["e"], fourth["f"]]
        loss = sum((rows @ self.weight).square().sum() for rows in found)
        return loss * batch.share, loss.detach()


def batches(rank: int) -> list[Batch]:
    """Other sizes on each rank; in the second step the first rank looks nothing up."""
    made = []
    for step in range(STEPS):
        generator = np.random.default_rng([step, rank])
        most = 0 if (step, rank) == (1, 0) else 12
        counts = generator.integers(most + 1, size=len(ROWS))
        ids = {
            name: generator.integers(rows, size=count)
            for (name, rows), count in zip(ROWS.items(), counts, strict=True)
        }
        second = one_id_bags({"c": ids.pop("c")})
        made.append(Batch(one_id_bags(ids), second, bags(generator, most), 1.0))
    return made


def bags(generator: np.random.Generator, most: int) -> KeyedJaggedTensor:
    """As many bags of each feature, of up to five ids, some twice in a bag."""
    lengths = generator.integers(6, size=(len(BAGS), most // 2))
    ids = [generator.integers(BAGS[n], size=of.sum()) for n, of in zip(BAGS, lengths, strict=True)]
    values = torch.from_numpy(np.concatenate(ids))
    lengths = torch.from_numpy(lengths.reshape(-1).astype(np.int32))
    return KeyedJaggedTensor([*BAGS], values, lengths=lengths, stride=most // 2)


def short(worker: Worker) -> DistributedModel:
    """As it is made."""
    return distribute(Collections(), worker, SETTINGS, 0, OPTIONS)


def over_gloo(worker: Worker) -> DistributedModel:
    """As it is made where ranks are on several hosts."""
    with mock.patch.dict("os.environ", LOCAL_WORLD_SIZE="1"):
        return short(worker)


def to_torchrecs(model: nn.Module) -> None:
    for collection in model.module.children():
        if "forward" in vars(collection):
            del collection.forward
            equalise_strides(collection)


def torchrecs(worker: Worker) -> DistributedModel:
    """The same with TorchRec's look-ups."""
    made = short(worker)
    to_torchrecs(made.model)
    return replace(made, exchange=None)


def as_on_gpus(worker: Worker) -> DistributedModel:
    """Single ids by the way that GPUs have, all else with TorchRec's look-ups."""
    with ids_by_rows():
        return torchrecs(worker)


def learned(distributed: DistributedModel, rank: int) -> dict[str, Tensor]:
    """Losses of the steps, and what a checkpoint would hold of this rank."""
    pipeline, coming = distributed.pipeline(), iter(batches(rank))
    losses = torch.stack([pipeline.progress(coming) for _ in range(STEPS)])
    shards = model_shards(distributed.model, distributed.optimizer)
    return {"losses": losses} | {
        f"{key} {offsets}": part for key, own in shards.items() for offsets, part in own.parts
    }


def scored(worker: Worker, change: Callable[[nn.Module], None]) -> Tensor:
    """Rows where nothing learns."""
    sharded = distribute_for_scoring(Collections(), worker, OPTIONS)
    change(sharded.model)
    for name, weight in sharded.model.state_dict().items():
        if hasattr(weight, "local_shards"):
            for shard in weight.local_shards():
                begin = shard.metadata.shard_offsets[0]
                shard.tensor.copy_(torch.arange(len(shard.tensor))[:, None] + begin + len(name))
    with torch.no_grad():
        batch = batches(worker.rank)[0]
        module = sharded.model.module
        found, third, fourth = (
            module.first(batch.first),
            module.third(batch.third),
            module.fourth(batch.third),
        )
        return torch.cat([found["a"], found["b"], third["d"], third["e"], fourth["f"]])


@contextmanager
def counted() -> Iterator[Counter]:
    """For the block, how often each collective was called."""
    calls: Counter = Counter()

    def counting(name: str) -> Callable:
        call = getattr(dist, name)

        def wrapped(*args: object, **kwargs: object) -> object:
            calls[name] += 1
            return call(*args, **kwargs)

        return wrapped

    names = ("all_reduce", "all_to_all_single", "all_gather", "broadcast", "barrier")
    with mock.patch.multiple(dist, **{name: counting(name) for name in names}):
        yield calls


@contextmanager
def counted_bytes() -> Iterator[Counter]:
    """For the block, how many bytes of embeddings this rank gave to collectives."""
    sent: Counter = Counter()

    def counting(name: str, place: int) -> Callable:
        call = getattr(dist, name)

        def wrapped(*args: Tensor, **kwargs: object) -> object:
            given = args[place] if len(args) > place else kwargs["input"]
            sent[name] += sum(
                each.nbytes
                for each in (given if isinstance(given, list) else [given])
                if each.is_floating_point()
            )
            return call(*args, **kwargs)

        return wrapped

    places = {"all_to_all_single": 1, "reduce_scatter_tensor": 1, "reduce_scatter": 1}
    with mock.patch.multiple(dist, **{name: counting(name, at) for name, at in places.items()}):
        yield sent


def on_each_rank(worker: Worker, folder: Path) -> None:
    """One rank's part."""
    found: dict = {}
    for name, make in (("torchrec", torchrecs), ("as on GPUs", as_on_gpus)):
        made = make(worker)
        found[name] = learned(made, worker.rank)
        with counted_bytes() as sent, torch.no_grad():
            for batch in batches(worker.rank):
                made.model.module.first(batch.first).values()
        found[f"bytes {name}"] = sent.total()
    ours = short(worker)
    for name, made in (("short", ours), ("over gloo", over_gloo(worker))):
        with counted() as calls:
            found[name] = learned(made, worker.rank)
        found[f"calls {name}"] = dict(calls)
    unannounced = short(worker)
    unannounced.exchange.announce = lambda coming: None
    found["unannounced"] = learned(unannounced, worker.rank)
    found["scored"] = scored(worker, lambda model: None)
    found["scored by torchrec"] = scored(worker, to_torchrecs)
    torch.save(found, folder / f"{worker.rank}.pt")
