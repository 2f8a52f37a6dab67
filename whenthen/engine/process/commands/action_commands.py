"""Dead letters given new tries."""

from __future__ import annotations

from whenthen.engine.execution import DeadLetters
from whenthen.engine.http import answer_models as answers
from whenthen.engine.process.id_prefixes import IdPrefixes

__all__ = ["ActionCommands"]


class ActionCommands:
    def __init__(self, dead_letters: DeadLetters, ids: IdPrefixes) -> None:
        self._dead_letters = dead_letters
        self._ids = ids

    async def redrive_action(self, key: str) -> answers.Redriven:
        return answers.Redriven.model_validate(await self._dead_letters.redrive(await self._ids.dead_letter(key)))
