"""What each adapter makes of a data set that is small enough to be worked out by hand."""

import json

import pyarrow as pa
import pytest

from tests.data.public.published import (
    criteo_line,
    write_amazon,
    write_criteo,
    write_kuairand,
    write_microlens,
    write_mind,
)
from torchrec_mm.columns.text_ids import hash_text
from torchrec_mm.data.public.amazon import read_amazon
from torchrec_mm.data.public.criteo import read_criteo
from torchrec_mm.data.public.kuairand import read_kuairand
from torchrec_mm.data.public.microlens import read_microlens
from torchrec_mm.data.public.mind import read_mind
from torchrec_mm.data.public.tables import Tables
from torchrec_mm.data.public.users import FeedRules
from torchrec_mm.errors import InputError

RULES = FeedRules(pause_s=1800, max_candidates=20, behaviours=50, test_share=0.3)


@pytest.fixture
def tables(tmp_path):
    return Tables(tmp_path / "in", tmp_path, 1.0)


def whole(pieces) -> dict[str, list]:
    return pa.concat_tables(pieces).to_pydict()


def rows(pieces) -> list[dict]:
    return pa.concat_tables(pieces).to_pylist()


def ids(*texts: str) -> list[int]:
    return [hash_text(text) for text in texts]


def test_mind_keeps_its_splits_histories_and_order_of_impressions(tmp_path):
    data = read_mind(write_mind(tmp_path / "in"), behaviours=2)
    found = whole(data.requests)
    assert found["user_id"] == ids("U7", "U8", "U7", "U9", "U7")
    assert found["is_test"] == [False, False, False, True, True]
    assert found["timestamp"][:3] == [1573463158, 1573561800, 1573603201]
    assert found["behaviour_item_ids"][:3] == [ids("N1", "N2"), [], ids("N2", "N3")]
    assert found["candidate_item_ids"][2] == ids("N1", "N3", "N2")
    assert found["labels"] == [[0, 1], [1, 0], [0, 0, 1], [1, 0], [0]]


def test_mind_has_each_news_once_with_title_and_abstract(tmp_path):
    data = read_mind(write_mind(tmp_path / "in"), behaviours=2)
    found = whole(data.items)
    assert found["item_id"] == ids("N1", "N2", "N3", "N4")
    assert found["title"][:2] == ['A late goal, and "that" was it. The cup goes north.', "Rain"]
    assert found["category"] == ["sports", "news", "sports", "food"]
    assert found["subcategory"] == ["soccer", "newsworld", "tennis", "recipes"]
    assert {row["text"] for row in rows(data.texts["user_id"])} == {"U7", "U8", "U9"}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("1\tU7\t11/11/2019 9:05:58 AM\tN1\tN2", "impressions like N55689-1 or N35729-0, got N2$"),
        ("1\tU7\t2019-11-11 9:05\tN1\tN2-0", "times like 11/11/2019 9:05:58 AM, got 2019-11-11"),
        ("1\tU7\t11/11/2019 9:05:58 AM\tN9\tN2-0", "must name news of a news.tsv, got N9"),
        ("1\tU7\t11/11/2019 9:05:58 AM\tN1", "must be lines of impression_id, user_id, time, his"),
    ],
)
def test_a_line_that_is_not_minds_is_refused(tmp_path, line, complaint):
    folder = write_mind(tmp_path / "in")
    (folder / "MINDsmall_train" / "behaviors.tsv").write_text(f"{line}\n")
    with pytest.raises(InputError, match=complaint):
        list(read_mind(folder, behaviours=2).requests)


def microlens(folder, tables, **settings):
    settings = {"behaviours": 2, "test_share": 0.3, "negatives": 4, "seed": 0} | settings
    return read_microlens(folder, tables, **settings)


