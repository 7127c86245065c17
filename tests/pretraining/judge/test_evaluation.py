"""The retrieval report against plain Python, one search and one item at a time."""

import json
import logging
from collections import Counter

import numpy as np
import pytest
import torch

from tests.helpers import forks
from tests.pretraining.judge.judged import ITEMS, SEARCHES, judge, made_up, titles_and_pictures
from torchrec_mm.errors import InputError
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.pretraining.judge.evaluation import (
    main_mrr,
    retrieval_report,
    title_to_picture,
)

ALONE = Worker(torch.device("cpu"), 0, 1)
FIGURES = {
    *("recall@1", "recall@10", "recall@100", "mrr", "hard_negative_accuracy", "searches", "items"),
    *("alignment", "uniformity", "mean_cosine"),
}


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def rank_of(own: float, others: list[float]) -> float:
    above = sum(score > own + 1e-12 for score in others)
    return 1 + above + sum(abs(score - own) <= 1e-12 for score in others) / 2


def ranks_by_hand(given, space: str) -> dict[int, float]:
    """Rank by search, of the searches that count in the space."""
    items, present = given["items"][space].tolist(), given["item_mask"][space].tolist()
    found = {}
    for search, query in enumerate(given["queries"][space].tolist()):
        bought = int(given["purchased"][search])
        if given["query_mask"][space][search] and present[bought]:
            others = [j for j in range(ITEMS) if j != bought and present[j]]
            own = cosine(query, items[bought])
            found[search] = rank_of(own, [cosine(query, items[j]) for j in others])
    return found


def share(ranks, k: int) -> float:
    return sum(rank <= k for rank in ranks) / len(ranks)


@pytest.mark.parametrize("space", ["image", "text", "fused"])
def test_every_space_is_judged_by_its_own_vectors_and_searches(space):
    given = made_up()
    found = retrieval_report(**given, worker=ALONE)["spaces"][space]
    ranks = list(ranks_by_hand(given, space).values())
    assert found["searches"] == len(ranks) < SEARCHES
    assert found["items"] == sum(given["item_mask"][space].tolist())
    assert [found[f"recall@{k}"] for k in (1, 10, 100)] == [share(ranks, k) for k in (1, 10, 100)]
    assert found["mrr"] == pytest.approx(sum(1 / rank for rank in ranks) / len(ranks))
    asked = {name: given[name][space] for name in ("items", "item_mask", "queries", "query_mask")}
    assert main_mrr(**asked, purchased=given["purchased"], worker=ALONE) == found["mrr"]


@pytest.mark.parametrize("side", ["items", "queries"])
def test_the_mrr_of_vectors_that_are_not_finite_is_refused(side):
    given = made_up()
    asked = {name: given[name]["text"] for name in ("items", "item_mask", "queries", "query_mask")}
    mask = asked["item_mask" if side == "items" else "query_mask"]
    asked[side][~mask] = torch.nan  # where there is no vector anything may stand
    assert main_mrr(**asked, purchased=given["purchased"], worker=ALONE) > 0
    asked[side][mask] = torch.nan
    with pytest.raises(InputError, match="must be finite"):
        main_mrr(**asked, purchased=given["purchased"], worker=ALONE)


def test_alignment_and_hard_negatives_count_the_same_searches():
    given = made_up()
    found = retrieval_report(**given, worker=ALONE)["spaces"]["text"]
    items, present = given["items"]["text"].tolist(), given["item_mask"]["text"].tolist()
    distances, points = [], []
    for search in ranks_by_hand(given, "text"):
        query = given["queries"]["text"][search].tolist()
        own = cosine(query, items[int(given["purchased"][search])])
        distances.append(2 - 2 * own)
        for clicked in given["hard"][search].tolist():
            if clicked >= 0 and present[clicked]:
                other = cosine(query, items[clicked])
                points.append(0.5 if abs(own - other) < 1e-12 else float(own > other))
    assert found["alignment"] == pytest.approx(sum(distances) / len(distances), rel=1e-6)
    assert found["hard_negative_accuracy"] == pytest.approx(sum(points) / len(points))


def test_the_figures_on_top_are_those_of_the_fused_space_or_the_only_one():
    given = made_up()
    found = retrieval_report(**given, worker=ALONE)
    assert set(found) == FIGURES | {"spaces", "categories"}
    assert found["spaces"]["fused"] == {name: found[name] for name in FIGURES}
    for name in ("items", "item_mask", "queries", "query_mask"):
        given[name] = {"text": given[name]["text"]}
    alone = retrieval_report(**given, worker=ALONE)
    assert alone["spaces"] == {"text": found["spaces"]["text"]}
    assert {name: alone[name] for name in FIGURES} == alone["spaces"]["text"]


