"""Tables a byte a number: rows as they were but for half a step, bags as of exact tables."""

import pytest
import torch
from torchrec.modules.embedding_configs import EmbeddingBagConfig, PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from torchrec_mm.parallel.cpu.lone import LoneTables
from torchrec_mm.parallel.cpu.quantised import ROW_BYTES, QuantisedTables, pack

ROWS, WIDTH = 50, 12
FEATURES = {"sum": ["a", "b"], "mean": ["c"]}


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    scales = torch.logspace(-3, 1, ROWS).unsqueeze(1)  # rows of very different sizes
    return {name: torch.randn(ROWS, WIDTH) * scales for name in FEATURES}


@pytest.fixture
def collection() -> EmbeddingBagCollection:
    pooling = {"sum": PoolingType.SUM, "mean": PoolingType.MEAN}
    configs = [
        EmbeddingBagConfig(
            num_embeddings=ROWS,
            embedding_dim=WIDTH,
            name=name,
            feature_names=features,
            pooling=pooling[name],
        )
        for name, features in FEATURES.items()
    ]
    return EmbeddingBagCollection(tables=configs, device=torch.device("meta"))


def bags(values: list[int]) -> KeyedJaggedTensor:
    """Two bags of each of three features; one is empty, one has several ids, some twice."""
    lengths = torch.tensor([1, 2, 0, 1, 3, 1])
    return KeyedJaggedTensor(["a", "b", "c"], torch.tensor(values), lengths=lengths)


def half_a_step(rows: torch.Tensor) -> torch.Tensor:
    """The most that a number of each row may be off, with what float32 rounds."""
    return (rows.amax(1) - rows.amin(1)) / 255 / 2 * 1.001 + 1e-6


def test_a_number_is_off_by_at_most_half_a_step_of_its_own_row(collection, weights):
    tables = QuantisedTables(collection, weights)
    for row in range(ROWS):
        features = KeyedJaggedTensor(["a"], torch.tensor([row]), lengths=torch.tensor([1]))
        error = (tables(features).values()[0] - weights["sum"][row]).abs().max()
        assert error <= half_a_step(weights["sum"])[row]


def test_bags_are_pooled_as_exact_tables_pool_them(collection, weights):
    features = bags([3, 4, 4, 7, 9, 10, 9, 11])
    exact = LoneTables(collection, weights)(features)
    found = QuantisedTables(collection, weights)(features)
    assert found.keys() == exact.keys() and found.length_per_key() == exact.length_per_key()
    most = 2 * max(half_a_step(rows).max() for rows in weights.values())
    assert (found.values() - exact.values()).abs().max() <= most
    empty = found["b"][0]
    assert empty.abs().max() == 0


def test_the_order_of_features_is_that_of_the_batch_and_others_are_left_out(collection, weights):
    tables = QuantisedTables(collection, weights)
    batch = KeyedJaggedTensor(
        ["c", "other", "a"], torch.tensor([1, 999, 2]), lengths=torch.tensor([1, 1, 1])
    )
    found = tables(batch)
    assert found.keys() == ["c", "a"]
    alone = KeyedJaggedTensor(["a"], torch.tensor([2]), lengths=torch.tensor([1]))
    assert torch.equal(found["a"], tables(alone)["a"])


@pytest.mark.parametrize("wrong", [-1, ROWS])
def test_an_id_outside_its_table_is_refused(collection, weights, wrong):
    with pytest.raises(IndexError, match="must be rows below 50"):
        QuantisedTables(collection, weights)(bags([3, 4, 4, 7, 9, wrong, 9, 11]))


def test_a_row_takes_a_byte_a_number_and_eight_more(weights):
    packed = pack(weights["sum"])
    assert packed.shape == (ROWS, WIDTH + ROW_BYTES) and packed.element_size() == 1
