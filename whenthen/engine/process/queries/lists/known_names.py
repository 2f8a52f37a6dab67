"""Names that a list was asked for and that nothing has: said with the list, as an empty one alone would mislead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel

from whenthen.engine.http import Listing, Page
from whenthen.engine.process.queries.lists.merged_lists import ListedPage
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.schemas.errors import did_you_mean

__all__ = ["KnownNames"]

T = TypeVar("T", bound=BaseModel)


class KnownNames:
    """The names in the rules in force."""

    def __init__(self, rule_registry: RuleRegistry) -> None:
        self._rule_registry = rule_registry

    def notes(self, page: Page) -> list[str]:
        """What is to be said of a page that is empty."""
        if page.before is not None:
            return []
        now = self._rule_registry.now
        found = []
        for name, known in (("automation", now.automations), ("deployment", now.deployments)):
            given = page.filters.get(name)
            if given is not None and given not in known:
                hint = did_you_mean(given, known)
                found.append(
                    f"nothing is kept of the {name} {given[:80]!r}, and the rules have none of that name{hint}"
                )
        return found

    def noted(self, page: Page, listed: ListedPage, items: Sequence[T]) -> Listing[T]:
        """The items as a page: what follows and the notes are those of `listed`."""
        found: Listing[T] = Listing(items)
        found.following = None if listed.following is None else {"before": listed.following}
        found.notes = [*listed.notes, *([] if items or listed.following else self.notes(page))]
        return found
