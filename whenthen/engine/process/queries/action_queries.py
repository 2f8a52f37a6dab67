"""Actions: waiting tasks, outcomes, and dead letters."""

from __future__ import annotations

from typing import Any

import orjson

from whenthen.engine.bus.records import OutcomeState
from whenthen.engine.bus.stream_pages import StoredMessage
from whenthen.engine.bus.streams import ENGINE
from whenthen.engine.bus.subjects import short_token
from whenthen.engine.execution import DeadLetters, decode_letter
from whenthen.engine.http import Listing, Page
from whenthen.engine.http import answer_models as answers
from whenthen.engine.process.queries.history.history_questions import HistoryQuestions
from whenthen.engine.process.queries.lists.asked_list import AskedList, read_asked
from whenthen.engine.process.queries.lists.known_names import KnownNames
from whenthen.engine.process.queries.lists.merged_lists import ListKind, MergedLists, sequence
from whenthen.engine.process.queries.lists.whole_ids import WholeIds
from whenthen.schemas.errors import BusUnavailable, NotFound
from whenthen.schemas.times import format_us, parse_time, to_us

__all__ = ["ActionQueries"]

MOST_OF_FIRING = 1000  #: actions of one firing that are shown
_OUTCOMES = ("waiting", *(state.value for state in OutcomeState))


class ActionQueries:
    def __init__(
        self, dead_letters: DeadLetters, lists: MergedLists, names: KnownNames, ids: WholeIds, history: HistoryQuestions
    ) -> None:
        self._history = history
        self._ids = ids
        self._dead_letters = dead_letters
        self._lists = lists
        self._names = names

    async def list_actions(self, page: Page) -> Listing[answers.ActionState]:
        outcome = page.choice("outcome", _OUTCOMES)
        if outcome is not None:
            page = page.with_filter("outcome", outcome)
        if "firing" in page.filters:
            page = page.with_filter("firing", await self._ids.firing(page.filters["firing"]))
        asked = read_asked("actions", page, columns=_COLUMNS, filters=_FILTERS, now=self._lists.clock())
        listed = await self._lists.page(_DEAD if outcome == "dead" else _ACTIONS, asked)
        return self._names.noted(page, listed, [answers.ActionState.model_validate(each.fields) for each in listed])

    async def get_action(self, key: str) -> answers.ActionState:
        """How an action stands, with its tries. Raises NotFound, Conflict (the beginning of several)."""
        firing, whole = await self._ids.action(key)
        for each in await self.of_firing(firing):
            if each.key == whole:
                return await self._with_tries(each)
        raise NotFound(
            f"there is no action {whole[:200]!r}; `whenthen firings show {firing[:64]}` has those of its firing"
        )

    async def _with_tries(self, action: answers.ActionState) -> answers.ActionState:
        try:
            rows = await self._history.action_tries(action.key)
        except BusUnavailable:
            return action
        fields = answers.ActionTry.model_fields
        tries = [answers.ActionTry(**{name: row[name] for name in fields}) for row in rows]
        return action.model_copy(update={"tries": tries})

    async def of_firing(self, firing: str) -> list[answers.ActionState]:
        """Those of a firing, by its whole id, in their order."""
        page = Page(limit=MOST_OF_FIRING, filters={"firing": firing})
        asked = read_asked("actions", page, columns=_COLUMNS, filters=_FILTERS, now=self._lists.clock())
        listed = await self._lists.page(_ACTIONS, asked)
        found = [answers.ActionState.model_validate(each.fields) for each in listed]
        return sorted(found, key=lambda each: int(each.key.rpartition(".")[2]))

    async def count_dead(self, automation: str | None) -> answers.DeadLetterCount:
        counts = await self._dead_letters.counts()
        return answers.DeadLetterCount(
            count=counts.get(short_token(automation), 0) if automation else sum(counts.values())
        )


def _subjects(asked: AskedList) -> list[str]:
    automation, firing = asked.equal.get("automation"), asked.equal.get("firing")
    below = f"{short_token(automation) if automation else '*'}.{short_token(firing) if firing else '*'}.*"
    state = asked.equal.get("state")
    kinds = ("action",) if state == "waiting" else ("outcome",) if state else ("action", "outcome")
    return [f"engine.{kind}.{below}" for kind in kinds]


def _dead_subjects(asked: AskedList) -> list[str]:
    automation = asked.equal.get("automation")
    return [f"engine.dead.{short_token(automation)}.>" if automation else "engine.dead.>"]


def _item(message: StoredMessage) -> dict[str, Any] | None:
    if not message.data:
        return None
    found: dict[str, Any] = orjson.loads(message.data)
    if message.subject.startswith("engine.action."):
        return _waiting(found, message)
    found["type"] = found.pop("action")
    found["outcome"] = found.pop("state")
    found.pop("sent", None)  # of each try, in the history
    return {**found, "seq": message.seq}


def _waiting(task: dict[str, Any], message: StoredMessage) -> dict[str, Any]:
    """An action that no try has ended yet."""
    return {
        "key": task["key"],
        "automation": task["firing"]["automation"],
        "type": task["action"].get("type") if "action" in task else task["type"],
        "outcome": "waiting",
        "attempt": 0,
        "at": format_us(to_us(parse_time(message.time))),  # as the history has it
        "firing": task["firing"]["id"],
        "seq": message.seq,
    }


def _from_row(row: dict[str, Any]) -> dict[str, Any]:
    item = {
        "key": row["id"],
        "automation": row["automation"],
        "type": row["type"],
        "outcome": row["state"],
        "attempt": row["attempt"],
        "at": row.get("at") or format_us(row["at_us"]),
        "firing": row["firing"],
        "seq": sequence(row["pos"]),
    }
    if row["state"] == "waiting":
        return item
    return {
        **item,
        "error": row.get("error") or "",
        "result": row.get("result"),
        "next_at": row.get("next_at"),
    }


def _dead(message: StoredMessage) -> dict[str, Any] | None:
    if not message.data:
        return None
    letter = decode_letter(message.data, message.subject, message.seq)
    return {
        "key": letter.key,
        "automation": letter.task.firing.automation,
        "type": letter.task.action.get("type"),
        "outcome": "dead",
        "attempt": letter.attempts,
        "at": letter.at,
        "error": letter.error,
        "reason": letter.reason,
        "firing": letter.task.firing.id,
        "seq": letter.revision,
    }


_COLUMNS = {"automation": "automation", "state": "outcome", "firing": "firing", "type": "type"}
_FILTERS = {"automation": "automation", "outcome": "state", "firing": "firing", "type": "type"}
_ACTIONS = ListKind(
    stream=ENGINE,
    subjects=_subjects,
    all_subjects=("engine.action.>", "engine.outcome.>"),
    item=_item,
    from_row=_from_row,
    id_field="key",
    changes=True,
)
#: which of them are still there is known to the stream alone, which keeps them all
_DEAD = ListKind(
    stream=ENGINE,
    subjects=_dead_subjects,
    all_subjects=("engine.dead.>",),
    item=_dead,
    from_row=_from_row,
    id_field="key",
    in_history=False,
)
