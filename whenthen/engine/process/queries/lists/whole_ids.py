"""What an id stands for, whole or shortened, also where only the history has it: firings and actions by whole ids, rows of events and runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from whenthen.engine.process.id_prefixes import MIN_CHARS, IdPrefixes, candidates, choose
from whenthen.engine.process.queries.history.history_questions import HistoryQuestions
from whenthen.engine.process.queries.lists.merged_lists import without_history
from whenthen.schemas.errors import BusUnavailable, NotFound

__all__ = ["WholeIds"]

MOST = 20  #: firings of the history that begin with a text
MOST_ROWS = 100  #: events or runs of the history that begin with a text
_BEGIN = re.compile(r"[0-9a-f]{6,31}(?=[-.])")  #: of a shortened id that ends as the whole one does


class WholeIds:
    def __init__(self, ids: IdPrefixes, history: HistoryQuestions) -> None:
        self._ids = ids
        self._history = history

    async def firing(self, text: str) -> str:
        """The id of the firing. Errors: see `IdPrefixes`."""
        try:
            return await self._ids.firing(text)
        except NotFound as error:
            begin = text.removesuffix("…")
            if len(begin) < MIN_CHARS:
                raise
            try:
                rows = await self._history.rows({"kind": "firings", "id_prefix": begin, "limit": MOST})
            except BusUnavailable:
                raise error from None
            found = [str(row["id"]) for row in rows["rows"]]
            return choose(text, found, "firing", listed_by="`whenthen firings` lists them")

    async def action(self, text: str) -> tuple[str, str]:
        """The firing of an action, and its key. Errors: see `IdPrefixes`."""
        firing, _, index = text.rpartition(".")
        if not firing or not index.isascii() or not index.isdecimal() or len(index) > 6:
            raise NotFound(
                f"there is no action {text[:200]!r}; a key is <firing>.<index>, and `whenthen actions` lists them"
            )
        whole = await self.firing(firing)
        return whole, f"{whole}.{int(index)}"

    async def row(self, kind: str, text: str, *, exact: bool = False) -> Mapping[str, Any] | None:
        """The newest row of the history of the event, or run, that has the id; None when it has none, or nobody has a history.

        Raises:
            Conflict: the beginning of several. BusUnavailable: NATS does not answer.
        """
        try:
            rows = await self._begin_with(kind, text.removesuffix("…"))
            if (
                not (found := candidates(text, (row["id"] for row in rows)))
                and not exact
                and (begin := _BEGIN.match(text))
            ):
                rows = await self._begin_with(kind, begin[0])
                found = candidates(text, (row["id"] for row in rows))
        except BusUnavailable as error:
            without_history(error)
            return None
        if not found or (exact and found != [text]):
            return None
        whole = choose(text, found, kind.removesuffix("s"), listed_by=f"`whenthen {kind}` lists them")
        return next(row for row in rows if row["id"] == whole)

    async def _begin_with(self, kind: str, begin: str) -> Sequence[Mapping[str, Any]]:
        if len(begin) < MIN_CHARS:
            return []
        rows: Sequence[Mapping[str, Any]] = (
            await self._history.rows({"kind": kind, "id_prefix": begin, "limit": MOST_ROWS})
        )["rows"]
        return rows
