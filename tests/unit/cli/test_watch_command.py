"""`whenthen watch`: what it reads, and what it shows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whenthen.cli.lists.filter_pairs import FILTERS
from whenthen.cli.watch import event_parts as parts
from whenthen.cli.watch.event_parts import EventPart, TooLong, event_parts
from whenthen.cli.watch.watch_command import KINDS, SHOWN, line_of
from whenthen.engine.live import KINDS as SERVED

STREAM = (
    b"retry: 2000\nid: t1\n\n"
    b'id: t2.e00000000-1\nevent: events\ndata: {"id":"a\xe2\x80\xa8b"}\n\n'
    b": heartbeat\nid: t3\n\n"
    b"event: end\ndata: {}\n\n"
    b"event: cut off\nda"
)


@given(st.lists(st.integers(1, 30), max_size=60))
def test_parts_come_whole_however_the_bytes_are_cut(sizes: list[int]) -> None:
    chunks, rest = [], STREAM
    for size in sizes:
        chunks.append(rest[:size])
        rest = rest[size:]
    assert list(event_parts([*chunks, rest])) == [
        EventPart("", "t1", b""),
        EventPart("events", "t2.e00000000-1", b'{"id":"a\xe2\x80\xa8b"}'),
        EventPart("", "t3", b""),
        EventPart("end", None, b"{}"),
    ]


def test_a_stream_without_parts_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MOST_BYTES", 1000)
    with pytest.raises(TooLong, match="another program"):
        list(event_parts([b"x" * 400] * 3))


def test_the_kinds_are_those_of_the_server_and_each_has_a_line() -> None:
    assert list(KINDS) == list(SERVED)
    assert set(SHOWN) == {*KINDS, "gap"}
    assert {name for kind in SERVED.values() for name in kind.equal} <= set(FILTERS)


def test_what_a_terminal_obeys_is_shown_and_not_obeyed() -> None:
    item = {
        "stored": "2026-01-31T08:00:00.000000Z",
        "kind": "request-refused",
        "who": "\x1b[2J",
        "what": "a\nb",
        "detail": "\u202ex",
    }
    line = line_of("audit", item)
    assert line.isprintable()
    assert "\\x1b[2J" in line
    assert "a b" in line


def test_a_kind_of_a_later_version_is_shown() -> None:
    assert line_of("later", {"stored": "2026-01-31T08:00:00.000000Z"}).split()[1] == "later"


def test_a_gap_says_what_was_missed() -> None:
    line = line_of("gap", {"reason": "slow", "detail": "too slow", "missed": {"events": 3}})
    assert line.endswith("slow  too slow  3 events")
