"""Which changes of a pack are missing in `ENGINE`, after whoever published them is known to be out of the way.

Called by the commit when a small one was interrupted (`engine.evaluation.commit`). Windows and firings may be published again as they
are: nobody else writes them. An action task may not: it may have been performed and deleted since. The executor
stores the outcome before it deletes the task, so a task of which neither is there has never been stored; one that is
under way, done, buried or redriven is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from whenthen.engine.bus import ENGINE, BusReason, Message, RequestClient, outcome_of, unavailable

__all__ = ["missing"]

_NONE = 10037  #: the server: there is no message


async def missing(client: RequestClient, messages: Sequence[Message]) -> list[Message]:
    """Those of `messages` that must be published, in their order. Nobody but the caller may be publishing them.

    Raises:
        BusUnavailable: the stream can not be read.
    """
    return [message for message in messages if not await _was_asked(client, message.subject)]


async def _was_asked(client: RequestClient, subject: str) -> bool:
    """Whether the subject is a task that is or was in the stream. The task is looked for first: it goes when its outcome
    is there."""
    outcome = outcome_of(subject)
    return outcome is not None and (await _there(client, subject) or await _there(client, outcome))


async def _there(client: RequestClient, subject: str) -> bool:
    answer = await client.api(f"STREAM.MSG.GET.{ENGINE}", {"last_by_subj": subject})
    error = answer.get("error")
    if error is None:
        return True
    if error.get("err_code") == _NONE:
        return False
    raise unavailable(f"{subject} can not be read: {error.get('description')}", BusReason.REFUSED)
