"""MovieLens as requests, against a plain-Python oracle."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchrec_mm.data.prepare.movielens import MovieLensRules, prepare_movielens
from torchrec_mm.errors import InputError

RULES = MovieLensRules(
    like_from=4.0, pause_s=100, max_candidates=3, behaviours=2, test_share=0.4, passed=True
)
MOVIES = """movieId,title,genres
5,"Heat, The (1995)",Crime|Drama
3,No Year,Comedy
8,Odd (Sub) (2001) ,(no genres listed)
9,Twin (1995),Crime|Drama
1,One (1950),Drama
"""
FILMS = (1, 3, 5, 8, 9)
ONE = [(1, 5, 4.0, 0)]


def write_folder(folder: Path, ratings, movies=MOVIES, tags=None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "movies.csv").write_text(movies)
    lines = [",".join(map(str, row)) for row in ratings]
    # the published sample writes these names in lower case, movies.csv in camel case
    (folder / "ratings.csv").write_text("\n".join(["userid,movieid,rating,timestamp", *lines]))
    if tags is not None:
        (folder / "tags.csv").write_text("userId,movieId,tag,timestamp\n" + tags)
    return folder


@st.composite
def ratings_of_users(draw):
    """One rating of each film by some users, at times that often coincide."""
    rows = []
    for user in draw(st.sets(st.integers(1, 3), min_size=1)):
        for film in draw(st.sets(st.sampled_from(FILMS), min_size=1)):
            stars = draw(st.sampled_from([0.5, 3.5, 4.0, 5.0]))
            rows.append((user, film, stars, draw(st.sampled_from([0, 1, 2, 50, 200, 201, 1000]))))
    return draw(st.permutations(rows))


@settings(max_examples=60, deadline=None)
@given(ratings_of_users())
def test_no_behaviour_is_as_late_as_its_request_and_none_is_missing(tmp_path_factory, ratings):
    prepared = prepare_movielens(write_folder(tmp_path_factory.mktemp("movielens"), ratings), RULES)
    rated = {(user, film): (stars, time) for user, film, stars, time in ratings}
    left = set(rated)
    requests = prepared.train.to_pylist() + prepared.test.to_pylist()
    for request in requests:
        user, now = request["user_id"], request["timestamp"]
        for column, is_liked in (("behaviour_item_ids", True), ("passed_item_ids", False)):
            earlier = sorted(
                (time, film)
                for (who, film), (stars, time) in rated.items()
                if who == user and (stars >= 4) == is_liked and time < now
            )
            assert request[column] == [film for _, film in earlier][-2:]
        for film, label in zip(request["candidate_item_ids"], request["labels"], strict=True):
            left.remove((user, film))
            stars, time = rated[user, film]
            assert time >= now
            assert label == (stars >= 4)
        assert len(request["labels"]) <= RULES.max_candidates
    assert left == set(), "every rating is one impression"


@settings(max_examples=40, deadline=None)
@given(ratings_of_users())
def test_a_users_test_ratings_are_later_than_all_his_training_ratings(tmp_path_factory, ratings):
    prepared = prepare_movielens(write_folder(tmp_path_factory.mktemp("movielens"), ratings), RULES)
    time = {(user, film): time for user, film, _, time in ratings}

    def times(table, user):
        return [
            time[user, film]
            for request in table.to_pylist()
            if request["user_id"] == user
            for film in request["candidate_item_ids"]
        ]

    for user in {user for user, *_ in ratings}:
        train, test = times(prepared.train, user), times(prepared.test, user)
        assert train
        assert not test or max(train) < min(test)


def test_films_that_were_not_liked_are_a_sequence_only_where_that_is_asked_for(tmp_path):
    folder = write_folder(tmp_path / "in", [(1, 5, 4.0, 0), (1, 3, 1.0, 200), (1, 1, 1.0, 400)])
    without = prepare_movielens(folder, replace(RULES, passed=False))
    assert "passed_item_ids" not in without.train.column_names
    with_it = prepare_movielens(folder, RULES)
    assert with_it.train.drop_columns(["passed_item_ids"]) == without.train


def test_films_keep_title_poster_genres_and_year(tmp_path):
    folder = write_folder(tmp_path / "in", [(1, 5, 4.0, 0)])
    (folder / "posters").mkdir()
    (folder / "posters" / "5.jpg").write_bytes(b"poster")
    items = {row["item_id"]: row for row in prepare_movielens(folder, RULES).items.to_pylist()}
    assert list(items) == [1, 3, 5, 8, 9]
    assert items[5]["title"] == "Heat, The (1995)"
    assert (items[5]["image"], items[9]["image"]) == (b"poster", None)
    assert [items[film]["year"] for film in items] == [1950, None, 1995, 2001, 1995]
    assert items[5]["genres"] == items[9]["genres"] != items[1]["genres"]
    assert items[5]["genre"] == items[9]["genre"] != items[1]["genre"]


def test_a_tag_is_a_search_that_bought_the_film(tmp_path):
    folder = write_folder(tmp_path / "in", [(1, 5, 4.0, 0)], tags='2,9,"dark, slow",77\n2,9, ,78\n')
    assert prepare_movielens(folder, RULES).searches.to_pylist() == [
        {
            "search_id": 0,
            "user_id": 2,
            "timestamp": 77,
            "query_text": "dark, slow",
            "query_image": None,
            "purchased_item_id": 9,
            "clicked_item_ids": [],
        }
    ]


def test_without_tags_there_are_no_searches(tmp_path):
    folder = write_folder(tmp_path / "in", [(1, 5, 4.0, 0)])
    assert prepare_movielens(folder, RULES).searches is None


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda f: (f / "ratings.csv").unlink(), "ratings.csv must be a CSV file: no such file"),
        (lambda f: (f / "movies.csv").write_text("movieId,title\n5,A"), "have a column genres"),
        (
            lambda f: (f / "tags.csv").write_text("userId,größe\n1,2\n", encoding="latin-1"),
            "tags.csv must be a CSV file in UTF-8 with a header: .*0xf6",
        ),
        (
            lambda f: (f / "movies.csv").write_text("movieId,title,genres\n5,é,", "latin-1"),
            "movies.csv must be a CSV file in UTF-8 with a header: .*invalid UTF8",
        ),
        (lambda f: write_folder(f, [(1, 5, "good", 0)]), "conversion error to double"),
        (lambda f: write_folder(f, [(1, 5, "", 0)]), "column rating must not be empty"),
        (lambda f: write_folder(f, [(1, 4, 4.0, 0)]), "movieId must be in movies.csv, got 4"),
        (lambda f: write_folder(f, [(1, 5, 4.0, 0), (1, 5, 1.0, 9)]), "userId 1 movieId 5 twice"),
        (
            lambda f: write_folder(f, ONE, movies=MOVIES + "5,Again,Drama\n"),
            "movieId must be unique, got 5",
        ),
        (
            lambda f: write_folder(f, [(1, 5, 4.0, 1_260_759_144_000)]),
            "ratings.csv column timestamp must be seconds .* milliseconds: divide by 1000",
        ),
        (
            lambda f: write_folder(f, [(1, 5, 4.0, 0)], tags="1,5,odd,1260759144000\n"),
            "tags.csv column timestamp must be seconds .* milliseconds: divide by 1000",
        ),
        (
            lambda f: (f / "movies.csv").write_text("movieId,title,genres,Title\n5,A,B,C"),
            "movies.csv must have one column title, got 'title', 'Title'",
        ),
        (lambda f: write_folder(f, ONE, tags="1,7,a,0\n"), "movieId must be in movies.csv, got 7"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, change, complaint):
    folder = write_folder(tmp_path / "in", [(1, 5, 4.0, 0)])
    change(folder)
    with pytest.raises(InputError, match=complaint):
        prepare_movielens(folder, RULES)
