"""Keeps this process at the current revision of the rules, and publishes what its files or its users ask for.

The rule registry is swapped whole, when the current revision is another one and could be compiled. One that can not be used changes
nothing: `notes` says so, as do log, metrics, `whenthen status` and `/readyz`. Shards do not follow the registry: each swaps at the marker
(`engine.evaluation.shard_rules`).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from whenthen.engine.metrics import Metrics
from whenthen.engine.process.gc_tuning import unfreeze
from whenthen.engine.process.revisions.compiled_revisions import CompiledRevisions
from whenthen.engine.process.revisions.rule_publishing import RulePublisher
from whenthen.engine.process.rule_registry import Compiled, RuleRegistry
from whenthen.engine.rule_sets import (
    Revision,
    RevisionDamaged,
    RevisionHow,
    RevisionStore,
    RevisionTaken,
    RevisionUnusable,
    RulesFull,
)
from whenthen.rules import Rules, SourceFile, compile_files
from whenthen.rules.changes import window_changes
from whenthen.rules.registering import registration
from whenthen.schemas.errors import BusUnavailable, NotFound, SetupError

__all__ = ["RulesInForce"]

log = logging.getLogger(__name__)

LOOK_S = 0.5  #: how often the current revision is asked for


class RulesInForce:
    """The rules of one process. `publisher` is None where it may not publish. `needed_from` gives the oldest revision that a shard
    still evaluates with."""

    def __init__(
        self,
        store: RevisionStore,
        revisions: CompiledRevisions,
        rule_registry: RuleRegistry,
        metrics: Metrics,
        *,
        publisher: RulePublisher | None,
        files: Rules | None,
        path: Path | None,
        needed_from: Callable[[], Awaitable[int]],
        look_s: float = LOOK_S,
    ) -> None:
        self._store = store
        self._revisions = revisions
        self._rule_registry = rule_registry
        self._metrics = metrics
        self._publisher = publisher
        self._files = files
        self._path = path
        self._look_s = look_s
        self._taking = asyncio.Lock()
        self._settled = 0  #: the last revision whose marker is known to be there
        self._unmarked = 0  #: the current revision while its marker can not be stored
        self._unusable: tuple[int, str] = (0, "")  #: a revision that can not be used here, and why
        self._files_told = ""  #: the digest of files of which it was told that they are not in force
        self._needed_from = needed_from
        self._tell_files()

    @property
    def number(self) -> int:
        """The revision in force; 0 before the first one."""
        return self._rule_registry.now.number

    def notes(self) -> list[str]:
        """What people should know of the rules in force."""
        found = []
        number, why = self._unusable
        if number:
            found.append(
                f"revision {self.number} of the rules stays in force here, as a newer one can not be used: {why}"
            )
        if self._unmarked:
            found.append(
                f"events are not evaluated with revision {self._unmarked} of the rules yet, as its marker can not be stored"
            )
        if differs := self._files_differ():
            found.append(differs)
        return found

    # -- following

    async def run(self, stop: asyncio.Event) -> None:
        """Follow until `stop` is set."""
        if self._publisher is not None:
            await self._mend()
        while not stop.is_set():
            try:
                await self.follow()
            except BusUnavailable as error:
                log.debug("the current revision of the rules is not known now: %s", error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._look_s)

    async def follow(self) -> None:
        """Look for the current revision once, and put it in force."""
        async with self._taking:
            current = await self._store.current()
            if current is not None:
                await self._take(current)

    async def _take(self, current: Revision) -> None:
        """Put a revision in force that is the current one. One that can not be used changes nothing."""
        if current.number != self.number and current.number != self._unusable[0]:
            try:
                self._apply(await self._revisions.find(current.number))
                self._set_unusable(0, "")
            except RevisionUnusable as error:
                log.error("%s; revision %d stays in force", error, self.number)
                self._set_unusable(current.number, str(error))
        elif current.number == self.number and self._unusable[0]:
            self._set_unusable(0, "")
        if self._publisher is not None and self._settled != current.number:
            try:
                await self._store.settle(current)
            except BusUnavailable as error:
                log.debug("the marker of revision %d is not stored yet: %s", current.number, error)
                self._unmarked = current.number
                return
            self._settled, self._unmarked = current.number, 0
            await self._collect()

    def _set_unusable(self, number: int, why: str) -> None:
        self._unusable = (number, why)
        self._metrics.rules_unusable.set(int(bool(number)))

    def _apply(self, compiled: Compiled) -> None:
        before = self._rule_registry.now.rules
        for name, what in window_changes(before, compiled.rules).items():
            log.info("automation %s: %s", name, what)
        unfreeze()  # the replaced rules can be collected
        self._revisions.keep(compiled)
        self._rule_registry.apply(compiled)
        counts = ", ".join(f"{count} {kind}" for kind, count in compiled.rules.counts().items())
        log.info("rules %s (revision %d) are in force: %s", compiled.rules.revision, compiled.number, counts)
        self._tell_files()

    async def _collect(self) -> None:
        try:
            gone = await self._store.collect(needed_from=await self._needed_from())
        except BusUnavailable as error:
            log.debug("old revisions of the rules are not deleted yet: %s", error)
            return
        if gone:
            log.info("deleted %d old revisions of the rules", gone)

    async def _mend(self) -> None:
        """Publish the rules of the current revision again, when its texts are damaged and this process has the very files: shards may
        have passed its marker."""
        async with self._taking:
            try:
                current = await self._store.current()
                now = self._rule_registry.now
                if current is None or current.digest != now.rules.revision or await self._is_whole(current):
                    return
                log.error("the files here are those of revision %d, and are published again", current.number)
                await self._publish(now, RevisionHow.START, after=current, store_all=True)
            except (BusUnavailable, RevisionTaken, RulesFull) as error:
                log.warning("damaged rules are not mended: %s", error)

    async def _is_whole(self, revision: Revision) -> bool:
        """Whether all texts of a revision can be read."""
        try:
            await self._store.files(revision)
        except RevisionDamaged as error:
            log.error("%s", error)
            return False
        return True

    async def _are_in_force(self, rules: Rules, current: Revision | None) -> bool:
        """Whether these are the rules of the current revision, and it can be used."""
        if current is None or current.trouble or current.digest != rules.revision:
            return False
        return current.number != self._unusable[0] or await self._is_whole(current)

    # -- publishing

    async def take_files(self, rules: Rules) -> None:
        """The files changed: have them in force, published by whoever comes first. What scripts have registered stays.

        Raises:
            InvalidInput: they do not compile, or not together with what scripts have registered.
            RulesFull: there is no room for them, and nothing changed.
            BusUnavailable: they are not known to be published.
        """
        async with self._taking:
            self._files = rules
            while True:
                current = await self._store.current()
                together = await self._with_registered(rules, current)
                compiled = self._rule_registry.compile(together)
                if current is not None and await self._are_in_force(together, current):
                    self._revisions.keep(dataclasses.replace(compiled, number=current.number))
                    await self._take(current)
                    self._tell_files()
                    return
                try:
                    await self._publish(compiled, RevisionHow.WATCH, after=current)
                    return
                except RevisionTaken as taken:
                    log.info("%s", taken)

    async def apply(self, rules: Rules, *, who: str, expected: int | None) -> Revision:
        """Publish `rules` on request, although they may have been published before. `expected` is the revision that is to be
        replaced; None replaces any. Rules that are in force already are not published again. What scripts have registered stays.

        Raises:
            RevisionTaken: another one is the current one.
            InvalidInput: they do not compile.
            RulesFull: there is no room for them, and nothing changed.
            BusUnavailable: they are not known to be published.
        """
        async with self._taking:
            current = await self._expected(expected)
            rules = await self._with_registered(rules, current)
            compiled = self._rule_registry.compile(rules)
            if current is not None and await self._are_in_force(rules, current):
                await self._take(current)
                return current
            return await self._publish(compiled, RevisionHow.APPLY, after=current, who=who)

    async def amend(
        self, amended: Callable[[Rules], Sequence[SourceFile]], *, who: str, publish: bool = True
    ) -> tuple[Rules, Rules]:
        """Have the files that `amended` gives for the rules in force; with `publish` off nothing is changed. Gives the rules before and after.
        It is called again when somebody else publishes meanwhile.

        Raises:
            InvalidInput: they do not compile.
            RulesFull: there is no room for them, and nothing changed.
            RevisionUnusable: the rules in force can not be used here.
            BusUnavailable: they are not known to be published.
        """
        async with self._taking:
            while True:
                current = await self._store.current()
                before = await self._rules_of(current)
                files = amended(before)
                if list(files) == list(before.files_read):
                    return before, before
                after = await asyncio.to_thread(compile_files, before.base, files, kept=before)
                if not publish:
                    return before, after
                try:
                    await self._publish(
                        self._rule_registry.compile(after), RevisionHow.REGISTER, after=current, who=who
                    )
                except RevisionTaken as taken:
                    log.info("%s", taken)
                    continue
                return before, after

    async def with_registered(self, rules: Rules) -> Rules:
        """The rules with what scripts have registered beside those in force.

        Raises:
            InvalidInput: they do not go together.
        """
        return await _together(rules, self._rule_registry.now.rules)

    async def _with_registered(self, rules: Rules, current: Revision | None) -> Rules:
        """As `with_registered`, of a current revision that may be a newer one than that in force. One that can not be used is passed over."""
        try:
            before = await self._rules_of(current)
        except RevisionUnusable:
            before = self._rule_registry.now.rules
        return await _together(rules, before)

    async def _rules_of(self, current: Revision | None) -> Rules:
        if current is None or current.number == self.number:
            return self._rule_registry.now.rules
        return (await self._revisions.find(current.number)).rules

    async def rollback(self, number: int, *, who: str, expected: int | None) -> Revision:
        """Publish the rules of an earlier revision as a new one.

        Raises:
            NotFound: it is not kept.
            RevisionTaken, RulesFull, RevisionUnusable, BusUnavailable: see `apply`, `read_revision`.
        """
        async with self._taking:
            current = await self._expected(expected)
            earlier = await self._store.revision(number)
            if earlier is None:
                raise NotFound(f"revision {number} of the rules is not kept; `whenthen revisions` lists those that are")
            compiled = await self._revisions.find(number)
            if current is not None and await self._are_in_force(compiled.rules, current):
                await self._take(current)
                return current
            return await self._publish(compiled, RevisionHow.ROLLBACK, after=current, who=who, rolled_back_to=number)

    async def _expected(self, expected: int | None) -> Revision | None:
        current = await self._store.current()
        number = 0 if current is None else current.number
        if expected is not None and expected != number and current is not None:
            if expected > number:
                raise RevisionTaken(f"there is no revision {expected}; current is {current.described()}", current)
            raise RevisionTaken(
                f"revision {expected} is not the current one any more: {current.described()} was published meanwhile; look "
                "at `whenthen plan` again",
                current,
            )
        return current

    async def _publish(
        self,
        compiled: Compiled,
        how: RevisionHow,
        *,
        after: Revision | None,
        who: str = "",
        rolled_back_to: int = 0,
        store_all: bool = False,
    ) -> Revision:
        if self._publisher is None:
            raise SetupError("this process may not publish rules; ask one with the role api or evaluator")
        revision = await self._publisher.publish(
            compiled.rules,
            how,
            after=after,
            who=who,
            rolled_back_to=rolled_back_to,
            store_all=store_all or (after is not None and after.number == self._unusable[0]),
        )
        self._revisions.keep(dataclasses.replace(compiled, number=revision.number))
        await self._take(revision)
        return revision

    # -- files

    def _files_differ(self) -> str:
        """What there is to say of files that are not in force."""
        rules = self._rule_registry.now.rules
        if self._files is None or self._files.revision == rules.own_revision:
            return ""
        return (
            f"the files at {self._path} (digest {self._files.revision}) are not in force: revision {self.number} "
            f"({rules.own_revision}) is; `whenthen apply` publishes them, `whenthen rollback N` an earlier revision, and so does "
            "any change of the files"
        )

    def _tell_files(self) -> None:
        differs = self._files_differ()
        self._metrics.rules_revision.set(self.number)
        self._metrics.rules_files_differ.set(int(bool(differs)))
        told = f"{self._files.revision} {self.number}" if differs and self._files is not None else ""
        if differs and told != self._files_told:
            log.warning("%s", differs)
        self._files_told = told


async def _together(rules: Rules, before: Rules) -> Rules:
    files = registration.with_registered(rules.files_read, before.files_read)
    if files is rules.files_read:
        return rules
    return await asyncio.to_thread(compile_files, rules.base, files, kept=rules)
