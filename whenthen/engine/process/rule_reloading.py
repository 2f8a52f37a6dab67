"""The rules on disk brought into force while the process runs: what is taken, what is refused, and who is told.

Built by `server` once the first rules are in force. Meaning: docs/rules.md, "Checking" and "Editing a rule keeps its memory".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from whenthen.engine.metrics import Metrics
from whenthen.engine.process.gc_tuning import unfreeze
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.rules import Rules, RulesWatcher, window_changes
from whenthen.schemas import InvalidInput, InvalidRules, Problem

__all__ = ["RuleReloading"]

log = logging.getLogger(__name__)

_TOLD = 20  #: problems of one refused set in the log; the API has all


class RuleReloading:
    """Keeps the rule_registry with the folder or file at `path`; a bad set changes nothing in it."""

    def __init__(self, path: Path, rule_registry: RuleRegistry, metrics: Metrics) -> None:
        self._rule_registry = rule_registry
        self._metrics = metrics
        self._problems: tuple[Problem, ...] = ()
        self._watcher = RulesWatcher(path, rule_registry.now.rules, self._changed)

    async def run(self, stop: asyncio.Event) -> None:
        """Follow changes until `stop` is set."""
        await self._watcher.run(stop)

    async def reload(self) -> dict[str, Any]:
        """Read the rules now; say whether another set was taken, which one is in force, and what is wrong on disk."""
        taken = await self._watcher.reload()
        return {"taken": taken, "revision": self._rule_registry.now.rules.revision, "problems": self.problems()}

    def problems(self) -> list[dict[str, Any]]:
        """What is wrong with the rules on disk, when they were refused."""
        return [
            {
                "file": problem.file,
                "line": problem.line,
                "column": problem.column,
                "field": problem.field,
                "message": problem.message,
            }
            for problem in self._problems
        ]

    def _changed(self, rules: Rules | None, problems: Sequence[Problem]) -> None:
        """The rules on disk changed, to a good set or to one with problems."""
        if rules is None:
            self._problems = tuple(problems)
            self._metrics.refuse_rules()
            for problem in self._problems[:_TOLD]:
                log.error("rules refused: %s", problem)
            log.error("%d problems in the changed rules; the last good ones stay in force", len(self._problems))
            return
        before = self._rule_registry.now.rules
        try:
            compiled = self._rule_registry.compile(rules)
        except InvalidInput as error:
            # the watcher tells it back as the problems of a refused set
            raise InvalidRules([Problem(file="", line=0, column=0, field="", message=str(error))]) from None
        for name, what in window_changes(before, rules).items():
            log.info("automation %s: %s", name, what)
        self._problems = ()
        unfreeze()  # rules that are replaced are not to stay
        self._rule_registry.take(compiled)
        counts = ", ".join(f"{count} {kind}" for kind, count in rules.counts().items())
        log.info("rules %s are in force: %s", rules.revision, counts)
