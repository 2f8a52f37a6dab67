"""Ids of the live stream: what they say, and that nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whenthen.engine.live.live_marks import Mark, Place, decode_id, encode_id, short_identity
from whenthen.schemas.errors import InvalidInput

PLACES = {"e": 1, "g": 1, "d": 3}
seqs = st.integers(0, 2**63 - 1)
places = st.builds(Place, seqs, st.integers(0, 999_999_999))
marks = st.fixed_dictionaries(
    {},
    optional={
        letter: st.builds(
            Mark, st.text("0123456789abcdef", min_size=8, max_size=8), st.lists(places, min_size=n, max_size=n)
        )
        for letter, n in PLACES.items()
    },
)


@given(st.integers(0, 10**12 - 1), marks)
def test_an_id_says_what_was_put_into_it(at_s: int, shown: dict[str, Mark]) -> None:
    found = decode_id(encode_id(at_s, shown), PLACES)
    assert (found.at_s, found.marks) == (at_s, shown)


@given(st.text(max_size=60) | st.text("t0123456789abcdefg.-+", max_size=60))
def test_other_text_is_an_id_or_refused_by_name(text: str) -> None:
    try:
        found = decode_id(text, PLACES)
    except InvalidInput as error:
        refusal = error
    else:
        assert decode_id(encode_id(found.at_s, found.marks), PLACES) == found
        return
    assert refusal.field == "Last-Event-ID"


def test_an_id_of_another_number_of_shards_is_none() -> None:
    with pytest.raises(InvalidInput):
        decode_id("t1.d00000000-1-2", PLACES)


def test_a_mark_takes_over_what_is_further_or_another_stream() -> None:
    mark = Mark(short_identity("a"), [Place(5, 2), Place(9)])
    mark.advance(Mark(short_identity("a"), [Place(5), Place(11)]))
    assert mark.places == [Place(5, 2), Place(11)]
    mark.advance(Mark(short_identity("b"), [Place(), Place()]))
    assert (mark.identity, mark.places) == (short_identity("b"), [Place(), Place()])
