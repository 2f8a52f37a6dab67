"""Whole ids of firings for shortened ones, of firings that the stream keeps and of those that only the history has."""

from __future__ import annotations

from whenthen.engine.process.id_prefixes import MIN_CHARS, IdPrefixes, choose
from whenthen.engine.process.queries.history.history_questions import HistoryQuestions
from whenthen.schemas.errors import BusUnavailable, NotFound

__all__ = ["WholeIds"]

MOST = 20  #: firings of the history that begin with a text


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