def test_microlens_asks_for_a_chosen_video_among_drawn_ones(tmp_path, tables):
    folder = write_microlens(tmp_path / "in")
    found = rows(microlens(folder, tables).requests)
    assert [row["user_id"] for row in found] == [1] * 4 + [2] * 4
    assert [row["is_test"] for row in found] == [False, False, False, True] * 2
    own = [3, 5, 9, 12]
    for place, row in enumerate(found):
        chosen = own[place % 4]
        assert row["timestamp"] == 1_583_378_629 + chosen
        assert row["behaviour_item_ids"] == own[: place % 4][-2:]
        drawn = [item for item in row["candidate_item_ids"] if item != chosen]
        assert len({*drawn}) == 4 and not {*drawn} & {*own}
        labels = dict(zip(row["candidate_item_ids"], row["labels"], strict=True))
        assert labels == {chosen: 1} | dict.fromkeys(drawn, 0)
    assert rows(microlens(folder, tables).requests) == found
    assert rows(microlens(folder, tables, seed=1).requests) != found


def test_microlens_titles_are_cut_at_the_first_comma_and_covers_are_read(tmp_path, tables):
    found = whole(microlens(write_microlens(tmp_path / "in"), tables).items)
    assert found["item_id"] == [3, 5, 9, 12, *range(20, 40)]
    titles = ["No quotes, two commas, here", 'Said "so", twice', None, "Ünlü"]
    assert found["title"][:4] == titles
    assert found["image"][:3] == [None, b"jpeg", None]


def test_microlens_has_enough_videos_or_is_refused(tmp_path, tables):
    data = microlens(write_microlens(tmp_path / "in"), tables, negatives=7)
    with pytest.raises(InputError, match="negatives must be at most a third .* got 7 of 24 and 4"):
        list(data.requests)


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("MicroLens-100k_title_en.csv", "item,title\nx,A\n", "line 2 must begin with an item and"),
        (
            "MicroLens-100k_pairs.csv",
            "user,item,timestamp\n1,x,3\n",
            "could not be read: .* Line: 2 .*1,x,3",
        ),
        ("MicroLens-100k_pairs.csv", "user,item\n1,2\n", "could not be read: .*timestamp"),
    ],
)
def test_a_line_that_is_not_microlens_is_refused(tmp_path, tables, name, text, complaint):
    folder = write_microlens(tmp_path / "in")
    (folder / name).write_text(text)
    with pytest.raises(InputError, match=complaint) as refused:
        list(microlens(folder, tables).requests)
    assert "\n" not in str(refused.value)


def test_amazon_reviews_are_likes_by_sitting_the_first_of_each_item(tmp_path, tables):
    data = read_amazon(write_amazon(tmp_path / "in"), tables, RULES, like_from=4.0)
    found = {row["timestamp"]: row for row in rows(data.requests)}
    start = 1_588_687_728
    of_one = [found[start + second] for second in (0, 10_000, 20_000)]
    assert {row["user_id"] for row in of_one} == {hash_text("AE3K")}
    assert [row["candidate_item_ids"] for row in of_one] == [
        ids("B01", "B02"),
        ids("B03"),
        ids("B04"),
    ]
    assert [row["labels"] for row in of_one] == [[1, 0], [1], [0]]
    assert [row["behaviour_item_ids"] for row in of_one] == [[], ids("B01"), ids("B01", "B03")]
    bought = [row["purchase_item_ids"] for row in of_one]
    assert bought == [[], ids("B01"), ids("B01", "B03")]  # B02 was not
    assert [row["is_test"] for row in of_one] == [False, False, True]
    assert {row["text"] for row in rows(map(table_of, data.texts["user_id"]))} == {"AE3K", "AFZU"}


def table_of(batch: pa.RecordBatch) -> pa.Table:
    return pa.Table.from_batches([batch])


def test_amazon_items_have_what_is_known_of_them(tmp_path, tables):
    data = read_amazon(write_amazon(tmp_path / "in"), tables, RULES, like_from=4.0)
    found = {row.pop("item_id"): row for row in rows(data.items)}
    names = ("title", "category", "store", "price", "image", "categories")
    wanted = {
        "B01": ("A brush", "All Beauty", "Brushes & Co", 6.5, b"jpeg", ["Hair", "Tools"]),
        "B02": ("A comb", None, None, None, None, None),
        "B03": ("Soap", "All Beauty", "Soaps", 3.25, None, []),
        "B04": (None, None, None, None, None, None),
    }
    assert found == {
        hash_text(asin): dict(zip(names, values, strict=True)) for asin, values in wanted.items()
    }
    texts = {row["text"] for row in rows(map(table_of, data.texts["item_id"]))}
    assert texts == {*wanted}


