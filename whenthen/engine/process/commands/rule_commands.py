"""Reloading the rules."""

from __future__ import annotations

from whenthen.engine.http import answer_models as answers
from whenthen.engine.process.rule_reloading import RuleReloading

__all__ = ["RuleCommands"]


class RuleCommands:
    def __init__(self, reloading: RuleReloading) -> None:
        self._reloading = reloading

    async def reload_rules(self) -> answers.ReloadReport:
        return answers.ReloadReport.model_validate(await self._reloading.reload())
