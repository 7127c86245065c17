"""A plan and the memory of its ranks, for people to read."""

from collections.abc import Iterator
from itertools import groupby

from torchrec_mm.parallel.capacity import RankMemory, bytes_of_node
from torchrec_mm.parallel.plan_files import PlannedTable
from torchrec_mm.parallel.topology import GIB, Machines


def tightest(ranks: list[RankMemory]) -> RankMemory:
    """The rank with the least memory to spare."""
    return max(ranks, key=lambda rank: rank.used)


def plan_text(planned: list[PlannedTable]) -> str:
    """A line for each table."""
    lines = [f"{'table':<28}{'rows':>14}{'width':>7}  {'sharding':<15}{'kernel':<18}shards"]
    for table in planned:
        owners = sorted({shard.rank for shard in table.shards})
        lines.append(
            f"{table.name:<28}{table.rows:>14,}{table.width:>7}  {table.sharding:<15}"
            f"{table.kernel:<18}{len(table.shards)} on rank {ranges(owners)}; "
            f"{table.settings.dtype}, {table.settings.optimizer}{_bags(table)}"
        )
    return "\n".join(lines)


def _bags(table: PlannedTable) -> str:
    length = table.settings.mean_length
    return "" if length is None else f", bags of {length:.1f} ids"


def memory_text(ranks: list[RankMemory]) -> str:
    """A block for each group of ranks that hold the same, and the tightest rank."""
    alike = sorted(ranks, key=lambda rank: (repr(rank.tables), rank.rank))
    groups = [list(group) for _, group in groupby(alike, key=lambda rank: repr(rank.tables))]
    lines = [line for group in sorted(groups, key=lambda g: g[0].rank) for line in _block(group)]
    tight = tightest(ranks)
    spare = gib(tight.capacity - tight.used)
    return "\n".join(
        [*lines, "", f"tightest: rank {tight.rank}, {spare} to spare of {gib(tight.capacity)}"]
    )


def _block(alike: list[RankMemory]) -> Iterator[str]:
    memory, name = alike[0], ranges([rank.rank for rank in alike])
    yield f"\nrank {name:<23}{'weights':>12}{'optimizer':>12}{'cache':>12}{'buffers':>12}"
    for table, of_table in memory.tables.items():
        parts = (of_table.weights, of_table.optimizer, of_table.cache, of_table.buffers)
        where = "  weights and optimizer on the host" if of_table.on_host else ""
        yield f"  {table:<26}{''.join(f'{gib(part):>12}' for part in parts)}{where}"
    rest = {"dense part": memory.dense, "own batch": memory.batch, "reserve": memory.reserve}
    for part, size in (rest | {"in all": memory.used}).items():
        yield f"  {part:<26}{gib(size):>12}"
    yield f"  {'on the host':<26}{gib(memory.host):>12}  {gib(memory.copied)} to save from"


def host_text(ranks: list[RankMemory], machines: Machines) -> str:
    """Whether a node's memory holds what its ranks need there, item vectors aside."""
    needed, of_node = bytes_of_node(ranks, machines), machines.host_bytes
    rule = "fits" if needed <= of_node else "does not fit"
    what = "tables there" if machines.device == "cuda" else "all of the above"
    return (
        f"host: {gib(needed)} a node, of {what} and copies that checkpoints are written from; "
        f"that {rule} in {gib(of_node)}"
    )


def vectors_text(size: int, machines: Machines) -> str:
    """Whether item vectors of ``size`` bytes fit beside nothing else in a node's memory."""
    rule = "fit" if size <= machines.host_bytes else "do not fit"
    return (
        f"item vectors: {gib(size)} a node, memory-mapped once for its ranks; "
        f"they {rule} in {gib(machines.host_bytes)}"
    )


def gib(size: int) -> str:
    """Bytes in words."""
    return f"{size / GIB:.2f} GiB" if size >= GIB / 100 else f"{size / 2**20:.2f} MiB"


def ranges(numbers: list[int]) -> str:
    """[0, 1, 2, 5] -> "0-2, 5"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
