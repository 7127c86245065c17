"""Names of columns: found as they are written, never one for another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchrec_mm.columns.names import place_of, refuse_lookalikes
from torchrec_mm.errors import InputError

PROMISED = ("user_id", "item_id", "event")


@st.composite
def alike(draw, name):
    """``name`` with other cases, and spaces around it."""
    cases = "".join(draw(st.sampled_from([c.lower(), c.upper()])) for c in name)
    spaces = st.text(" \t", max_size=2)
    return draw(spaces) + cases + draw(spaces)


OTHERS = st.lists(st.sampled_from(["note", "Note", "", "item", "user_id_2", "events"]), max_size=4)


@given(st.permutations(PROMISED), OTHERS)
def test_exact_names_pass_beside_any_others(promised, others):
    refuse_lookalikes("log", [*others, *promised, *others], PROMISED)


@given(st.sampled_from(PROMISED), st.booleans(), OTHERS, st.data())
def test_a_name_that_is_another_but_for_case_or_spaces_is_refused(name, both, others, data):
    lookalike = data.draw(alike(name).filter(lambda text: text != name))
    given_names = data.draw(st.permutations([lookalike, *([name] * both), *others]))
    with pytest.raises(InputError) as caught:
        refuse_lookalikes("log", given_names, PROMISED)
    assert f"log column {lookalike!r} must be named {name}" in str(caught.value)


@given(st.sampled_from(PROMISED), OTHERS, st.data())
def test_in_a_header_the_one_name_that_fits_is_found(name, others, data):
    written = data.draw(alike(name))
    header = data.draw(st.permutations([written, *others]))
    assert place_of("log.csv", header, name) == header.index(written)


@given(st.sampled_from(PROMISED), OTHERS, st.data())
def test_in_a_header_two_names_that_fit_are_refused(name, others, data):
    pair = [data.draw(alike(name)), data.draw(alike(name))]
    header = data.draw(st.permutations([*pair, *others]))
    with pytest.raises(InputError, match=f"log.csv must have one column {name}, got ") as caught:
        place_of("log.csv", header, name)
    assert all(repr(written) in str(caught.value) for written in pair)


def test_in_a_header_a_name_that_is_not_there_is_missed():
    with pytest.raises(InputError, match="log.csv must have a column event, got events, Event ID"):
        place_of("log.csv", ["events", "Event ID"], "event")
