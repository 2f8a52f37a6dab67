"""Dead letters: actions whose last try failed. List them, send them again, drop them.

Called by the HTTP API. A letter holds the task as it was; sending it again puts the task back and takes the letter
away in one atomic batch, with attempts counted on. What the action does is what its rule says today: whoever calls looks it up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from whenthen.actions import spec_digest
from whenthen.engine.bus.batches import StaleBatch, publish_batch
from whenthen.engine.bus.protocol import Delivery
from whenthen.engine.bus.records import (
    Message,
    Outcome,
    OutcomeState,
    decode_task,
)
from whenthen.engine.bus.request_client import RequestClient
from whenthen.engine.bus.stream_pages import StoredMessage, StreamPage, newest
from whenthen.engine.bus.streams import ENGINE
from whenthen.engine.bus.subjects import (
    action_subject,
    dead_subjects,
    outcome_subject,
    short_token,
)
from whenthen.engine.execution.letter_counts import LetterCounts
from whenthen.schemas.errors import Conflict, NotFound
from whenthen.schemas.firings import ActionTask
from whenthen.schemas.times import format_time

__all__ = ["DeadLetter", "DeadLetters", "decode_letter"]

_INDEX = re.compile(r"[0-9]{1,6}")  #: of an action in its automation

#: how long the place of a letter that was taken away stays taken: as long as the letter could come back, of a backup or a crash
TOMBSTONE_S = 30 * 86400


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


class DeadLetters:
    """Outcomes and dead letters of all processes, as `ENGINE` has them."""

    def __init__(self, client: RequestClient, *, task_ttl_s: int = 30 * 86400, outcome_ttl_s: int = 30 * 86400) -> None:
        self._client = client
        self._task_ttl_s = task_ttl_s
        self._outcome_ttl_s = outcome_ttl_s
        self._counts = LetterCounts(client)

    async def letters(
        self, *, automation: str | None = None, kind: str | None = None, limit: int = 1000, before: int | None = None
    ) -> StreamPage[DeadLetter]:
        """Dead letters, the newest first; `kind` is an action type, `before` excludes that revision and later ones.

        Raises:
            BusUnavailable: no answer.
        """

        def pick(kept: StoredMessage) -> DeadLetter | None:
            letter = decode_letter(kept.data, kept.subject, kept.seq) if kept.data else None
            return letter if letter is not None and kind in (None, letter.task.action.get("type")) else None

        subject = f"engine.dead.{short_token(automation)}.>" if automation else "engine.dead.>"
        return await newest(self._client, ENGINE, subject, limit=limit, pick=pick, before=before)

    async def counts(self) -> Mapping[str, int]:
        """How many dead letters there are, all of them, by the subject token of their automation (`short_token`).

        Raises:
            BusUnavailable: no answer.
        """
        return await self._counts.read()

    async def letter(self, key: str) -> DeadLetter:
        """The dead letter of an action. Errors: see `redrive`."""
        return await self._find(key)

    async def redrive(self, key: str, *, spec: bytes | None = None, new_key: bool = False) -> dict[str, Any]:
        """Have an action tried again, with all the attempts that its rule allows.

        `spec` is the specification of its action as of today, None for the one that the letter names. With `new_key`
        it is tried under another idempotency key, so that a receiver that knows the old one does it again.

        Raises:
            NotFound: there is no dead letter of that key.
            Conflict: it was redriven or dropped meanwhile.
            BusUnavailable: not known to be done; look whether the letter is still there.
        """
        letter = await self._find(key)
        fields: dict[str, Any] = orjson.loads(letter.raw)
        fields["extra"] = {**fields.get("extra", {}), "attempts": letter.attempts}
        if spec is not None:
            # executors have it with the rules in force; only an evaluation may publish it
            fields.pop("action", None)  # of an earlier version
            fields["type"], fields["digest"] = orjson.loads(spec).get("type"), spec_digest(spec)
        if new_key:
            fields["extra"]["key"] = f"{letter.key}.r{letter.attempts}"
        firing = letter.task.firing
        subject = action_subject(firing.automation, firing.id, letter.task.index)
        task = Message(subject, orjson.dumps(fields), self._task_ttl_s)
        await self._replace(letter, OutcomeState.RETRYING, [task])
        return {"key": letter.key, "outcome": OutcomeState.RETRYING.value, "attempts": letter.attempts}

    async def drop(self, key: str) -> dict[str, Any]:
        """Give an action up. Errors: see `redrive`."""
        letter = await self._find(key)
        await self._replace(letter, OutcomeState.DROPPED, [])
        return {"key": letter.key, "outcome": OutcomeState.DROPPED.value, "attempts": letter.attempts}

    async def _find(self, key: str) -> DeadLetter:
        firing, _, index = key.rpartition(".")
        if firing and _INDEX.fullmatch(index):
            for letter in await self._read(dead_subjects(firing, int(index)), 10):
                if letter.key == key:
                    return letter
        raise NotFound(f"there is no dead letter {key[:200]!r}; list them with the outcome `dead`")

    async def _read(self, subject: str, limit: int) -> list[DeadLetter]:
        found: list[DeadLetter] = []

        def receive(message: Delivery) -> None:
            headers = message.headers
            if message.data:
                found.append(decode_letter(message.data, headers["Nats-Subject"], int(headers["Nats-Sequence"])))

        request = {"seq": 1, "next_by_subj": subject, "batch": limit, "max_bytes": 32 << 20}
        await self._client.read_stored(ENGINE, request, receive)
        return found

    async def _replace(self, letter: DeadLetter, state: OutcomeState, messages: list[Message]) -> None:
        task = letter.task
        now = format_time(datetime.now(UTC))
        outcome = Outcome.of(task, state, attempt=letter.attempts, at=now, error=letter.error)
        subject = outcome_subject(task.firing.automation, task.firing.id, task.index)
        batch = [
            *messages,
            Message(subject, outcome.encode(), self._outcome_ttl_s),
            Message(letter.subject, b"", TOMBSTONE_S),
        ]
        try:
            await publish_batch(self._client, batch, expect=letter.revision)
        except StaleBatch:
            raise Conflict(f"dead letter {letter.key} was redriven or dropped by somebody else") from None


def decode_letter(data: bytes, subject: str, revision: int) -> DeadLetter:
    """A letter as it is stored."""
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
