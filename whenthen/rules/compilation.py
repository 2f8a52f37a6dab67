"""The checks that compile what a rule holds as text: conditions, paths and templates, webhooks.

Handed to `folder`, which knows where each field was written. Each check yields the path of the field inside the
automation or webhook and what is wrong with it. What it compiled of an automation is kept for the rule registry, and an
automation that an earlier sound set had is neither checked nor compiled again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from whenthen.actions import CompiledActions, compile_action
from whenthen.conditions import ConditionError, compile_condition
from whenthen.rules.plausibility.trigger_parts import expressions_of
from whenthen.rules.references import written_actions
from whenthen.schemas.automations import Automation
from whenthen.schemas.errors import FieldPath, InvalidInput
from whenthen.schemas.event_sources import Source
from whenthen.schemas.providers import Provider
from whenthen.schemas.webhooks import Webhook
from whenthen.sources import WebhookTranslator, check_provider
from whenthen.sources.readings import SourceTranslator
from whenthen.triggers import WHEN_VARIABLES, CompiledAutomation, compile_automation

__all__ = ["Compilation", "CompiledRule"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledRule:
    """One automation, compiled: what decides that it fires, and what it does then."""

    trigger: CompiledAutomation
    actions: CompiledActions


class Compilation:
    """The checks of one set of rules, and what they compiled.

    `kept` has the automations of a set in which everything was sound.
    """

    def __init__(self, kept: Mapping[str, CompiledRule] | None = None) -> None:
        self.automations: dict[str, CompiledRule] = {}  #: the sound ones of those checked, by name
        self.providers: Mapping[str, Provider] = {}  #: the sound ones of the set, by name
        self.providers_known = True  #: whether these are all; some could not be read otherwise
        self._kept = kept or {}

    def check(self, model: BaseModel) -> Iterator[tuple[FieldPath, str]]:
        """Every problem of an automation, a webhook, a provider or a source."""
        if isinstance(model, Automation):
            yield from self._check_automation(model)
        elif isinstance(model, Webhook):
            yield from self._check_translation(
                lambda: WebhookTranslator(model, resolve_secret=_never, providers=self.providers)
            )
        elif isinstance(model, Provider):
            yield from _problems_of(lambda: check_provider(model, self.providers))
        elif isinstance(model, Source):
            yield from self._check_translation(lambda: SourceTranslator(model, providers=self.providers))

    def _check_translation(self, translate: Callable[[], object]) -> Iterator[tuple[FieldPath, str]]:
        """The mapping and the condition of a webhook or source, and what it adds to its preset."""
        for path, detail in _problems_of(translate):
            # a preset that is in a part that could not be read is a problem of that part
            if path != ("preset",) or self.providers_known:
                yield path, detail

    def _check_automation(self, model: Automation) -> Iterator[tuple[FieldPath, str]]:
        known = self._kept.get(model.name)
        if known is not None and _same(known.trigger.model, model):
            self.automations[model.name] = known
            return
        trigger: CompiledAutomation | None = None
        try:
            trigger = compile_automation(model)
        except InvalidInput as error:
            yield from _trigger_problems(error, model)
        try:
            actions = CompiledActions.compile(model)
        except InvalidInput:
            yield from _action_problems(model)
            return
        if trigger is not None:
            self.automations[model.name] = CompiledRule(trigger=trigger, actions=actions)


def _same(one: Automation, other: Automation) -> bool:
    """Whether two automations do the same; to `==` alone 1, 1.0 and true are one value, also where they are sent as JSON."""
    return one == other and one.model_dump_json() == other.model_dump_json()


def _trigger_problems(error: InvalidInput, model: Automation) -> Iterator[tuple[FieldPath, str]]:
    """Every expression of an automation's triggers that does not compile, and `error`, the first thing that did not."""
    reported = set()
    for place, text in expressions_of(model.trigger):
        try:
            compile_condition(text, variables=WHEN_VARIABLES)
        except ConditionError as refused:
            reported.add(place)
            yield place, _detail(refused)
    if error.path not in reported:
        yield error.path, _detail(error)


def _action_problems(model: Automation) -> Iterator[tuple[FieldPath, str]]:
    """The first problem of each action."""
    for path, action in written_actions(model):
        try:
            compile_action(action)
        except InvalidInput as error:
            yield (*path, *error.path), _detail(error)


def _problems_of(attempt: Callable[[], object]) -> Iterator[tuple[FieldPath, str]]:
    """What an attempt to compile something meets."""
    try:
        attempt()
    except InvalidInput as error:
        yield error.path, _detail(error)


def _never(reference: str) -> str:
    raise InvalidInput(f"{reference}: secrets are resolved when a request comes, not at load")


def _detail(error: InvalidInput | ConditionError) -> str:
    """What is wrong, in one line; a condition's place in its text is given in words."""
    if not isinstance(error, ConditionError):
        return error.detail
    place = f"character {error.column}" if "\n" not in error.text else f"line {error.line}, character {error.column}"
    hint = "write the expression alone, without {{ }}" if error.text.lstrip().startswith("{{") else error.hint
    return f"not a condition, at its {place}: {error.detail}" + (f"; {hint}" if hint else "")
