"""Look-ups among ranks on CPUs: each row is asked for and sent once, for all tables together.

A message costs more than what is in it. A step of training takes three here besides the one of the
dense gradients: ids to the ranks that hold their rows, rows back, their gradients there again; and
how many ids come. What is asked for can go out while the batch before is being learned from.

Shape letters: F features of all collections, W ranks, n ids that this rank asks for, m ids that it
is asked for, E width of the tables.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torchrec.distributed.types import LazyAwaitable, LazyGetItemMixin
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor

from torchrec_mm.kernels.exchange_ids import Part, by_table, route
from torchrec_mm.kernels.one_id_bags import Ids, anchor, look_up, update
from torchrec_mm.kernels.pool_bags import PooledBags, pool_bags
from torchrec_mm.parallel.cpu.links import Links
from torchrec_mm.parallel.cpu.pooled import PooledKeys
from torchrec_mm.parallel.cpu.shards import Shards


class Exchange:
    """The collections of one model, on this rank.

    Every rank asks in the same order, be it for nothing; so messages meet.
    """

    def __init__(self, collections: Sequence[Shards], links: Links) -> None:
        self.links = links
        joined = Shards.joined(collections)
        self.tables, self.ends = joined.tables, joined.ends
        self.numbers, self.means = joined.numbers, joined.means
        self.keys: dict[tuple[str, ...], PooledKeys] = {}
        self.announced: Asked | None = None
        self.waiting: list[Promise] = []

    def part(self, bags: KeyedJaggedTensor) -> tuple[Part, PooledBags | None]:
        """For the kernel that sorts ids, and how to pool rows; None where a bag is one at most."""
        names = tuple(bags.keys())
        if names not in self.keys:
            self.keys[names] = PooledKeys.of(names, self.numbers, self.means)
        keys = self.keys[names]
        ids, lengths = bags.values().long(), bags.lengths().int()
        if keys.shares or (len(lengths) and int(lengths.max()) > 1):
            return keys.take_apart(bags).part()
        return Part(ids.contiguous(), lengths.contiguous(), torch.tensor(keys.tables)), None

    def announce(self, coming: Sequence[KeyedJaggedTensor]) -> None:
        """Begin to ask for what the next batch looks up. Collective; ``send`` goes on."""
        known = [bags for bags in coming if all(name in self.numbers for name in bags.keys())]
        self.announced = Asked(self, known) if known else None

    def send(self) -> None:
        """Go on with what was announced, if anything was. Collective."""
        if self.announced is not None:
            self.announced.send()

    def promise(self, features: KeyedJaggedTensor) -> "Promise":
        """Takes the place of a collection's ``forward``: a KeyedTensor to come.

        Those that are promised before the first of them is needed go together.
        """
        self.waiting.append(Promise(self, features))
        return self.waiting[-1]

    def keep_promises(self) -> None:
        """Look up for all that wait. Collective."""
        waiting, self.waiting = self.waiting, []
        # Of one batch of bags that several collections look up, all of it is asked for once.
        wanted = list({id(promise.features): promise.features for promise in waiting}.values())
        asked, self.announced = self.announced, None
        if asked is not None:
            self._keep(asked, waiting)
            wanted = [w for w in wanted if not any(own is w for own in asked.features)]
        if wanted:  # of the step that was not announced, or made of its batch since
            self._keep(Asked(self, wanted), waiting)

    def _keep(self, asked: "Asked", waiting: Sequence["Promise"]) -> None:
        # Without state there is no backward pass, and nothing may ask for one.
        with torch.set_grad_enabled(torch.is_grad_enabled() and bool(self.tables.momentum)):
            found = _Exchanged.apply(self, asked, anchor())
        parts = found.split([len(part.lengths) for part, _ in asked.parts])
        for bags, (_, pooled), rows in zip(asked.features, asked.parts, parts, strict=True):
            names, width = bags.keys(), self.tables.width
            if pooled is None:
                values = rows.view(bags.stride(), len(names) * width)
            else:
                values = pool_bags(rows, pooled)
            for promise in waiting:
                if promise.features is bags:
                    promise.kept = KeyedTensor(names, [width] * len(names), values)


class Promise(LazyGetItemMixin[str, Tensor], LazyAwaitable[KeyedTensor]):
    """As TorchRec's collections return."""

    def __init__(self, exchange: Exchange, features: KeyedJaggedTensor) -> None:
        super().__init__()
        self.exchange, self.features = exchange, features
        self.kept: KeyedTensor | None = None

    def _wait_impl(self) -> KeyedTensor:
        if self.kept is None:
            self.exchange.keep_promises()
        assert self.kept is not None
        return self.kept


class Asked:
    """Ids of some bags on their way to the ranks that hold their rows. Collective.

    Of longer bags, and of several features of a table, each row is asked for once.

    Raises:
        IndexError: an id is no row of its table.
    """

    def __init__(self, exchange: Exchange, features: Sequence[KeyedJaggedTensor]) -> None:
        self.features, self.links = features, exchange.links
        self.parts = [exchange.part(bags) for bags in features]
        self.size = sum(len(part.lengths) for part, _ in self.parts)
        self.routed = route([part for part, _ in self.parts], exchange.ends)
        self.to = self.routed.counts.sum(1).tolist()
        self.counts = torch.empty_like(self.routed.counts)
        one = [1] * len(self.to)
        self.message = self.links.all_to_all(self.counts, self.routed.counts, one, one)
        self.came: Tensor | None = None

    def send(self) -> None:
        """Send the ids."""
        self.message.wait()
        self.from_ranks = self.counts.sum(1).tolist()
        self.came = torch.empty(sum(self.from_ranks), dtype=torch.int64)
        self.message = self.links.all_to_all(self.came, self.routed.ids, self.from_ranks, self.to)

    def wanted(self) -> Ids:
        """What other ranks and this one want of the rows here."""
        if self.came is None:
            self.send()
        assert self.came is not None
        self.message.wait()
        return Ids(self.came, *by_table(self.counts))


class _Exchanged(torch.autograd.Function):
    """Rows of all that is asked for, one bag after another, zeros for empty ones."""

    @staticmethod
    def forward(ctx: Any, exchange: Exchange, asked: Asked, anchor: Tensor) -> Tensor:
        ctx.exchange, ctx.asked, ctx.wanted = exchange, asked, asked.wanted()
        rows = look_up(exchange.tables, ctx.wanted)
        came = rows.new_empty(len(asked.routed.places), exchange.tables.width)
        exchange.links.all_to_all(came, rows, asked.to, asked.from_ranks).wait()
        out = came.new_zeros(asked.size, exchange.tables.width)
        return out.index_copy_(0, asked.routed.places, came)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, ...]:
        asked = ctx.asked
        # As TorchRec has it: the mean over ranks, as of the dense part.
        mine = gradient.index_select(0, asked.routed.places).div_(len(asked.to))
        came = mine.new_empty(sum(asked.from_ranks), mine.shape[1])
        asked.links.all_to_all(came, mine, asked.from_ranks, asked.to).wait()
        update(ctx.exchange.tables, ctx.wanted, came)
        return (None,) * 3
