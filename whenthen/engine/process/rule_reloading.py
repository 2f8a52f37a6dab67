"""Reloads the rules when files change: a valid set is published, an invalid set is refused and reported.

Built by the wiring once the first rules are in force. Meaning: docs/rules.md, "Editing a rule keeps its memory".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from whenthen.engine.audit import AuditLog
from whenthen.engine.metrics import Metrics
from whenthen.engine.process.revisions.setting_checks import Checker
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.engine.rule_sets import RulesFull
from whenthen.rules import Rules, RulesWatcher
from whenthen.schemas.errors import (
    Conflict,
    InvalidInput,
    InvalidRules,
    Problem,
)

__all__ = ["RuleReloading", "report_refused"]

log = logging.getLogger(__name__)

_LOGGED = 20  #: problems of one refused set in the log; the API lists all


class RuleReloading:
    """Hands the rules of the folder or file at `path` to `take` when they change; an invalid set changes nothing.

    `files` is the valid set that was read last. Without a path, or where this process may not publish, nothing is watched.
    """

    def __init__(
        self,
        path: Path | None,
        rule_registry: RuleRegistry,
        metrics: Metrics,
        take: Callable[[Rules], Awaitable[None]],
        *,
        files: Rules | None = None,
        grace_s: float = 10.0,
        problems: Sequence[Problem] = (),
        also: Sequence[Checker] = (),
        audit: AuditLog | None = None,
    ) -> None:
        """`problems` are those of the files on disk, when another set than theirs is in force from the start; `also` as of `load_rules`."""
        self._rule_registry = rule_registry
        self._metrics = metrics
        self._take = take
        self._audit = audit
        self._problems: tuple[Problem, ...] = tuple(problems)
        self._watcher: RulesWatcher | None = None
        if path is not None:
            before = rule_registry.now.rules if files is None else files
            self._watcher = RulesWatcher(path, before, self._changed, grace_s=grace_s, problems=problems, also=also)

    async def run(self, stop: asyncio.Event) -> None:
        """Watch for changes until `stop` is set."""
        if self._watcher is None:
            await stop.wait()
        else:
            await self._watcher.run(stop)

    async def reload(self) -> dict[str, Any]:
        """Read the rules now; returns whether a new set was taken, the revision in force, and the problems on disk."""
        if self._watcher is None:
            raise Conflict("this process has no rules folder of its own; send the rules with `whenthen apply RULES`")
        taken = await self._watcher.reload()
        return {"taken": taken, "revision": self._rule_registry.now.rules.revision, "problems": self.problems()}

    def problems(self) -> list[dict[str, Any]]:
        """The problems of the rules on disk, if they were refused."""
        return [
            {
                "file": problem.file,
                "line": problem.line,
                "column": problem.column,
                "field": problem.field,
                "message": problem.detail,
            }
            for problem in self._problems
        ]

    async def _changed(self, rules: Rules | None, problems: Sequence[Problem]) -> None:
        """The rules on disk changed: to valid ones, or (None) to ones with problems."""
        if rules is None:
            self._problems = tuple(problems)
            report_refused(
                self._problems, self._metrics, "changed rules; the last good ones stay in force", self._audit
            )
            return
        try:
            await self._take(rules)
        except InvalidRules:  # not together with what scripts have registered
            raise
        except (InvalidInput, RulesFull) as error:
            # the watcher calls again with these problems
            raise InvalidRules([Problem(file="", line=0, column=0, path=error.path, detail=error.detail)]) from None
        if self._problems:
            log.info("the rules on disk are mended")
        self._problems = ()
        self._metrics.rules_refused.set(0)


def report_refused(problems: Sequence[Problem], metrics: Metrics, what: str, audit: AuditLog | None = None) -> None:
    """Say in the log and the metrics that a set of rules was refused, and which set is in force."""
    metrics.refuse_rules()
    for problem in problems[:_LOGGED]:
        log.error("rules refused: %s", problem)
    if audit is not None and problems:
        audit.note("rules-refused", what=what, detail=f"{len(problems)} problems; {problems[0]}")
    log.error("%d problem%s in the %s", len(problems), "" if len(problems) == 1 else "s", what)
