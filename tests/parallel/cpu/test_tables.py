"""Bags of one id the short way: FBGEMM's results, tables and optimizer state, bag for bag."""

import ctypes
from unittest import mock

import numpy as np
import pytest
import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import (
    ComputeDevice,
    EmbeddingLocation,
    PoolingMode,
)
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    SplitTableBatchedEmbeddingBagsCodegen,
)

from torchrec_mm.data.stream.bags import one_id_bags
from torchrec_mm.kernels import one_id_bags as module
from torchrec_mm.parallel.cpu import tables as cpu_tables
from torchrec_mm.parallel.cpu.tables import LARGE_PAGE_BYTES, use_large_pages, use_one_id_forward
from torchrec_mm.parallel.sharding import OptimizerSettings, TableOptions, distribute
from torchrec_mm.parallel.tables import TableSettings
from torchrec_mm.ranking.ranker import build_tables

ROWS = (30, 7, 50)
BAGS = 40


def tables(optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD, width=8, **changes):
    made = SplitTableBatchedEmbeddingBagsCodegen(
        [(rows, width, EmbeddingLocation.HOST, ComputeDevice.CPU) for rows in ROWS],
        optimizer=optimizer,
        learning_rate=0.1,
        eps=1e-3,
        **changes,
    )
    generator = torch.Generator().manual_seed(0)
    for weight in made.split_embedding_weights():
        weight.copy_(torch.randn(weight.shape, generator=generator))
    return made


def batch(seed: int, most: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Bags of 0 to ``most`` ids; ids repeat from bag to bag."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, most + 1, (len(ROWS) * BAGS,), generator=generator)
    indices = [
        torch.randint(0, rows, (int(part.sum()),), generator=generator)
        for rows, part in zip(ROWS, lengths.chunk(len(ROWS)), strict=True)
    ]
    return torch.cat(indices), torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])


def trained(tables, most: int = 1) -> list[torch.Tensor]:
    """Outputs of three steps, then weights and optimizer state."""
    seen = []
    for seed in range(3):
        out = tables(*batch(seed, most))
        out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(seed)))
        seen.append(out.detach())
    states = [state for states in tables.split_optimizer_states() for state in states]
    return seen + tables.split_embedding_weights() + states


def is_short(tables) -> bool:
    use_one_id_forward(torch.nn.ModuleList([tables]))
    return "forward" in vars(tables)


@pytest.fixture(params=["kernel", "plain torch"])
def way(request, monkeypatch):
    if request.param == "plain torch":
        monkeypatch.setattr(module, "compiled", lambda name: None)
    else:
        assert module.compiled("one_id_bags") is not None


