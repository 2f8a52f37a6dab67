"""What was missing for a rule to fire, in sentences, and what its windows hold."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.rules.test_why_replay import SECOND, START_US, compiled, event
from whenthen.rules.recorded import WhyAnswer, WhyReplay


def asked(name: str, *events: tuple[int, dict[str, Any]]) -> WhyAnswer:
    """The answer about the last of these events, each at so many seconds."""
    replay = WhyReplay(compiled(name), target=len(events), begins_whole=True, start_us=START_US)
    for number, (at_s, fields) in enumerate(events):
        at_us = START_US + at_s * SECOND
        replay.event(event(number, at_us, **fields), at_us)
    return replay.answer()


@pytest.mark.parametrize(
    ("name", "events", "missing"),
    [
        ("sliding", [(0, {})], "1 of 3 a within 10s; 2 more would have had to come before 2026-01-31T12:00:10Z"),
        (
            "sliding",
            [(0, {}), (4, {}), (5, {"id": "y"}), (6, {"id": "x"})],
            "",
        ),
        (
            "sliding",
            [(0, {}), (8, {}), (13, {})],
            "2 of 3 a within 10s; the third would have had to come before 2026-01-31T12:00:18Z",
        ),
        ("quiet", [(0, {}), (1, {}), (5, {})], "quiet until 2026-01-31T12:00:31Z after a firing"),
        ("after", [(0, {})], "no b of the same key came in the 10s before it"),
        ("every", [(0, {"name": "c"})], "expect: a, found c"),
        ("both", [(0, {"name": "c"})], "expect: a or b, found c"),
        ("both", [(0, {})], "1 of 2 parts fired; triggers[1] would have had to fire by 2026-01-31T12:00:20Z"),
        ("absence", [(0, {"name": "b"})], "fires at 2026-01-31T12:00:10Z unless a comes before"),
        ("burst", [(0, {})], "looked at again at 2026-01-31T12:00:10Z"),
        ("metric", [(0, {"n": 3})], "3"),
    ],
)
def test_the_smallest_thing_that_was_missing_is_named(
    name: str, events: list[tuple[int, dict[str, Any]]], missing: str
) -> None:
    answer = asked(name, *events)
    assert missing in "; ".join(answer.missing), answer
    assert bool(missing) == bool(answer.missing)


def test_the_window_is_shown_before_and_after_the_event() -> None:
    answer = asked("sliding", (0, {}), (4, {}), (5, {"id": "y"}), (6, {"id": "y"}))
    (before,), (after,) = answer.before, answer.after
    assert (before.key, before.count, [ref.id for ref in before.events]) == ("y", 1, ["e2"])
    assert (after.key, after.count, after.needed, [ref.id for ref in after.events]) == ("y", 2, 3, ["e2", "e3"])


def test_a_window_that_has_expired_is_not_shown() -> None:
    answer = asked("sliding", (0, {}), (100, {}))
    assert answer.before == []
    assert answer.after[0].count == 1
