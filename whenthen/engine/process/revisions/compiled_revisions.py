"""Revisions of the rules as this process compiled them: the one in force, and those that shards still evaluate with.

Called by the loops of shards through `of_shard`, and by `rules_in_force`. The last few are kept; what is the same in the set in force is
neither read from NATS nor compiled again.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import OrderedDict
from pathlib import Path

from whenthen.engine.evaluation import RuleRevisions
from whenthen.engine.process.rule_registry import Compiled, RuleRegistry
from whenthen.engine.rule_sets import Revision, RevisionDamaged, RevisionNotUnderstood, RevisionStore
from whenthen.rules import Rules, compile_files
from whenthen.schemas.errors import InvalidInput, InvalidRules
from whenthen.triggers import RuleSet

__all__ = ["CompiledRevisions", "read_revision"]

MOST_KEPT = 4
_SHOWN = 3  #: problems of a revision that can not be compiled


async def read_revision(store: RevisionStore, revision: Revision, *, base: Path | None, kept: Rules | None) -> Rules:
    """The rules of a revision. `base` is what entry points are relative to here; None is as where it was published.

    Raises:
        RevisionDamaged: it is not whole.
        RevisionNotUnderstood: this version refuses it.
        BusUnavailable: it can not be read now.
    """
    files = await store.files(revision, known=kept.files_read if kept is not None else ())
    try:
        rules = await asyncio.to_thread(
            compile_files, base if base is not None else Path(revision.base), files, kept=kept
        )
    except InvalidRules as error:
        problems = "; ".join(map(str, error.problems[:_SHOWN]))
        raise RevisionNotUnderstood(
            f"{revision.described()} was published by another version of whenthen, and this one refuses it "
            f"({len(error.problems)} problems): {problems}"
        ) from None
    if rules.revision != revision.digest:
        raise RevisionDamaged(
            f"revision {revision.number} of the rules: its files have the digest {rules.revision}, and its record says "
            f"{revision.digest}; publish the rules again with `whenthen apply`"
        )
    return rules


class CompiledRevisions:
    """Compiles what is asked for, one at a time."""

    def __init__(self, store: RevisionStore, rule_registry: RuleRegistry, *, base: Path | None) -> None:
        self._store = store
        self._rule_registry = rule_registry
        self._base = base
        self._known: OrderedDict[int, Compiled] = OrderedDict()
        self._refused: dict[int, RevisionNotUnderstood] = {}  #: a revision never changes
        self._compiling = asyncio.Lock()

    def of_shard(self, shard: int) -> RuleRevisions:
        """The revisions as a shard evaluates them."""
        return _OfShard(self, shard)

    async def current(self) -> int:
        """The newest revision; 0 before the first one."""
        revision = await self._store.current()
        return 0 if revision is None else revision.number

    async def find(self, number: int) -> Compiled:
        """A revision, compiled. Errors: as `read_revision`."""
        async with self._compiling:
            in_force = self._rule_registry.now
            if number and number == in_force.number:
                return in_force
            known = self._known.get(number)
            if known is not None:
                self._known.move_to_end(number)
                return known
            if number in self._refused:
                raise self._refused[number]
            revision = await self._store.revision(number)
            if revision is None:
                raise RevisionDamaged(f"revision {number} of the rules is not stored, or not any more")
            compiled = await self._compiled(revision)
            self.keep(compiled)
            return compiled

    def keep(self, compiled: Compiled) -> None:
        """Keep a compiled set for who asks for it, one that was compiled elsewhere too."""
        self._known[compiled.number] = compiled
        self._known.move_to_end(compiled.number)
        if len(self._known) > MOST_KEPT:
            self._known.popitem(last=False)

    async def _compiled(self, revision: Revision) -> Compiled:
        for known in (self._rule_registry.now, *self._known.values()):
            if revision.digest and known.rules.revision == revision.digest:
                return dataclasses.replace(known, number=revision.number)
        kept = self._rule_registry.now.rules
        try:
            rules = await read_revision(self._store, revision, base=self._base, kept=kept)
            return self._rule_registry.compile(rules, number=revision.number)
        except InvalidInput as error:
            refused = RevisionNotUnderstood(f"{revision.described()} is refused by this version of whenthen: {error}")
            raise self._refused.setdefault(revision.number, refused) from None
        except RevisionNotUnderstood as error:
            raise self._refused.setdefault(revision.number, error) from None


class _OfShard:
    def __init__(self, revisions: CompiledRevisions, shard: int) -> None:
        self._revisions = revisions
        self._shard = shard

    async def current(self) -> int:
        return await self._revisions.current()

    async def find(self, number: int) -> RuleSet:
        return (await self._revisions.find(number)).shards[self._shard]