def test_the_short_way_learns_what_fbgemm_learns(way):
    short = tables()
    assert is_short(short)
    for ours, theirs in zip(trained(short), trained(tables()), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_gradient_may_lie_in_memory_in_any_way(way):
    drawn = torch.randn(BAGS, 24, generator=torch.Generator().manual_seed(0))
    columns_of_wider = torch.cat([torch.zeros(BAGS, 5), drawn, torch.zeros(BAGS, 1)], 1)[:, 5:29]
    alike = (drawn, columns_of_wider, drawn.T.contiguous().T)
    for same in (alike, (torch.ones(BAGS, 24), torch.ones(()).expand(BAGS, 24))):
        found = []
        for weight in same:
            short = tables()
            assert is_short(short)
            short(*batch(0)).backward(weight)
            found.append(short.split_embedding_weights())
        for other in found[1:]:
            assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_a_new_learning_rate_is_followed(way):
    short, long = tables(), tables()
    assert is_short(short)
    for each in (short, long):
        each.set_learning_rate(0.7)
    for ours, theirs in zip(trained(short), trained(long), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_longer_bag_goes_fbgemms_way():
    short = tables()
    assert is_short(short)
    for ours, theirs in zip(trained(short, most=3), trained(tables(), most=3), strict=True):
        assert torch.equal(ours, theirs)


def test_results_do_not_depend_on_the_number_of_threads():
    before, found = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        short = tables()
        assert is_short(short)
        found.append(trained(short))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_many_tables_that_threads_share_out_learn_to_the_same_bits():
    before, found = torch.get_num_threads(), []
    rows = torch.from_numpy(np.random.default_rng(0).integers(-1, 9, (14, 40)))
    gradient = torch.randn(40, 14 * 4, generator=torch.Generator().manual_seed(0))
    for threads in (1, 3):
        torch.set_num_threads(threads)
        weights = [torch.full((9, 4), float(table)) for table in range(14)]
        momentum = [torch.zeros(9) for _ in weights]
        many = module.Tables(weights, momentum, [torch.tensor(0.1)] * 14, 1e-3)
        module.update(many, module.Bags(rows), gradient)
        found.append([*weights, *momentum])
    torch.set_num_threads(before)
    plain = module.Tables(
        [torch.full((9, 4), float(table)) for table in range(14)],
        [torch.zeros(9) for _ in range(14)],
        [torch.tensor(0.1)] * 14,
        1e-3,
    )
    module.update_reference(plain, module.Bags(rows), gradient)
    assert all(map(torch.equal, *found))
    for ours, theirs in zip(found[0], [*plain.weights, *plain.momentum], strict=True):
        torch.testing.assert_close(ours, theirs)


def test_an_index_beyond_its_table_is_refused():
    short = tables()
    assert is_short(short)
    indices, offsets = batch(0)
    indices[3] = 30
    with pytest.raises(IndexError, match="indices must be rows of their tables"):
        short(indices, offsets)


def test_tables_without_optimizer_state_go_the_short_way_as_long_as_nothing_learns(way):
    short, long = (tables(EmbOptimType.EXACT_SGD) for _ in range(2))
    assert is_short(short)
    with mock.patch.object(cpu_tables, "one_id_bags", side_effect=module.one_id_bags) as called:
        with torch.no_grad():
            assert torch.equal(short(*batch(0)), long(*batch(0)))
        assert called.call_count == 1
        for ours, theirs in zip(trained(short), trained(long), strict=True):
            assert torch.equal(ours, theirs)
        assert called.call_count == 1


@pytest.mark.parametrize(
    "other",
    [
        {"optimizer": EmbOptimType.EXACT_ADAGRAD},
        {"weight_decay": 0.1},
        {"pooling_mode": PoolingMode.MEAN},
    ],
)
def test_tables_with_other_rules_keep_to_fbgemms_way(other):
    assert not is_short(tables(**other))


def test_tables_beside_others_of_a_collection_take_the_short_way(worker):
    model = torch.nn.ModuleDict({"tables": build_tables({"a": 9, "b": 5}, 8)})
    settings = OptimizerSettings(learning_rate=0.0, weight_decay=0.0, table_learning_rate=0.1)
    half = TableOptions({"b": TableSettings(dtype="fp16")})
    with mock.patch.object(cpu_tables, "one_id_bags", side_effect=module.one_id_bags) as short:
        model["dense"] = torch.nn.Linear(1, 1)
        sharded = distribute(model, worker, settings, 0, half).model.module["tables"]
        bags = {"a": np.array([3, 4]), "b": np.array([0])}
        sharded(one_id_bags(bags)).values()
        assert short.call_count == 1


def test_large_pages_are_asked_for_inside_a_tables_memory_and_change_no_value():
    weights = torch.arange(3 << 20, dtype=torch.float32)
    with mock.patch.object(cpu_tables.ctypes, "CDLL", wraps=ctypes.CDLL) as library:
        library.return_value = mock.Mock(wraps=ctypes.CDLL(None))
        use_large_pages(weights)
        use_large_pages(weights[:10])  # smaller than a page
        calls = library.return_value.madvise.call_args_list
    assert [call.args[2].value for call in calls] == [14, 25]
    for start, length, _ in (call.args for call in calls):
        assert start.value % LARGE_PAGE_BYTES == 0
        assert weights.data_ptr() <= start.value
        assert start.value + length.value <= weights.data_ptr() + weights.nbytes
    assert torch.equal(weights, torch.arange(3 << 20, dtype=torch.float32))
