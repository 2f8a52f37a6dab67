"""Redriving and dropping dead letters."""

from __future__ import annotations

from whenthen.actions import actions_of, encode_spec
from whenthen.engine.execution import DeadLetters
from whenthen.engine.http import answer_models as answers
from whenthen.engine.process.id_prefixes import IdPrefixes
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.schemas.errors import Conflict, NotFound
from whenthen.schemas.firings import ActionTask

__all__ = ["ActionCommands"]


class ActionCommands:
    def __init__(self, dead_letters: DeadLetters, ids: IdPrefixes, rule_registry: RuleRegistry) -> None:
        self._dead_letters = dead_letters
        self._ids = ids
        self._rule_registry = rule_registry

    async def redrive_action(self, key: str, *, new_key: bool) -> answers.Redriven:
        """By the rule of today: a rule that was mended is what the new attempts follow."""
        letter = await self._dead_letters.letter(await self._ids.dead_letter(key))
        spec = self._todays(letter.task)
        return answers.Redriven.model_validate(await self._dead_letters.redrive(letter.key, spec=spec, new_key=new_key))

    async def drop_action(self, key: str) -> answers.Redriven:
        return answers.Redriven.model_validate(await self._dead_letters.drop(await self._ids.dead_letter(key)))

    def _todays(self, task: ActionTask) -> bytes:
        """The action as the rules in force have it.

        Raises:
            Conflict: they have it no more, or another one in its place.
        """
        firing = task.firing
        way_out = "drop the dead letter (`whenthen actions drop`), or put the action back"
        try:
            automation = self._rule_registry.automation(firing.automation)
        except NotFound:
            raise Conflict(f"{task.key}: there is no automation {firing.automation!r} any more; {way_out}") from None
        actions = actions_of(automation, firing)
        if task.index >= len(actions):
            raise Conflict(
                f"{task.key}: automation {firing.automation!r} has {len(actions)} actions for such a firing now, and none "
                f"with the index {task.index}; {way_out}"
            )
        found, wanted = str(actions[task.index].type), str(task.action.get("type"))
        if found != wanted:
            raise Conflict(
                f"{task.key}: action {task.index} of automation {firing.automation!r} is {found} now and was {wanted}; "
                f"{way_out}"
            )
        return encode_spec(actions[task.index])
