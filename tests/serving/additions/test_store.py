"""Behaviours are kept once, in the order of their times, whatever order they come in."""

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import forks
from tests.helpers.runs import ROOT
from torchrec_mm.columns.parquet import INT64
from torchrec_mm.data.contract.features import Categorical
from torchrec_mm.data.contract.request_columns import RequestColumns
from torchrec_mm.errors import InputError
from torchrec_mm.serving.additions import store as module
from torchrec_mm.serving.additions.body import Added, Additions, Deletion, kinds_of
from torchrec_mm.serving.additions.store import AddedBehaviours, Outcome, Unkept
from torchrec_mm.serving.histories import BEHAVIOURS, LONG_AGO, NEVER

MOST = 4
COLUMNS = RequestColumns({}, {"action": Categorical(INT64)}, has_labels=False, sequences=("cart",))
CART = "cart_item_ids"


def opened(folder: Path, columns: RequestColumns = COLUMNS) -> AddedBehaviours:
    return AddedBehaviours(folder, kinds_of(columns), MOST)


def additions(*events: tuple[int, int, int], cart: bool = False) -> Additions:
    """Events of user, time and item; what they are of says their item."""
    users, times, items = np.array([*events], np.int64).reshape(-1, 3).T
    nothing = Added(*[np.empty(0, np.int64)] * 3, np.empty((0, 1), np.int64))
    added = Added(users, times, items, attribute_of(items)[:, None])
    none = Added(nothing.users, nothing.times, nothing.item_ids, np.empty((0, 0), np.int64))
    basket = Added(users, times, items, np.empty((len(users), 0), np.int64)) if cart else none
    return Additions({BEHAVIOURS: added, CART: basket}, {})


def attribute_of(items: np.ndarray) -> np.ndarray:
    return items // 2 - 7


def read(
    store: AddedBehaviours, user: int, after: int = LONG_AGO, before: int = NEVER
) -> tuple[list[int], list[int]]:
    """Items and attributes of a user."""
    each = [np.array([value], np.int64) for value in (user, after, before)]
    lists, attributes = store.of(*each)[BEHAVIOURS]
    return lists.values.tolist(), attributes[:, 0].tolist()


@settings(max_examples=20)  # each waits for the disk
@given(
    st.lists(
        st.tuples(st.integers(-2, 1), st.sampled_from([-5, 0, 1, 2, 3, 2**40]), st.integers(-3, 3)),
        max_size=40,
    ),
    st.randoms(use_true_random=False),
)
def test_whatever_the_order_each_user_has_his_newest_once(tmp_path_factory, events, chance):
    store = opened(tmp_path_factory.mktemp("store"))
    shuffled = [*events, *events[:5]]
    chance.shuffle(shuffled)
    cut = chance.randint(0, len(shuffled))
    outcomes = store.write([additions(*shuffled[:cut])]) + store.write([additions(*shuffled[cut:])])
    for user in range(-2, 2):
        wanted = sorted({(time, item) for owner, time, item in events if owner == user})[-MOST:]
        items = [item for _, item in wanted]
        assert read(store, user) == (items, attribute_of(np.array(items, np.int64)).tolist())
    total = sum(outcomes, Outcome())
    assert total.added + total.known + total.older == len(shuffled)
    store.close()


def test_ids_and_times_of_any_sign_keep_their_order(tmp_path):
    store = opened(tmp_path)
    events = [(2**62, 5, 2**62), (2**62, 5, -(2**62)), (2**62, -5, 7), (2**62, 2**33, -1)]
    store.write([additions(*events)])
    assert read(store, 2**62)[0] == [7, -(2**62), 2**62, -1]


def test_only_what_lies_between_two_moments_is_read(tmp_path):
    store = opened(tmp_path)
    store.write([additions((1, 10, 1), (1, 20, 2), (1, 30, 3), (2, 20, 9))])
    assert read(store, 1, 10, 30)[0] == [2]
    assert read(store, 1, 30, 10)[0] == [] == read(store, 3)[0]
    users = np.array([2, 1, 3, 1])
    lists, _ = store.of(users, np.full(4, LONG_AGO), np.array([NEVER, 25, NEVER, NEVER]))[
        BEHAVIOURS
    ]
    assert lists.values.tolist() == [9, 1, 2, 1, 2, 3]
    assert lists.lengths.tolist() == [1, 2, 0, 3]


