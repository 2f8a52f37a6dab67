"""Revisions of rules for the loop of a shard, without a store."""

from __future__ import annotations

from whenthen.engine.evaluation.memory_server import MemoryServer
from whenthen.engine.rule_sets import MarkerRecord, RevisionDamaged
from whenthen.schemas.errors import WhenthenError
from whenthen.triggers import RuleSet

__all__ = ["StoredRules"]


class StoredRules:
    """Gives the rules that were added; an error instead of rules is raised. `asked` are the numbers that were asked for."""

    def __init__(self, *revisions: RuleSet | WhenthenError) -> None:
        self.revisions: dict[int, RuleSet | WhenthenError] = dict(enumerate(revisions, 1))
        self.asked: list[int] = []

    async def current(self) -> int:
        return max(self.revisions, default=0)

    async def find(self, number: int) -> RuleSet:
        self.asked.append(number)
        found = self.revisions.get(number, RevisionDamaged(f"revision {number} is not stored"))
        if isinstance(found, WhenthenError):
            raise found
        return found

    def publish(self, server: MemoryServer, rules: RuleSet | WhenthenError) -> int:
        """Add the next revision and its marker; gives the position of the marker."""
        number = max(self.revisions, default=0) + 1
        self.revisions[number] = rules
        return mark(server, number)


def mark(server: MemoryServer, number: int) -> int:
    """Append a marker; gives its position."""
    return server.append(f"rules.{number}", MarkerRecord(number, "d").encode())
