"""Dead letters: actions whose last try failed. List them, send them again, drop them.

Called by the HTTP API and the wiring. A letter holds the task as it was; sending it again puts the task back and
takes the letter away in one atomic batch, with tries counted on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from nats.aio.msg import Msg

from whenthen.engine.commit import StaleBatch, publish_batch
from whenthen.engine.link import Link
from whenthen.engine.records import Message, Outcome, OutcomeState, decode_task
from whenthen.engine.streams import ENGINE
from whenthen.engine.subjects import action_subject, outcome_subject
from whenthen.schemas.errors import Conflict
from whenthen.schemas.firings import ActionTask

__all__ = ["DeadLetter", "drop", "letters", "redrive"]

TOMBSTONE_S = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """An action that failed for good."""

    key: str
    task: ActionTask
    error: str
    reason: str
    attempts: int
    at: str
    subject: str
    revision: int
    raw: bytes  #: the task as it was stored


async def letters(link: Link, *, automation: str | None = None, limit: int = 1000) -> list[DeadLetter]:
    """Dead letters, oldest first.

    Raises:
        BusUnavailable: no answer.
    """
    found: list[DeadLetter] = []

    def receive(message: Msg) -> bool:
        headers = message.headers or {}
        if "Status" in headers:
            return False
        if message.data:
            letter = _decode(message.data, headers["Nats-Subject"], int(headers["Nats-Sequence"]))
            if automation is None or letter.task.firing.automation == automation:
                found.append(letter)
        return True

    request = {"seq": 1, "next_by_subj": "engine.dead.>", "batch": limit, "max_bytes": 32 << 20}
    await link.stream_of(f"$JS.API.DIRECT.GET.{ENGINE}", orjson.dumps(request), receive)
    return found


async def redrive(link: Link, letter: DeadLetter, *, task_ttl_s: int = 30 * 86400, outcome_ttl_s: int = 0) -> None:
    """Have an action tried again, with all the tries that its rule allows.

    Raises:
        Conflict: it was redriven or dropped meanwhile.
        BusUnavailable: not known to be done; look whether the letter is still there.
    """
    task = letter.task
    fields: dict[str, Any] = orjson.loads(letter.raw)
    fields["extra"] = {**fields.get("extra", {}), "attempts": letter.attempts}
    place = (task.firing.automation, task.firing.id, task.index)
    outcome = Outcome(key=letter.key, state=OutcomeState.RETRYING, attempt=letter.attempts, at=letter.at)
    await _replace(
        link,
        letter,
        [
            Message(action_subject(*place), orjson.dumps(fields), task_ttl_s),
            Message(outcome_subject(*place), outcome.encode(), outcome_ttl_s),
        ],
    )


async def drop(link: Link, letter: DeadLetter) -> None:
    """Give an action up. Errors: see `redrive`."""
    await _replace(link, letter, [])


async def _replace(link: Link, letter: DeadLetter, messages: list[Message]) -> None:
    batch = [*messages, Message(letter.subject, b"", TOMBSTONE_S)]
    try:
        await publish_batch(link, batch, expect=letter.revision)
    except StaleBatch:
        raise Conflict(f"dead letter {letter.key} was redriven or dropped by somebody else") from None


def _decode(data: bytes, subject: str, revision: int) -> DeadLetter:
    fields = orjson.loads(data)
    raw = orjson.dumps(fields["task"])
    task, _ = decode_task(raw)
    return DeadLetter(
        key=task.key,
        task=task,
        error=fields["error"],
        reason=fields["reason"],
        attempts=fields["attempts"],
        at=fields["at"],
        subject=subject,
        revision=revision,
        raw=raw,
    )
