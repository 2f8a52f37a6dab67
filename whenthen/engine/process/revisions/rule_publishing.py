"""Publishing a set of rules as the next revision: specifications of actions first, then texts and record, then the marker.

Whoever has one of `PUBLISHING` roles may. Called at the start, by changed files, by `whenthen apply` and `rollback`
(`engine.process.revisions.rules_in_force`). What is stored, and in which order, is in `engine.rule_sets`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from whenthen.actions import CompiledAction, CompiledActions, encode_spec
from whenthen.engine.audit import AuditLog
from whenthen.engine.execution import SpecStore
from whenthen.engine.process.roles import Role
from whenthen.engine.rule_sets import Revision, RevisionHow, RevisionStore, who_publishes
from whenthen.rules import Rules
from whenthen.schemas.errors import BusUnavailable
from whenthen.schemas.times import format_time

__all__ = ["PUBLISHING", "RulePublisher", "absolute"]

log = logging.getLogger(__name__)

RENEW_SPECS_S = 12 * 3600.0  #: far below how long they are kept (`engine.execution.spec_store`)
#: the roles whose NATS users may write rules (deploy/nats/users.conf)
PUBLISHING = frozenset({Role.API, Role.EVALUATOR})


class RulePublisher:
    """Publishes for one process, whose rules are at `path`."""

    def __init__(
        self, store: RevisionStore, specs: SpecStore, *, path: Path | None, audit: AuditLog | None = None
    ) -> None:
        self._store = store
        self._specs = specs
        self._audit = audit
        self._path = absolute(path)
        self._published: dict[str, float] = {}  #: specifications by digest, and when they were published here

    async def publish(
        self,
        rules: Rules,
        how: RevisionHow,
        *,
        after: Revision | None,
        who: str = "",
        rolled_back_to: int = 0,
        store_all: bool = False,
    ) -> Revision:
        """Publish `rules` as the revision that follows `after`. `who` asked for it; else the user of this process. With `store_all` the
        texts of `after` are not relied on.

        Once the record is stored the revision is the current one; a marker that can not be stored now is left to `settle`.

        Raises:
            RevisionTaken: there is a newer one than `after`.
            RulesFull: there is no room for it, and nothing was stored.
            BusUnavailable: it is not known to be published.
        """
        publisher = who_publishes()
        await self._publish_specs(rules)
        revision = await self._store.publish(
            Revision(
                number=0,
                digest=rules.revision,
                own="" if rules.own_revision == rules.revision else rules.own_revision,
                counts=rules.counts(),
                at=format_time(datetime.now(UTC)),
                who=who or publisher["who"],
                host=publisher["host"],
                pid=publisher["pid"],
                how=how,
                path=self._path,
                base=absolute(rules.base),
                rolled_back_to=rolled_back_to,
            ),
            rules.files_read,
            after=after,
            store_all=store_all,
        )
        log.info("%s is published", revision.described())
        if self._audit is not None:
            self._audit.note(
                "rules-taken",
                what=f"revision {revision.number}",
                who=revision.who,
                detail=f"{how.value} {self._path}".strip(),
            )
        try:
            await self._store.settle(revision)
        except BusUnavailable as error:
            log.warning("events are not evaluated with %s yet: %s", revision.described(), error)
        return revision

    async def _publish_specs(self, rules: Rules) -> None:
        """Publish the specifications of all actions, but for those that were lately."""
        now = time.monotonic()
        self._published = {digest: at for digest, at in self._published.items() if now - at < RENEW_SPECS_S}
        specs = {digest: spec for digest, spec in _specs(rules) if digest not in self._published}
        await self._specs.publish(specs)
        self._published.update(dict.fromkeys(specs, now))


def absolute(path: Path | None) -> str:
    """A path as revisions have it; empty for none."""
    return "" if path is None else os.path.abspath(path)


def _specs(rules: Rules) -> Iterator[tuple[str, bytes]]:
    """The specifications of all actions, by digest."""
    for automation in rules.automations:
        made = rules.compiled.get(automation.name)
        actions = CompiledActions.compile(automation) if made is None else made.actions
        for action in _all(actions):
            yield action.digest, encode_spec(action.action)


def _all(actions: CompiledActions) -> Iterable[CompiledAction]:
    return (*actions.every_time, *actions.on_trigger, *actions.on_resolve)
