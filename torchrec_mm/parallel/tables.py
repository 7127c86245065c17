"""How each table is sharded, stored and learned: what a config may say, checked in one place."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from torchrec_mm.config import check_fields
from torchrec_mm.errors import InputError

SHARDINGS = ("table_wise", "row_wise", "column_wise", "table_row_wise", "grid_shard")
KERNELS = ("fused", "fused_uvm", "fused_uvm_caching")
DTYPES = ("fp32", "fp16")
OPTIMIZERS = ("rowwise_adagrad", "adagrad", "adam", "sgd")
CPU = {
    "kernel": ("fused",),
    "optimizer": ("rowwise_adagrad", "adagrad", "sgd"),  # FBGEMM has no Adam for the CPU
}
SPLIT_COLUMNS = ("column_wise", "grid_shard")

# What TorchRec would take, and why we do not.
REFUSED = {
    ("sharding", "data_parallel"): "a replicated table has no fused optimizer, so it would learn "
    "by another rule and its checkpoint would fit no other sharding",
    ("kernel", "dense"): "it has no fused optimizer, so the table would learn by another rule",
    ("dtype", "bf16"): "TorchRec would store fp16 instead",
}


@dataclass(frozen=True)
class TableSettings:
    """One table. None: the planner decides, or the value that all tables of the run share.

    sharding: one of SHARDINGS; columns are split into as many shards as there are ranks
    (grid_shard: nodes), of at least 4 columns. kernel: one of KERNELS, fused if None. dtype: of
    the weights; the optimizer's state is fp32. optimizer: one of OPTIMIZERS. learning_rate: its
    own, above 0. cache_load_factor: in (0, 1], the share of rows that fused_uvm_caching keeps on
    the device, 0.2 if None; TorchRec averages it over the cached tables of a rank. mean_length: ids
    of a bag on average, at least 0: what the data say if None, and 1 of a feature without bags.

    Raises:
        InputError: a value outside its range, or two that do not go together.
    """

    sharding: str | None = None
    kernel: str | None = None
    dtype: str = "fp32"
    optimizer: str = "rowwise_adagrad"
    learning_rate: float | None = None
    cache_load_factor: float | None = None
    mean_length: float | None = None

    def __post_init__(self) -> None:
        choices = {"sharding": SHARDINGS, "kernel": KERNELS}
        choices |= {"dtype": DTYPES, "optimizer": OPTIMIZERS}
        for name, allowed in choices.items():
            value = getattr(self, name)
            if value not in allowed and not (value is None and name in ("sharding", "kernel")):
                reason = REFUSED.get((name, value))
                rule = f"{name} must be one of {', '.join(allowed)}, got {value}"
                raise InputError(f"{rule}: {reason}" if reason else rule)
        for name in ("learning_rate", "cache_load_factor", "mean_length"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, int | float):
                raise InputError(f"{name} must be a number, got {value}")
        if self.learning_rate is not None:
            check_fields(self, lambda x: 0 < x <= float("inf"), "above 0", "learning_rate")
        if self.mean_length is not None:
            check_fields(self, lambda x: 0 <= x < float("inf"), "at least 0", "mean_length")
        if self.cache_load_factor is not None:
            check_fields(self, lambda x: 0 < x <= 1, "in (0, 1]", "cache_load_factor")
        if self.cache_load_factor is not None and self.kernel != "fused_uvm_caching":
            rule = "cache_load_factor must go with kernel fused_uvm_caching"
            raise InputError(f"{rule}, got {self.kernel}")
        if self.sharding in SPLIT_COLUMNS and self.optimizer == "rowwise_adagrad":
            raise InputError(
                f"optimizer must be adagrad, adam or sgd with sharding {self.sharding}, got "
                "rowwise_adagrad: each part of a row would learn at its own rate"
            )


def read_tables(raw: Mapping[str, Mapping[str, Any]]) -> dict[str, TableSettings]:
    """Settings in a config's ``tables``; InputError, naming table, field, rule and value."""
    known = [field.name for field in fields(TableSettings)]
    tables = {}
    for name, given in raw.items():
        unknown = sorted(given.keys() - set(known))
        if unknown:
            rule = f"tables.{name} must hold {', '.join(known)} only"
            raise InputError(f"{rule}, got {', '.join(unknown)}")
        try:
            tables[name] = TableSettings(**given)
        except InputError as error:
            raise InputError(f"tables.{name}.{error}") from error
    return tables


def settings_by_table(
    tables: Mapping[str, TableSettings], features_of: Mapping[str, Iterable[str]]
) -> dict[str, TableSettings]:
    """Settings of each table of a model, the defaults where ``tables`` names it in no way.

    Args:
        tables: by the name of a table or of one of its features.
        features_of: the features of every table of the model.

    Raises:
        InputError: a name that the model does not have or that may mean either of two tables, or
            one table named twice.
    """
    table_of = {feature: table for table, names in features_of.items() for feature in names}
    for name in tables:
        if name in table_of and name in features_of:
            feature = next(iter(features_of[name]))
            rule = "tables must name one table each"
            raise InputError(f"{rule}, got {name}: say {feature} or {table_of[name]}")
    table_of |= {table: table for table in features_of}
    unknown = sorted(tables.keys() - table_of.keys())
    if unknown:
        known = ", ".join(sorted(feature for names in features_of.values() for feature in names))
        raise InputError(f"tables must name tables of the model ({known}), got {unknown[0]}")
    found: dict[str, TableSettings] = {}
    for name, settings in tables.items():
        if table_of[name] in found:
            raise InputError(f"tables must name each table once, got {name} again")
        found[table_of[name]] = settings
    return {table: found.get(table, TableSettings()) for table in features_of}


def check_device(tables: Mapping[str, TableSettings], device: str) -> None:
    """InputError, naming table, field and value, for what only CUDA has, of tables on the CPU."""
    if device == "cuda":
        return
    for table, settings in tables.items():
        for name, allowed in CPU.items():
            value = getattr(settings, name)
            if value is not None and value not in allowed:
                rule = f"must be {' or '.join(allowed)} on the CPU"
                raise InputError(f"tables.{table}.{name} {rule}, got {value}")


def follow_plan(
    tables: Mapping[str, TableSettings], planned: Mapping[str, TableSettings]
) -> dict[str, TableSettings]:
    """``tables`` with sharding and kernel of an earlier plan where they say nothing.

    Args:
        tables: of every table of a model. planned: of some of them.

    Raises:
        InputError: the plan knows other tables, or the two disagree.
    """
    unknown = sorted(planned.keys() - tables.keys())
    if unknown:
        rule = f"plan must hold tables of the model ({', '.join(sorted(tables))})"
        raise InputError(f"{rule}, got {unknown[0]}")
    merged = dict(tables)
    for table, earlier in planned.items():
        for name in ("sharding", "kernel"):
            ours, theirs = getattr(tables[table], name), getattr(earlier, name)
            if ours is not None and ours != theirs:
                raise InputError(f"tables.{table}.{name} must be the plan's {theirs}, got {ours}")
        merged[table] = replace(tables[table], sharding=earlier.sharding, kernel=earlier.kernel)
    return merged
