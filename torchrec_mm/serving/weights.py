"""The parameters of a ranker that scores, which deltas change in place."""

from collections.abc import Mapping

import torch
from torch import Tensor

from torchrec_mm.errors import InputError
from torchrec_mm.parallel.cpu.lone import LoneTables
from torchrec_mm.parallel.cpu.quantised import ROW_BYTES, QuantisedTables, pack
from torchrec_mm.ranking.ranker import Ranker
from torchrec_mm.runs.delta import Delta


class Weights:
    """Of one ranker, by the names of its checkpoint; whoever scores meanwhile is kept away."""

    def __init__(self, ranker: Ranker) -> None:
        """Copies nothing."""
        self._held: dict[str, Tensor] = {}
        self._packed: set[str] = set()
        for name, part in ranker.named_children():
            own = part.state_dict()
            if isinstance(part, LoneTables | QuantisedTables):
                own = part.weights
            self._held |= {f"{name}.{key}": tensor for key, tensor in own.items()}
            if isinstance(part, QuantisedTables):
                self._packed |= {f"{name}.{key}" for key in own}

    def check(self, delta: Delta) -> None:
        """InputError unless ``put`` cannot fail, and leaves numbers."""
        for key, (rows, values) in delta.rows.items():
            held = self._of(key)
            if rows.dtype != torch.int64 or rows.dim() != 1:
                raise InputError(f"delta {key} must have int64 rows, got {rows.dtype}")
            row = held.shape[1:]  # of raw ids' owners there is a number, no row
            if key in self._packed:
                row = torch.Size([held.shape[1] - ROW_BYTES])
            self._check_same(key, values.shape, (len(rows), *row))
            if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(held):
                raise InputError(f"delta {key} must be of rows below {len(held)}")
            _check_finite(key, values)
        for key, values in delta.dense.items():
            self._check_same(key, values.shape, self._of(key).shape)
            _check_finite(key, values)

    @torch.no_grad()
    def put(self, delta: Delta) -> None:
        """Write what was checked."""
        for key, (rows, values) in delta.rows.items():
            held = self._held[key]
            own = pack(values) if key in self._packed else values.to(held.dtype)
            held.index_copy_(0, rows, own)
        for key, values in delta.dense.items():
            self._held[key].copy_(values)

    def tensors(self) -> Mapping[str, Tensor]:
        """As they are now; not copied."""
        return self._held

    def _of(self, key: str) -> Tensor:
        if key not in self._held:
            raise InputError(f"delta must be of the ranker's tensors, got {key}")
        return self._held[key]

    def _check_same(self, key: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
        if tuple(found) != tuple(wanted):
            raise InputError(f"delta {key} must be {tuple(wanted)}, got {tuple(found)}")


def _check_finite(key: str, values: Tensor) -> None:
    if values.is_floating_point() and not values.isfinite().all():
        raise InputError(f"delta {key} must be of finite numbers")