def test_a_review_without_a_user_is_refused(tmp_path, tables):
    folder = write_amazon(tmp_path / "in")
    (folder / "Toys.jsonl.gz").write_bytes(b'{"parent_asin": "B01", "rating": 3, "timestamp": 4}\n')
    (folder / "Toys.jsonl.gz").rename(folder / "Toys.jsonl")
    for old in folder.glob("*.gz"):
        old.rename(folder / f"_{old.name}")
    (folder / "meta_Toys.jsonl").write_text(json.dumps({"parent_asin": "B01"}))
    for old in folder.glob("_*"):
        old.unlink()
    with pytest.raises(InputError, match="must give user_id in every review, 1 lack it"):
        read_amazon(folder, tables, RULES, like_from=4.0)


def test_kuairand_labels_say_who_watched_to_the_end_or_for_18_seconds(tmp_path, tables):
    data = read_kuairand(write_kuairand(tmp_path / "in"), tables, RULES)
    found = rows(data.requests)
    of_one = [row for row in found if row["user_id"] == 0]
    assert [row["candidate_item_ids"] for row in of_one] == [[10, 20], [30], [20]]
    assert [row["labels"] for row in of_one] == [[1, 0], [1], [0]]
    assert [row["behaviour_item_ids"] for row in of_one] == [[], [10], [10, 30]]
    assert [row["is_test"] for row in of_one] == [False, False, True]
    assert [row["candidate_tab"] for row in found if row["user_id"] == 1] == [[1, 1], [1], [1]]
    assert {row["fans_user_num_range"] for row in of_one} == {"[100,1k)"}
    assert [row["labels"] for row in found if row["user_id"] == 1] == [[0, 1], [1], [1]]


def test_kuairand_videos_are_all_there(tmp_path, tables):
    found = whole(read_kuairand(write_kuairand(tmp_path / "in"), tables, RULES).items)
    assert found["item_id"] == [10, 20, 30, 40]
    assert found["author_id"] == [123, 456, 789, None]
    assert found["video_type"] == ["NORMAL", "AD", "NORMAL", None]
    assert found["tags"] == [[39, 12], [2], None, None]
    assert found["duration_s"] == [87.433, None, 9.233, None]
    assert found["created_at"] == [1_649_548_800, 1_649_462_400, 1_649_462_400, None]


def test_criteo_rows_are_requests_in_their_order(tmp_path):
    data = read_criteo(write_criteo(tmp_path / "in"), test_share=0.25)
    found = whole(data.requests)
    assert found["labels"] == [[int(row % 3 == 0)] for row in range(20)]
    assert found["is_test"] == [row >= 15 for row in range(20)]
    assert found["I1"] == [float(row) for row in range(20)]
    assert found["I3"][:3] == [0.0, None, 6.0]
    assert found["C1"][:4] == [0, 16**7, 2 * 16**7, 3 * 16**7]
    assert found["C3"][:3] == [2, None, 2 * 16**7 + 2]
    assert "I2" not in data.settings and data.settings["I3"] == {"transform": "log1p"}
    assert data.settings["C26"] == {"min_count": 10}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (criteo_line(3).replace("\t", ",", 1), "must be lines of label, 13 numbers and 26 categ"),
        ("2" + criteo_line(3)[1:], "must begin with a label of 0 or 1 in every line"),
        (criteo_line(3)[:-8] + "xyz", "column C26 must hold up to 8 digits of 0-9 and a-f, got xy"),
        ("1\ta" + criteo_line(3)[3:], "train.txt must be lines of label, 13 numbers and 26"),
    ],
)
def test_a_line_that_is_not_criteos_is_refused(tmp_path, line, complaint):
    folder = write_criteo(tmp_path / "in")
    (folder / "train.txt").write_text(f"{criteo_line(0)}\n{line}\n")
    with pytest.raises(InputError, match=complaint):
        list(read_criteo(folder, test_share=0.25).requests)


def test_days_of_criteo_are_in_their_order(tmp_path):
    (tmp_path / "in").mkdir()
    for day in (2, 10, 1):
        (tmp_path / "in" / f"day_{day}").write_text(criteo_line(day) + "\n")
    found = whole(read_criteo(tmp_path / "in", test_share=0.25).requests)
    assert found["I1"] == [1.0, 2.0, 10.0]
