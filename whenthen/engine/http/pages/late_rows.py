"""What of a page the history has not taken yet. A part of a page that may still be filled is marked (`data-again`): the script asks for it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from whenthen.engine.http.models import answer_models as answers
from whenthen.schemas.times import parse_time

__all__ = ["counts_may_follow", "states_may_follow", "tries_may_follow"]

#: in which the history has counted what happened, but for one that is far behind
COUNTED: Final = timedelta(minutes=1)
#: in which it has what must be there; what is older and missing was never stored, or is not kept any more
TAKEN: Final = timedelta(days=1)


def counts_may_follow(found: object, newest: str | None) -> bool:
    """Whether what was counted may be without the newest that there is, or could not be asked (`found` is None)."""
    return found is None or (newest is not None and _since(newest) < COUNTED)


def tries_may_follow(action: answers.ActionState, tries: Sequence[Mapping[str, Any]] | None) -> bool:
    """Whether tries of an action have ended that are not among these."""
    if tries is None:
        return True
    if _since(action.at) > TAKEN:
        return False
    begun = action.outcome == "retrying" and action.next_at is None  # then the last one has not ended
    ended = action.attempt - 1 if begun else action.attempt
    if not {*range(1, ended + 1)} <= {each["attempt"] for each in tries}:
        return True
    return ended > 0 and not begun and all(each["state"] != action.outcome for each in tries)


def states_may_follow(run: answers.FlowRunDetail, states: Sequence[Mapping[str, Any]] | None) -> bool:
    """Whether the state of a run is not among these."""
    if states is None:
        return True
    return _since(run.changed) < TAKEN and all(
        (each["state"], each["changed"]) != (run.state.value, run.changed) for each in states
    )


def _since(moment: str) -> timedelta:
    return datetime.now(UTC) - parse_time(moment)
