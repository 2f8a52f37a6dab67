"""Actions: waiting tasks, outcomes, and dead letters."""

from __future__ import annotations

from typing import Any

import orjson

from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.records import OutcomeState
from whenthen.engine.bus.stream_pages import StoredMessage, StreamPage, newest
from whenthen.engine.bus.streams import ENGINE
from whenthen.engine.bus.subjects import short_token
from whenthen.engine.execution import DeadLetter, DeadLetters
from whenthen.engine.http import Page
from whenthen.engine.http import answer_models as answers

__all__ = ["ActionQueries"]

_OUTCOMES = ("waiting", *(state.value for state in OutcomeState))


class ActionQueries:
    def __init__(self, bus: Bus, dead_letters: DeadLetters) -> None:
        self._bus = bus
        self._dead_letters = dead_letters

    async def list_actions(self, page: Page) -> list[answers.ActionState]:
        automation, kind = page.filters.get("automation"), page.filters.get("type")
        outcome = page.choice("outcome", _OUTCOMES)
        if outcome == "dead":
            return await self._list_dead(page)
        found: dict[str, dict[str, Any]] = {}
        cut: list[int] = []  #: where each of the two lists ended that has more
        if outcome in (None, "waiting"):
            waiting = await newest(
                self._bus.client,
                ENGINE,
                f"engine.action.{short_token(automation)}.>" if automation else "engine.action.>",
                limit=page.limit,
                pick=_waiting,
                before=page.position,
            )
            found = {item["key"]: item for item in waiting if kind in (None, item["type"])}
            cut += [waiting.next] if waiting.next is not None else []
        if outcome != "waiting":
            tried = await self._dead_letters.list_actions(
                limit=page.limit, before=page.position, automation=automation, kind=kind, outcome=outcome
            )
            for item in tried:
                found[item["key"]] = {**found.get(item["key"], {}), **item}
            cut += [tried.next] if tried.next is not None else []
        newest_first = sorted(found.values(), key=lambda item: -int(item["seq"]))
        if not cut:
            return [answers.ActionState.model_validate(item) for item in newest_first[: page.limit]]
        shown = [item for item in newest_first if int(item["seq"]) >= max(cut)]
        answer = StreamPage(answers.ActionState.model_validate(item) for item in shown[: page.limit])
        answer.next = max(cut) if len(shown) <= page.limit else int(shown[page.limit - 1]["seq"])
        return answer

    async def _list_dead(self, page: Page) -> list[answers.ActionState]:
        letters = await self._dead_letters.letters(
            automation=page.filters.get("automation"),
            kind=page.filters.get("type"),
            limit=page.limit,
            before=page.position,
        )
        found = StreamPage(_dead(letter) for letter in letters)
        found.next = letters.next
        return found

    async def count_dead(self, automation: str | None) -> answers.DeadLetterCount:
        counts = await self._dead_letters.counts()
        return answers.DeadLetterCount(
            count=counts.get(short_token(automation), 0) if automation else sum(counts.values())
        )


def _waiting(message: StoredMessage) -> dict[str, Any] | None:
    """An action that no try has ended yet."""
    if not message.data:
        return None
    task: dict[str, Any] = orjson.loads(message.data)
    return {
        "key": task["key"],
        "automation": task["firing"]["automation"],
        "type": task["action"].get("type") if "action" in task else task["type"],
        "outcome": "waiting",
        "attempt": 0,
        "at": message.time,
        "firing": task["firing"]["id"],
        "seq": message.seq,
    }


def _dead(letter: DeadLetter) -> answers.ActionState:
    return answers.ActionState(
        key=letter.key,
        automation=letter.task.firing.automation,
        type=letter.task.action.get("type"),
        outcome="dead",
        attempt=letter.attempts,
        at=letter.at,
        error=letter.error,
        reason=letter.reason,
        firing=letter.task.firing.id,
        seq=letter.revision,
    )
