"""The overlay: what came since, against a dict, and never changed once it is handed out."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.live import changes
from torchrec_mm.item_vectors.live.overlay import DELETED, UNKNOWN, Overlay

BATCHES = st.lists(
    st.lists(st.tuples(st.integers(-3, 3), st.just(0), st.none() | st.integers(1, 99)), max_size=9),
    max_size=6,
)
ASKED = np.arange(-4, 5)


def seen(overlay: Overlay) -> list[object]:
    places = overlay.find(ASKED)
    return [place if place < 0 else int(overlay.buffer[place][0]) for place in places.tolist()]


def empty() -> Overlay:
    return Overlay.empty(3, np.dtype(np.int8))


@given(BATCHES)
def test_the_last_change_of_an_item_counts_and_older_overlays_stay_as_they_were(batches):
    overlay, known = empty(), {}
    moments = []
    for batch in batches:
        overlay = overlay.extended(changes(*batch))
        known |= {item: DELETED if fill is None else fill for item, _, fill in batch}
        moments.append((overlay, [known.get(item, UNKNOWN) for item in ASKED.tolist()]))
    for overlay, wanted in moments:
        assert seen(overlay) == wanted


def test_an_overlay_grows_beyond_its_first_room():
    overlay = empty()
    for item in range(1000):
        overlay = overlay.extended(changes((item, 0, item % 100)))
    values = overlay.buffer[overlay.find(np.arange(1000))]
    assert values[:, 0].tolist() == [item % 100 for item in range(1000)]


def test_items_are_found_in_any_shape():
    overlay = empty().extended(changes((5, 0, 1)))
    assert overlay.find(np.array([[5], [6]])).tolist() == [[0], [UNKNOWN]]
    assert empty().find(np.array([[5], [6]])).tolist() == [[UNKNOWN], [UNKNOWN]]
