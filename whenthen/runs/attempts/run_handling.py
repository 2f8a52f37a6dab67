"""What a worker does with a delivered run, and what the end of an attempt means. Pure.

Called by `worker`. Meaning: docs/deployments.md, "Workers".
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from whenthen.runs.pauses.pause_records import waits_for
from whenthen.runs.processes import describe_exit
from whenthen.runs.reaper import Assessment, ReaperSettings, assess
from whenthen.runs.result_file import Report
from whenthen.runs.run_states import due_at
from whenthen.schemas.deployments import (
    ACTIVE,
    WAITING,
    FlowRun,
    RunState,
)
from whenthen.schemas.times import format_duration

__all__ = ["Ending", "Handling", "Stop", "ending_of", "handling", "suspended_ending"]

_LONGEST_NAK = timedelta(hours=1)
_STOPS_SOON = timedelta(seconds=0.5)
#: how a flow may end other than Failed, by the name of a failed state or the type of another
_FLOW_ENDS = {"TimedOut": RunState.TIMED_OUT, "CANCELLED": RunState.CANCELLED, "CRASHED": RunState.CRASHED}


class Handling(StrEnum):
    """What to do with a delivered run."""

    DROP = "drop"  #: it has ended or is paused: acknowledge it
    WAIT = "wait"  #: it is not due
    BUSY = "busy"  #: another worker has it
    MARK_CRASHED = "mark_crashed"  #: the worker that had it died
    START = "start"


def handling(run: FlowRun, beat: datetime | None, now: datetime, lost_after: timedelta) -> tuple[Handling, timedelta]:
    """What to do with the run, and the delay of its redelivery. `beat` is its last heartbeat; that of a run which waits is one of a
    process that is still being stopped, since the run was suspended."""
    if run.state in WAITING:
        wait = due_at(run) - now
        if wait > timedelta(0):
            return Handling.WAIT, min(wait, _LONGEST_NAK)
        if beat is not None and now - beat <= lost_after:
            return Handling.BUSY, _STOPS_SOON
        return Handling.START, timedelta(0)
    if run.state in ACTIVE:
        assessment = assess(run, beat, now, ReaperSettings(lost_after=lost_after))
        return (
            (Handling.BUSY, lost_after / 4) if assessment is Assessment.FINE else (Handling.MARK_CRASHED, timedelta(0))
        )
    return Handling.DROP, timedelta(0)


class Stop(StrEnum):
    """Why the worker stopped a process that was still running."""

    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    LOST = "lost"  #: the run belongs to another worker, or soon may
    SUSPENDED = "suspended"  #: somebody suspended the run
    OVERSTAYED = "overstayed"  #: it asked to be suspended, and did not end
    DRAIN = "drain"  #: the worker is stopping


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The result of an attempt."""

    state: RunState
    message: str = ""
    exit_code: int | None = None
    result: Any = None
    retry: bool = True
    pause: dict[str, Any] | None = None  #: of a run that is suspended


def ending_of(exit_code: int, stop: Stop | None, timeout: timedelta | None, report: Report, said: str) -> Ending:
    """The result of an attempt whose process exited. `said` is its last line on stderr."""
    if stop is Stop.TIMEOUT:
        limit = format_duration(timeout or timedelta(0))
        return Ending(state=RunState.TIMED_OUT, message=f"took longer than {limit}", exit_code=exit_code)
    if exit_code == 0:
        name = "" if report.state in ("", "Completed") else report.state
        message = "; ".join(filter(None, [": ".join(filter(None, [name, report.message])), report.note]))
        return Ending(state=RunState.COMPLETED, exit_code=0, result=report.result, message=message)
    message = report.error or ": ".join(filter(None, [describe_exit(exit_code), said]))
    return Ending(
        state=_FLOW_ENDS.get(report.state if report.type == "FAILED" else report.type, RunState.FAILED),
        message="; ".join(filter(None, [message, report.note])),
        exit_code=exit_code,
        retry=report.retry,
    )


def suspended_ending(exit_code: int, stop: Stop | None, report: Report, pause: dict[str, Any] | None) -> Ending | None:
    """The result of an attempt that asked to be suspended with this pause; None where it did not, or went on to its end all the same."""
    if pause is None or stop not in (None, Stop.OVERSTAYED) or (exit_code == 0 and report.type != "PAUSED"):
        return None
    return Ending(state=RunState.SUSPENDED, message=waits_for(pause), pause=pause)
