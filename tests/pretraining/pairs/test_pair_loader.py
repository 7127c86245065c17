"""Batches of pairs: the same ones under any number of ranks and workers, from any step on."""

import numpy as np
import pytest
import torch

from tests.pretraining.packed_room import SIZE
from torchrec_mm.errors import InputError
from torchrec_mm.pretraining.encoder.side import PairBatch, Side
from torchrec_mm.pretraining.pairs.methods import training_pairs
from torchrec_mm.pretraining.pairs.pair_loader import LoaderSettings, PairLoader, _seeds
from torchrec_mm.pretraining.pairs.side_reader import PictureSource, SideReader, TextSource

BOTH = ("image", "text")


def words(texts: list[str]) -> dict[str, torch.Tensor]:
    """Two numbers a text, in place of a tokeniser."""
    return {"tokens": torch.tensor([[len(text), sum(map(ord, text))] for text in texts])}


@pytest.fixture(scope="module")
def reader(packed):
    image, text = packed.by_modality["image"], packed.by_modality["text"]
    sources = {"image": PictureSource(image, SIZE), "text": TextSource(text, words)}
    return SideReader(packed, sources)


@pytest.fixture(scope="module")
def loader(packed, reader):
    def make(rank=0, world_size=1, method="scl", **more) -> PairLoader:
        searches = np.arange(packed.num_searches)
        unseen = np.zeros(packed.num_items, dtype=bool)
        pairs = training_pairs(packed, method, BOTH, searches, unseen)
        settings = LoaderSettings(**({"batch_size": 24, "seed": 3} | more))
        return PairLoader(pairs, reader, settings, rank=rank, world_size=world_size)

    return make


def by_row(side: Side) -> list[dict]:
    """What each row of a side has: its ids, and its inputs as numbers."""
    rows = [{name: ids[i].item() for name, ids in side.ids.items()} for i in range(side.num_rows)]
    for name, inputs in side.inputs.items():
        inputs = inputs["tokens"] if isinstance(inputs, dict) else inputs
        for i, row in enumerate(side.rows[name].tolist()):
            if row < side.num_rows:
                rows[row][f"{name} input"] = inputs[i].flatten().tolist()
    return rows


def contents(batch: PairBatch) -> list[tuple]:
    """Each pair of a batch in plain words."""
    hard, slots = by_row(batch.hard), batch.num_hard
    return [
        (query, key, hard[slots * i : slots * (i + 1)])
        for i, (query, key) in enumerate(zip(by_row(batch.query), by_row(batch.key), strict=True))
    ]


def all_pairs(loader: PairLoader, epochs=2, first_step=0) -> list[list[tuple]]:
    return [contents(batch) for batch in loader.batches(epochs, first_step)]


@pytest.fixture(scope="module")
def whole(loader):
    """Two epochs on one rank, query photos augmented."""
    return all_pairs(loader(augment=True))


def test_a_batch_holds_what_the_packed_content_says(packed, loader):
    batch = next(loader().batches(1))
    assert batch.query.num_rows == batch.key.num_rows == 24
    assert batch.num_hard == packed.hard.shape[1] and batch.hard.num_rows == 24 * batch.num_hard
    fused = packed.fused_ids()
    by_query = {}
    for search in range(packed.num_searches):
        row = packed.num_items + search
        negatives = [fused[item] if item >= 0 else -1 for item in packed.hard[search]]
        by_query.setdefault(fused[row], []).append((fused[packed.purchased[search]], negatives))
    hard = batch.hard.ids["fused"].view(24, -1).tolist()
    queries, keys = batch.query.ids["fused"].tolist(), batch.key.ids["fused"].tolist()
    for query, key, negatives in zip(queries, keys, hard, strict=True):
        assert (key, negatives) in by_query[query]
    sides = (batch.query, batch.key, batch.hard)
    assert batch.pictures == sum(side.mask["image"].sum() for side in sides)
    assert batch.corrupt == 0


def test_an_epoch_has_every_pair_once_and_the_next_another_order(loader, whole):
    steps = loader().steps_per_epoch
    assert steps == 5 and len(whole) == 2 * steps
    plain = all_pairs(loader())
    first, second = (
        [str(pair) for batch in plain[start : start + steps] for pair in batch]
        for start in (0, steps)
    )
    assert sorted(first) == sorted(second) and first != second
    assert len(first) == 120


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_shares_of_ranks_in_turn_are_the_batch_augmentation_included(loader, whole, world_size):
    shares = [all_pairs(loader(rank, world_size, augment=True)) for rank in range(world_size)]
    together = [[pair for part in parts for pair in part] for parts in zip(*shares, strict=True)]
    assert together == whole


@pytest.mark.parametrize("step", [1, 5, 7, 10])
def test_going_on_at_a_step_gives_the_batches_that_are_left(loader, whole, step):
    assert all_pairs(loader(augment=True), first_step=step) == whole[step:]


def test_worker_processes_give_what_none_give(loader, whole):
    assert all_pairs(loader(augment=True, num_workers=2)) == whole


def test_augmentation_changes_query_photos_alone(loader, whole):
    for augmented, plain in zip(sum(whole, []), sum(all_pairs(loader()), []), strict=True):
        assert augmented[1:] == plain[1:]
        differs = {name for name, value in plain[0].items() if augmented[0][name] != value}
        assert differs == plain[0].keys() & {"image input"}


def test_each_epoch_changes_photos_anew(whole):
    first, second = (
        {query["image"]: query["image input"] for query, *_ in sum(part, []) if query["image"] >= 0}
        for part in (whole[:5], whole[5:])
    )
    assert first.keys() == second.keys() and len(first) > 90
    assert all(second[photo] != pixels for photo, pixels in first.items())


def test_no_two_pairs_are_augmented_alike():
    seeds = np.concatenate(
        [_seeds(seed, epoch, np.arange(50)) for seed in (0, 1) for epoch in (0, 1)]
    )
    assert len(set(seeds.tolist())) == 200 and (seeds >= 0).all()


def test_another_seed_is_another_order(loader):
    assert all_pairs(loader(seed=4), 1) != all_pairs(loader(), 1)


def test_clip_e_pairs_are_an_item_and_itself(loader):
    made = loader(method="clip-e", batch_size=4)
    for batch in made.batches(1):
        assert batch.num_hard == batch.hard.num_rows == 0
        assert torch.equal(batch.query.ids["fused"], batch.key.ids["fused"])
        assert batch.query.mask["image"].all() and batch.query.mask["text"].all()


def test_without_a_triplet_loss_hard_negatives_are_not_read(loader):
    batch = next(loader(hard=False).batches(1))
    assert batch.num_hard == batch.hard.num_rows == 0
    assert batch.pictures == batch.query.mask["image"].sum() + batch.key.mask["image"].sum()


def test_a_batch_that_does_not_fit_is_refused(loader):
    with pytest.raises(InputError, match="batch_size must be at most the 120 pairs .* got 121"):
        loader(batch_size=121)
    with pytest.raises(InputError, match="must be a multiple of the 5 processes, got 24"):
        loader(world_size=5)