def test_categories_are_those_of_what_was_bought():
    given = made_up()
    found = retrieval_report(**given, worker=ALONE)["categories"]
    ranks = ranks_by_hand(given, "fused")
    for name, values in given["categories"].items():
        value_of = {search: int(values[given["purchased"][search]]) for search in ranks}
        counts = Counter(value_of.values())
        kept = sorted(counts, key=lambda value: (-counts[value], value))[:20]
        assert list(found[name]) == [str(value) for value in kept]
        for value in kept:
            of_value = [ranks[search] for search in ranks if value_of[search] == value]
            wanted = {"recall@10": share(of_value, 10), "searches": counts[value]}
            assert found[name][str(value)] == wanted
    assert len(found["id"]) == 20


def test_what_is_missing_counts_for_nothing_even_if_it_is_not_a_number():
    given = made_up()
    before = retrieval_report(**given, worker=ALONE)
    for vectors, mask in (("items", "item_mask"), ("queries", "query_mask")):
        for space in given[vectors]:
            given[vectors][space][~given[mask][space]] = torch.nan
    assert retrieval_report(**given, worker=ALONE) == before


def test_without_searches_only_the_items_have_figures():
    given = made_up()
    given["query_mask"] = {space: ~mask & False for space, mask in given["query_mask"].items()}
    given["hard"] = given["hard"][:, :0]
    found = retrieval_report(**given, worker=ALONE)
    unknown = {name for name in FIGURES if found[name] is None}
    assert unknown == FIGURES - {"searches", "items", "uniformity", "mean_cosine"}
    assert found["searches"] == 0
    assert found["categories"] == {"brand": {}, "id": {}}


@pytest.mark.parametrize("side", ["items", "queries"])
def test_vectors_that_are_not_finite_are_refused(side):
    given = made_up()
    counted = next(iter(ranks_by_hand(given, "text")))
    row = counted if side == "queries" else int(given["purchased"][counted])
    given[side]["text"][row, 2] = torch.nan
    with pytest.raises(InputError, match="item and query vectors must be finite, got"):
        retrieval_report(**given, worker=ALONE)


@pytest.mark.parametrize(
    ("rank", "spread", "lines"), [(0, 0.1, 1), (1, 0.1, 0), (0, 0.3, 1), (0, 0.4, 0)]
)
def test_the_first_rank_warns_of_a_space_that_collapsed(rank, spread, lines, caplog, monkeypatch):
    """Mean cosines of 0.99, 0.93 and 0.88: above 0.9 a space has collapsed."""
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: None)
    given = made_up()
    given["items"]["image"] = given["items"]["image"] * spread + torch.eye(6)[0]
    given["items"]["image"] /= given["items"]["image"].norm(dim=1, keepdim=True)
    with caplog.at_level(logging.WARNING):
        retrieval_report(**given, worker=Worker(torch.device("cpu"), rank, rank + 1))
    found = [record.getMessage() for record in caplog.records]
    assert len(found) == lines
    assert all("image vectors have collapsed: the mean cosine" in line for line in found)


def test_a_title_is_as_good_as_its_nearest_own_picture():
    given = titles_and_pictures()
    text, image = given["text"].tolist(), given["image"].tolist()
    has_text, has_image, among, title = (
        given[name].tolist() for name in ("text_mask", "image_mask", "among", "title_content")
    )
    pictures = [i for i in range(50) if among[i] and has_image[i]]
    owners = {}
    for i in pictures:
        if has_text[i]:
            owners.setdefault(title[i], []).append(i)
    ranks = []
    for own in owners.values():
        query = text[own[0]]
        nearest = max(cosine(query, image[i]) for i in own)
        ranks.append(rank_of(nearest, [cosine(query, image[i]) for i in pictures if i not in own]))
    alike = [own for own in owners.values() if len({tuple(image[i]) for i in own}) < len(own)]
    assert alike and any(rank % 1 for rank in ranks)
    assert title_to_picture(**given, worker=ALONE) == {
        "recall@1": share(ranks, 1),
        "recall@10": share(ranks, 10),
        "mrr": pytest.approx(sum(1 / rank for rank in ranks) / len(ranks)),
        "searches": len(owners),
        "items": len(pictures),
    }


def test_titles_without_pictures_have_no_figures_and_nan_is_refused():
    given = titles_and_pictures()
    nothing = given | {"among": np.zeros(50, dtype=bool)}
    expected = {"recall@1": None, "recall@10": None, "mrr": None, "searches": 0, "items": 0}
    assert title_to_picture(**nothing, worker=ALONE) == expected
    given["image"] *= torch.nan
    with pytest.raises(InputError, match="title and picture vectors must be finite"):
        title_to_picture(**given, worker=ALONE)


def test_two_ranks_report_what_one_does(tmp_path):
    forks.run_on_two_ranks("-m", "tests.pretraining.judge.judged", tmp_path)
    alone = judge(ALONE)
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)] == [alone] * 2