def test_what_was_added_is_there_when_the_folder_is_opened_again(tmp_path):
    store = opened(tmp_path)
    assert store.write([additions((1, 10, 1), cart=True)]) == [Outcome(added=2)]
    store.close()
    again = opened(tmp_path)
    assert read(again, 1)[0] == [1]
    assert again.write([additions((1, 10, 1), cart=True)]) == [Outcome(known=2)]


def test_what_a_user_did_up_to_his_deletion_is_gone_and_not_taken_again(tmp_path):
    store = opened(tmp_path)
    store.write([additions((1, 10, 1), (1, 20, 2), (2, 10, 3), cart=True)])
    assert store.write([Deletion(1, 20), Deletion(5, 20)]) == [4, 0]
    for _ in range(2):
        assert read(store, 1)[0] == [] and read(store, 2)[0] == [3]
        assert store.deleted(np.array([5, 2, 1])).tolist() == [20, LONG_AGO, 20]
        again = additions((1, 20, 2), (5, 1, 7), (2, 10, 3))
        assert store.write([again]) == [Outcome(older=2, known=1)]
        store.close()
        store = opened(tmp_path)
    assert store.write([additions((1, 21, 2))]) == [Outcome(added=1)]
    assert read(store, 1)[0] == [2]


def test_a_deletion_that_comes_late_does_not_take_back_a_later_one(tmp_path):
    store = opened(tmp_path)
    assert store.write([Deletion(1, 30), Deletion(1, 20), additions((1, 25, 2))]) == [
        0,
        0,
        Outcome(older=1),
    ]


def test_bodies_that_are_written_together_are_counted_apart(tmp_path):
    store = opened(tmp_path)
    one = additions((1, 10, 1), (1, 11, 1))
    assert store.write([one, one, additions()]) == [Outcome(added=2), Outcome(known=2), Outcome()]
    more = additions(*[(1, time, 1) for time in range(20, 24)])
    assert store.write([more, one]) == [Outcome(added=4), Outcome(older=2)]
    before = read(store, 1)
    assert store.write([more]) == [Outcome(known=4)] and read(store, 1) == before


def test_a_reader_sees_all_of_a_body_or_nothing(tmp_path):
    store, done = opened(tmp_path), threading.Event()
    torn: list[tuple] = []

    def look() -> None:
        user, after, before = (np.array([value]) for value in (1, LONG_AGO, NEVER))
        while not done.is_set():
            found = {
                n: lists.values.tolist() for n, (lists, _) in store.of(user, after, before).items()
            }
            if found[BEHAVIOURS] != found[CART]:
                torn.append(tuple(found.values()))

    looking = threading.Thread(target=look)
    looking.start()
    for time in range(50):
        store.write([additions((1, 2 * time, time), (1, 2 * time + 1, time), cart=True)])
    done.set()
    looking.join()
    assert not torn


ANOTHER = """
import sys
from pathlib import Path
from tests.serving.additions.test_store import additions, opened
store = opened(Path(sys.argv[1]))
store.write([additions((1, 5, 50))])
"""


def test_processes_of_a_host_share_a_folder(tmp_path):
    store = opened(tmp_path)
    store.write([additions((1, 1, 10))])
    done = forks.run([sys.executable, "-c", ANOTHER, tmp_path], cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert read(store, 1)[0] == [10, 50]


def test_a_disk_that_is_full_loses_nothing_of_before(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAP_BYTES", 1 << 20)
    store = opened(tmp_path)
    store.write([additions((1, 1, 10))])
    many = additions(*[(user, 1, 1) for user in range(2, 50_000)])
    with pytest.raises(Unkept, match="could not be written"):
        store.write([many])
    assert read(store, 1)[0] == [10] and read(store, 2)[0] == []
    assert store.write([additions((2, 1, 3))]) == [Outcome(added=1)]


def test_a_folder_of_a_ranker_with_other_attributes_is_refused(tmp_path):
    opened(tmp_path).close()
    other = RequestColumns({}, {"way": Categorical(INT64)}, has_labels=False)
    with pytest.raises(InputError, match="additions must be a folder of behaviours with the attr"):
        opened(tmp_path, other)


def test_what_is_no_folder_of_behaviours_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="additions must be a folder of behaviours, got"):
        opened(tmp_path / "file")
    many = {f"a{number}": Categorical(INT64) for number in range(62)}
    with pytest.raises(InputError, match="at most 61 attributes of behaviours, got 62"):
        opened(tmp_path / "many", RequestColumns({}, many, has_labels=False))
