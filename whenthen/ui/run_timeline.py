"""Runs over time as a picture: a lane for each deployment, a bar for each run, as SVG with classes of the stylesheet.

Also the task runs of one run, each a bar below the other. Called by templates; the numbers stand beside the pictures in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from markupsafe import Markup

from whenthen.ui.page_links import page_url
from whenthen.ui.reason_words import reason_tone
from whenthen.ui.shown_text import inert

__all__ = ["Lane", "Timeline", "run_timeline", "task_bars"]

MOST_LANES = 20
MOST_ROWS = 6  #: runs beside each other in one lane; further ones lie on the last row
_WIDTH = 1000.0
_LEAST = 6.0  #: width of a bar
_ROW = 16
#: height of a bar by tone, so that a failure stands out in grey, too; what is neither goes on, and has an outline in the stylesheet
_HEIGHTS = {"good": 8, "bad": 14}
_OTHERS = 10


class TimedRun(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def deployment(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def created(self) -> str: ...
    @property
    def started(self) -> str | None: ...
    @property
    def ended(self) -> str | None: ...


class TimedTask(Protocol):
    @property
    def state(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def created(self) -> str: ...
    @property
    def started(self) -> str | None: ...
    @property
    def ended(self) -> str | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """The runs of one deployment."""

    deployment: str
    count: int
    picture: Markup


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Lanes with one axis of time; `more` deployments have none, as there is no room."""

    begins: datetime
    ends: datetime
    lanes: tuple[Lane, ...]
    more: int


def run_timeline(runs: Sequence[TimedRun], *, now: datetime) -> Timeline | None:
    """A picture of runs; those that have not ended go on until `now`. None without any."""
    spans = [(run, *_span(run.started or run.created, run.ended, now)) for run in runs]
    if not spans:
        return None
    first = min(begin for _, begin, _ in spans)
    last = max(max(end for _, _, end in spans), first + 1)
    lanes: dict[str, list[tuple[TimedRun, float, float]]] = {}
    for run, begin, end in spans:
        lanes.setdefault(run.deployment, []).append((run, begin, end))
    shown = list(lanes.items())[:MOST_LANES]
    return Timeline(
        begins=datetime.fromtimestamp(first, UTC),
        ends=datetime.fromtimestamp(last, UTC),
        lanes=tuple(
            Lane(deployment=name, count=len(each), picture=_lane(name, each, first, last - first))
            for name, each in shown
        ),
        more=len(lanes) - len(shown),
    )


def _lane(name: str, spans: list[tuple[TimedRun, float, float]], first: float, span: float) -> Markup:
    rows: list[float] = []  #: where the last bar of each row ends
    parts: list[Markup] = []
    for run, begin, end in sorted(spans, key=lambda each: each[1]):
        x = (begin - first) / span * (_WIDTH - _LEAST)
        width = max(_LEAST, (end - begin) / span * (_WIDTH - _LEAST))
        row = next((number for number, until in enumerate(rows) if until <= x), len(rows))
        row = min(row, MOST_ROWS - 1)
        if row == len(rows):
            rows.append(0.0)
        rows[row] = max(rows[row], x + width + 1)
        label = f"{run.state}: {_seconds(end - begin)}, run {run.id}"
        tone = reason_tone(run.state)
        parts.append(
            Markup(
                '<a href="{}" aria-label="{}"><rect class="run {}" x="{}" y="{}" width="{}" height="{}" rx="2"><title>{}</title></rect></a>'
            ).format(page_url("/run", id=run.id), label, tone, round(x, 1), row * _ROW + _above(tone), round(width, 1),
                     _height(tone), label)
        )  # fmt: skip
    height = max(len(rows), 1) * _ROW
    return Markup(
        '<svg class="lane" viewBox="0 0 {} {}" height="{}" preserveAspectRatio="none" role="group" aria-label="{}">{}</svg>'
    ).format(int(_WIDTH), height, height, inert(f"{len(spans)} runs of {name[:200]}"), Markup("").join(parts))


def task_bars(tasks: Sequence[TimedTask], *, begins: str | None, ends: str | None, now: datetime) -> list[Markup]:
    """A bar for each task run, on the axis from the first time to the last."""
    spans = [_span(task.started or task.created, task.ended, now) for task in tasks]
    outer = [_span(begins, ends, now)] if begins else []
    first = min((begin for begin, _ in [*spans, *outer]), default=0.0)
    span = max(max((end for _, end in [*spans, *outer]), default=1.0) - first, 0.001)
    found = []
    for task, (begin, end) in zip(tasks, spans, strict=True):
        tone = _task_tone(task.type)
        x = (begin - first) / span * (_WIDTH - _LEAST)
        found.append(
            Markup(
                '<svg class="lane task" viewBox="0 0 {} {}" height="{}" preserveAspectRatio="none" role="img" aria-label="{}">'
                '<rect class="run {}" x="{}" y="{}" width="{}" height="{}" rx="2"/></svg>'
            ).format(int(_WIDTH), _ROW, _ROW, f"from {_seconds(begin - first)} on for {_seconds(end - begin)}",
                     tone, round(x, 1), _above(tone), round(max(_LEAST, (end - begin) / span * (_WIDTH - _LEAST)), 1), _height(tone))
        )  # fmt: skip
    return found


def _height(tone: str) -> int:
    return _HEIGHTS.get(tone, _OTHERS)


def _above(tone: str) -> int:
    """How far below the top of its row a bar begins."""
    return (_ROW - _height(tone)) // 2


def _task_tone(type: str) -> str:
    return {"COMPLETED": "good", "FAILED": "bad", "CRASHED": "bad", "CANCELLED": "warn"}.get(type, "calm")


def _span(begin: str, end: str | None, now: datetime) -> tuple[float, float]:
    first = datetime.fromisoformat(begin).timestamp()
    return first, max(first, now.timestamp() if end is None else datetime.fromisoformat(end).timestamp())


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"
