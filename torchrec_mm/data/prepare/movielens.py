"""MovieLens as requests: a sitting of ratings is a request, a like is a click, a tag a search.

Reads ratings.csv, movies.csv, and where present tags.csv and posters/<movieId>.jpg.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from torchrec_mm.columns.csv_files import read_csv
from torchrec_mm.columns.jagged import list_array
from torchrec_mm.columns.parquet import BINARY, FLOAT64, INT64, STRING
from torchrec_mm.columns.reading import input_errors
from torchrec_mm.columns.seconds import check_seconds
from torchrec_mm.data.prepare.behaviours import PASSED, behaviours_before
from torchrec_mm.data.prepare.prepared import Prepared
from torchrec_mm.data.prepare.sittings import cut_sittings, latest_rows, request_table
from torchrec_mm.errors import InputError
from torchrec_mm.ids import IdIndex, sort_unique

YEAR = r"\((?P<year>\d{4})\)\s*$"


@dataclass(frozen=True, kw_only=True)
class MovieLensRules:
    """How ratings become requests.

    like_from: least rating that counts as a like. pause_s: seconds without a rating that end a
    sitting. max_candidates: ratings a request at most. behaviours: earlier likes a request at most.
    test_share: of each user's ratings, the latest. passed: whether requests tell the films that the
    user had rated and not liked, as many as behaviours at most.
    """

    like_from: float
    pause_s: int
    max_candidates: int
    behaviours: int
    test_share: float
    passed: bool


def prepare_movielens(folder: Path, rules: MovieLensRules) -> Prepared:
    """Read a MovieLens folder.

    A request's behaviours are the films its user had liked before the request's first rating.
    Searches are tags: the user typed the tag and wanted the film; nothing else was clicked. They
    carry the tag's own time and are not cut at the test ratings.

    Raises:
        InputError: missing file or column, unreadable value, a time that is not in seconds,
            duplicate movieId, a film rated twice by a user, a rating or tag of no film.
    """
    items = _films(folder)
    films = IdIndex(items["item_id"].to_numpy())
    ratings, tags = folder / "ratings.csv", folder / "tags.csv"
    train, test = _requests(ratings, films, rules)
    return Prepared(
        items,
        train,
        test,
        _searches(tags, films) if tags.exists() else None,
        no_click=f"no rating in {ratings} is at least like_from = {rules.like_from}",
    )


def _requests(path: Path, films: IdIndex, rules: MovieLensRules) -> tuple[pa.Table, pa.Table]:
    ratings = read_csv(
        path, {"userId": INT64, "movieId": INT64, "rating": FLOAT64, "timestamp": INT64}
    )
    check_seconds(path, "timestamp", ratings["timestamp"])
    user, item, time = (ratings[name].to_numpy() for name in ("userId", "movieId", "timestamp"))
    _check_films(item, films, path)
    order = np.lexsort((item, time, user))
    user, item, time = user[order], item[order], time[order]
    _check_once(user, item, path)
    like = ratings["rating"].to_numpy()[order] >= rules.like_from
    is_test = latest_rows(user, time, rules.test_share)
    begins = cut_sittings(
        user, time, is_test, pause_s=rules.pause_s, max_candidates=rules.max_candidates
    )
    liked, disliked = (
        behaviours_before(
            user[rows], time[rows], item[rows], user[begins], time[begins], rules.behaviours
        )
        for rows in (like, ~like)
    )
    table = request_table(begins, user, time, item, like, liked, features={})
    if rules.passed:
        table = table.append_column(PASSED, disliked)
    return table.filter(pa.array(~is_test[begins])), table.filter(pa.array(is_test[begins]))


def _films(folder: Path) -> pa.Table:
    path = folder / "movies.csv"
    movies = read_csv(path, {"movieId": INT64, "title": STRING, "genres": STRING})
    movies = movies.take(sort_unique(movies["movieId"].to_numpy(), f"{path} column movieId"))
    year = pc.struct_field(pc.extract_regex(movies["title"], YEAR), "year")
    ids = movies["movieId"].to_pylist()
    posters = [_poster(folder / "posters" / f"{film}.jpg") for film in tqdm(ids, desc="posters")]
    return pa.table(
        {
            "item_id": movies["movieId"],
            "title": movies["title"],
            "image": pa.array(posters, BINARY),
            "genre": _codes(pc.list_element(pc.split_pattern(movies["genres"], "|"), 0)),
            "genres": _codes(movies["genres"]),
            "year": year.cast(FLOAT64),
        }
    )


def _poster(path: Path) -> bytes | None:
    with input_errors(path):
        return path.read_bytes() if path.is_file() else None


def _codes(texts: pa.ChunkedArray) -> np.ndarray:
    """(N,) strings to int64 numbers in alphabetical order of the distinct ones."""
    distinct = sorted(pc.unique(texts).to_pylist())
    return pc.index_in(texts, pa.array(distinct)).to_numpy().astype(np.int64)


def _searches(path: Path, films: IdIndex) -> pa.Table | None:
    tags = read_csv(path, {"userId": INT64, "movieId": INT64, "tag": STRING, "timestamp": INT64})
    check_seconds(path, "timestamp", tags["timestamp"])
    tags = tags.filter(pc.not_equal(pc.utf8_trim_whitespace(tags["tag"]), ""))
    _check_films(tags["movieId"].to_numpy(), films, path)
    none = np.zeros(tags.num_rows, dtype=np.int64)
    return pa.table(
        {
            "search_id": np.arange(tags.num_rows),
            "user_id": tags["userId"],
            "timestamp": tags["timestamp"],
            "query_text": tags["tag"],
            "query_image": pa.nulls(tags.num_rows, BINARY),
            "purchased_item_id": tags["movieId"],
            "clicked_item_ids": list_array(none[:0], none),
        }
    )


def _check_films(item: np.ndarray, films: IdIndex, path: Path) -> None:
    unknown = item[films.rows(item) < 0]
    if len(unknown):
        raise InputError(f"{path} column movieId must be in movies.csv, got {unknown[0]}")


def _check_once(user: np.ndarray, item: np.ndarray, path: Path) -> None:
    order = np.lexsort((item, user))
    again = (np.diff(user[order]) == 0) & (np.diff(item[order]) == 0)
    if again.any():
        row = order[1:][again][0]
        rule = f"{path} must rate a film once a user"
        raise InputError(f"{rule}, got userId {user[row]} movieId {item[row]} twice")
