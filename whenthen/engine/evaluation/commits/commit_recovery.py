"""Which changes of a small commit are missing in `ENGINE`, once no publish of them can be in flight any more.

Called by the commit when a small one was interrupted (`engine.evaluation.commits.commit`). Windows and firings may be published again
unchanged: only the holder of the shard writes them. An action task may not: it may have been performed and deleted since. The
executor stores the outcome before it deletes the task, so a task that has neither message nor outcome was never stored; one
that is being performed, is finished, dead or redriven is left as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from whenthen.engine.bus.records import Message
from whenthen.engine.bus.subjects import outcome_of
from whenthen.engine.evaluation.log_ports import EngineStore

__all__ = ["missing"]


async def missing(store: EngineStore, messages: Sequence[Message]) -> list[Message]:
    """Those of `messages` that must be published, in their order. Only the caller may be publishing them.

    Raises:
        BusUnavailable: the store can not be read.
    """
    return [message for message in messages if not await _was_stored_task(store, message.subject)]


async def _was_stored_task(store: EngineStore, subject: str) -> bool:
    """Whether the subject is a task that is or was in the store. The task is looked for first: its outcome is there before it
    is deleted."""
    outcome = outcome_of(subject)
    return outcome is not None and (await store.last(subject) is not None or await store.last(outcome) is not None)
