"""Runs and task runs as pictures, and refused requests by cause."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from whenthen.ui import refusals_by_cause, run_timeline

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@dataclass
class Run:
    id: str
    deployment: str
    state: str = "Completed"
    created: str = NOW.isoformat()
    started: str | None = None
    ended: str | None = None


@dataclass
class Note:
    at: str
    who: str
    what: str
    detail: str
    cause: str
    count: int = 1


def at(minutes: float) -> str:
    return (NOW + timedelta(minutes=minutes)).isoformat()


def bars(picture: object) -> list[tuple[float, float, float]]:
    """x, y and width of each bar."""
    found = re.findall(r'<rect class="[^"]*" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)"', str(picture))
    return [(float(x), float(y), float(width)) for x, y, width in found]


def test_there_is_no_picture_of_no_runs() -> None:
    assert run_timeline([], now=NOW) is None


def test_runs_of_one_time_lie_below_each_other_and_later_ones_beside_them() -> None:
    runs = [Run("a", "load", started=at(-10), ended=at(-6)), Run("b", "load", started=at(-9), ended=at(-5))]
    later = Run("c", "load", started=at(-3), ended=at(0))
    timeline = run_timeline([*runs, later], now=NOW)
    assert timeline is not None
    first, second, third = bars(timeline.lanes[0].picture)
    assert first[1] != second[1]
    assert first[1] == third[1]
    assert third[0] > first[0] + first[2]


def test_a_run_that_goes_on_ends_now() -> None:
    timeline = run_timeline([Run("a", "load", state="Running", started=at(-10))], now=NOW)
    assert timeline is not None
    assert timeline.ends == NOW
    assert bars(timeline.lanes[0].picture) == [(0.0, 3.0, 994.0)]


def test_how_a_run_ended_is_seen_without_colours() -> None:
    runs = [Run(state, "load", state=state) for state in ("Completed", "Failed", "Running")]
    timeline = run_timeline(runs, now=NOW)
    assert timeline is not None
    heights = re.findall(r'<rect class="run (\w+)"[^>]* height="(\d+)"', str(timeline.lanes[0].picture))
    assert len(set(heights)) == len({height for _, height in heights}) == 3


def test_a_run_that_took_no_time_and_clocks_that_go_back_are_drawn() -> None:
    runs = [Run("a", "load", started=at(0), ended=at(0)), Run("b", "load", started=at(0), ended=at(-5))]
    timeline = run_timeline(runs, now=NOW)
    assert timeline is not None
    assert len(bars(timeline.lanes[0].picture)) == 2


def test_more_deployments_than_there_is_room_for_are_counted() -> None:
    timeline = run_timeline([Run(str(number), f"d{number}") for number in range(25)], now=NOW)
    assert timeline is not None
    assert (len(timeline.lanes), timeline.more) == (20, 5)


def test_names_of_others_are_no_markup_in_a_picture() -> None:
    timeline = run_timeline([Run('"><script>', "</svg><img src=x>\u202e", state="<b>")], now=NOW)
    assert timeline is not None
    picture = str(timeline.lanes[0].picture)
    assert "<script>" not in picture
    assert "<img" not in picture
    assert "<b>" not in picture
    assert "\u202e" not in picture


def test_refusals_are_put_together_by_what_and_cause_with_samples_that_differ() -> None:
    notes = [
        Note(at(3), "a", "hook", "id is missing", "invalid_event"),
        Note(at(2), "b", "hook", "id is missing", "invalid_event", count=40),
        Note(at(1), "a", "hook", "name is missing", "invalid_event"),
        Note(at(0), "a", "hook", "", "refused"),
    ]
    first, second = refusals_by_cause(notes)
    assert (first.cause, first.count, first.last, first.senders) == ("invalid_event", 42, at(3), {"a", "b"})
    assert [each.detail for each in first.samples] == ["id is missing", "name is missing"]
    assert (second.cause, second.count) == ("refused", 1)
