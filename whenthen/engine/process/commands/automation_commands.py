"""Pausing and resuming automations."""

from __future__ import annotations

from datetime import UTC, datetime

from whenthen.engine.http import PauseRequest
from whenthen.engine.http import answer_models as answers
from whenthen.engine.process.pauses import AutomationPauses
from whenthen.engine.process.queries.automation_queries import AutomationQueries

__all__ = ["AutomationCommands"]


class AutomationCommands:
    def __init__(self, pauses: AutomationPauses, queries: AutomationQueries) -> None:
        self._pauses = pauses
        self._queries = queries

    async def pause_automation(self, name: str, request: PauseRequest) -> answers.AutomationState:
        until = None if request.lasts is None else datetime.now(UTC) + request.lasts
        await self._pauses.pause(name, until=until, reason=request.reason, by=request.by or "api")
        return await self._queries.automation_state(name)

    async def resume_automation(self, name: str) -> answers.AutomationState:
        await self._pauses.resume(name)
        return await self._queries.automation_state(name)
