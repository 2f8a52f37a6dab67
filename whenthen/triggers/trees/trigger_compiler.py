"""How an automation is compiled: its trigger, checked by its schema, into a tree of nodes.

A node's id comes from the automation's name and the meaning of its whole trigger, so windows survive whatever does not change that
meaning. Called by `triggers.rule_set` and by `rules.compilation`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import orjson

from whenthen.conditions import Condition, compile_condition
from whenthen.schemas.automations import Automation
from whenthen.schemas.errors import FieldPath, InvalidInput, path_text
from whenthen.schemas.times import duration_us
from whenthen.schemas.triggers import (
    CompoundTrigger,
    EventFilter,
    EventTrigger,
    Key,
    MetricTrigger,
    ScheduleTrigger,
    SequenceTrigger,
    Trigger,
    key_name,
)
from whenthen.templates import compile_path
from whenthen.triggers.matching.computed_labels import ComputedLabels, compute_labels
from whenthen.triggers.matching.event_names import compile_names
from whenthen.triggers.matching.filters import WHEN_VARIABLES, Filter, compile_filter
from whenthen.triggers.trees.trigger_nodes import (
    CompiledAutomation,
    Composite,
    EveryRule,
    Leaf,
    ScheduleRule,
    WindowRule,
)
from whenthen.triggers.window_keys import compile_keys
from whenthen.triggers.windows.absence import AbsenceRule
from whenthen.triggers.windows.collecting import CollectRule
from whenthen.triggers.windows.composite import CompositeRule
from whenthen.triggers.windows.metric import MetricRule
from whenthen.triggers.windows.sliding import SlidingRule
from whenthen.triggers.windows.tumbling import TumblingRule

__all__ = ["compile_automation", "compile_named", "trigger_id"]

_MAX_DEPTH = 20

Spec = TypeVar("Spec")
Built = TypeVar("Built")


def trigger_id(automation: Automation) -> str:
    """16 hexadecimal digits from the automation's name and its trigger; the same on every machine."""
    meaning = orjson.dumps(
        [automation.name, automation.trigger.model_dump(mode="json", by_alias=True)], option=orjson.OPT_SORT_KEYS
    )
    return hashlib.blake2b(meaning, digest_size=8).hexdigest()


def compile_automation(automation: Automation) -> CompiledAutomation:
    """Compile one automation.

    Raises:
        InvalidInput: something in it does not compile; `path` starts at the automation, with `trigger`.
    """
    compiled = CompiledAutomation(automation.name, trigger_id(automation), automation, enabled=automation.enabled)
    compiler = _Compiler(compiled)
    compiled.root = compiler.node(automation.trigger, path=(), parent=None, part=0, inherited=_Inherited(), depth=0)
    root = compiled.root
    resolvable = isinstance(root, Leaf) and (
        root.resolving is not None
        or isinstance(root.rule, MetricRule)
        or isinstance(root.rule, AbsenceRule)
        or (isinstance(root.rule, TumblingRule) and root.rule.proactive)
    )
    edges = bool(automation.actions_on_trigger or automation.actions_on_resolve)
    compiled.keeps_state = resolvable and (
        edges or (isinstance(root, Leaf) and (root.resolving is not None or isinstance(root.rule, MetricRule)))
    )
    return compiled


def compile_named(automation: Automation) -> CompiledAutomation:
    """As `compile_automation`, for one of many: the path of an error starts with `automations` and the name."""
    try:
        return compile_automation(automation)
    except InvalidInput as error:
        raise error.below("automations", automation.name) from None


@dataclass(frozen=True, slots=True)
class _Inherited:
    """What a trigger has of the composites that it is part of."""

    keys: tuple[Key, ...] = ()
    lets: Mapping[str, Condition] = field(default_factory=dict)


class _Compiler:
    """Builds the nodes of one automation."""

    def __init__(self, automation: CompiledAutomation) -> None:
        self.automation = automation

    def node(
        self,
        trigger: Trigger,
        *,
        path: FieldPath,
        parent: Composite | None,
        part: int,
        inherited: _Inherited,
        depth: int,
    ) -> Leaf | Composite:
        if depth > _MAX_DEPTH:
            raise InvalidInput(f"nested more than {_MAX_DEPTH} deep; flatten the trigger", path=("trigger", *path))
        if isinstance(trigger, (CompoundTrigger, SequenceTrigger)):
            return self._composite(trigger, path, parent, part, inherited, depth)
        if isinstance(trigger, EventTrigger):
            return self._event(trigger, path, parent, part, inherited)
        if isinstance(trigger, MetricTrigger):
            return self._metric(trigger, path, parent, part, inherited)
        return self._schedule(trigger, path, parent, part, inherited)

    def _composite(
        self,
        trigger: CompoundTrigger | SequenceTrigger,
        path: FieldPath,
        parent: Composite | None,
        part: int,
        inherited: _Inherited,
        depth: int,
    ) -> Composite:
        keys = self._keys(inherited, trigger.correlate, (*path, "correlate"))
        below = _Inherited(keys, self._lets(inherited.lets, trigger.let, path))
        count = len(trigger.triggers)
        if isinstance(trigger, SequenceTrigger) or trigger.require == "all":
            needed = count
        else:
            needed = 1 if trigger.require == "any" else int(trigger.require)
        composite = Composite(
            id=self._id(path),
            path=path_text(path),
            rule=CompositeRule(
                needed=needed,
                parts=count,
                ordered=isinstance(trigger, SequenceTrigger),
                within_us=None if trigger.within is None else duration_us(trigger.within),
            ),
            correlated=len(keys),
            parent=parent,
            part=part,
            automation=self.automation,
        )
        self.automation.composites.append(composite)
        for number, spec in enumerate(trigger.triggers):
            spec_path = (*path, "triggers", number)
            composite.parts.append(
                self.node(spec, path=spec_path, parent=composite, part=number, inherited=below, depth=depth + 1)
            )
        composite.by_clock = any(
            part.by_clock if isinstance(part, Composite) else isinstance(part.rule, TumblingRule)
            for part in composite.parts
        )
        return composite

    def _event(
        self, trigger: EventTrigger, path: FieldPath, parent: Composite | None, part: int, inherited: _Inherited
    ) -> Leaf:
        if trigger.resolve_on is not None and parent is not None:
            raise InvalidInput("belongs to the outermost trigger, not to a part", path=("trigger", *path, "resolve_on"))
        lets = self._lets(inherited.lets, trigger.let, path)
        computing = self._computing(lets, path)
        expected = self._filter(trigger, path, computing)
        after = None
        if trigger.after:
            after = compile_filter(
                names=trigger.after,
                match=trigger.match,
                related=trigger.match_related,
                condition=None,
                computing=computing,
                named=_bucket_names(trigger, trigger.after),
            )
        resolving = None
        if trigger.resolve_on is not None:
            place = (*path, "resolve_on")
            own = self._lets(lets, trigger.resolve_on.let, place)
            resolving = self._filter(trigger.resolve_on, place, self._computing(own, place))
        return self._leaf(
            _window_rule(trigger),
            self._keys(inherited, trigger.for_each, (*path, "for_each")),
            path,
            parent,
            part,
            expected=expected,
            after=after,
            resolving=resolving,
        )

    def _metric(
        self, trigger: MetricTrigger, path: FieldPath, parent: Composite | None, part: int, inherited: _Inherited
    ) -> Leaf:
        keys = self._keys(inherited, trigger.for_each, (*path, "for_each"))
        computing = self._computing(self._lets(inherited.lets, trigger.let, path), path)
        rule = MetricRule(
            aggregate=trigger.aggregate,
            operator=trigger.operator,
            threshold=trigger.threshold,
            within_us=duration_us(trigger.within),
            hold_us=duration_us(trigger.hold),
            keyed=bool(keys),
        )
        leaf = self._leaf(rule, keys, path, parent, part, expected=self._filter(trigger, path, computing))
        if trigger.value is not None:
            leaf.value = self._checked((*path, "value"), compile_path, trigger.value)
        return leaf

    def _schedule(
        self, trigger: ScheduleTrigger, path: FieldPath, parent: Composite | None, part: int, inherited: _Inherited
    ) -> Leaf:
        if inherited.keys:
            raise InvalidInput(
                "a schedule has no labels, so it can not be part of a correlated trigger", path=("trigger", *path)
            )
        return self._leaf(ScheduleRule(trigger), (), path, parent, part)

    def _leaf(
        self,
        rule: WindowRule,
        keys: tuple[Key, ...],
        path: FieldPath,
        parent: Composite | None,
        part: int,
        *,
        expected: Filter | None = None,
        after: Filter | None = None,
        resolving: Filter | None = None,
    ) -> Leaf:
        leaf = Leaf(
            id=self._id(path),
            path=path_text(path),
            rule=rule,
            keys=self._checked((*path, "for_each"), compile_keys, keys),
            parent=parent,
            part=part,
            automation=self.automation,
            expected=expected,
            after=after,
            resolving=resolving,
        )
        self.automation.leaves.append(leaf)
        return leaf

    def _keys(self, inherited: _Inherited, own: Iterable[Key], path: FieldPath) -> tuple[Key, ...]:
        """The keys of the composites around a trigger, and then its own others."""
        keys = {key_name(key): key for key in inherited.keys}
        for number, key in enumerate(own):
            known = keys.setdefault(key_name(key), key)
            if known != key:
                detail = f"{key_name(key)} has another default, or none, where it is named before; give it one"
                raise InvalidInput(detail, path=("trigger", *path, number))
        return tuple(keys.values())

    def _lets(
        self, inherited: Mapping[str, Condition], own: Mapping[str, str], path: FieldPath
    ) -> dict[str, Condition]:
        """The expressions of computed labels by name; a trigger's own replace those around it."""
        compiled = {name: self._checked((*path, "let", name), _compile_when, text) for name, text in own.items()}
        return {**inherited, **compiled}

    def _computing(self, lets: Mapping[str, Condition], path: FieldPath) -> ComputedLabels | None:
        return self._checked(path, compute_labels, lets)

    def _filter(self, spec: EventFilter, path: FieldPath, computing: ComputedLabels | None) -> Filter:
        condition: Condition | None = None
        if spec.when is not None:
            condition = self._checked((*path, "when"), _compile_when, spec.when)
        return compile_filter(
            names=spec.expect,
            match=spec.match,
            related=spec.match_related,
            condition=condition,
            computing=computing,
            named=_bucket_names(spec, spec.expect),
        )

    def _checked(self, path: FieldPath, build: Callable[[Spec], Built], value: Spec) -> Built:
        try:
            return build(value)
        except ValueError as error:
            raise InvalidInput(str(error), path=("trigger", *path)) from None
        except InvalidInput as error:
            raise error.below("trigger", *path) from None

    def _id(self, path: FieldPath) -> str:
        return f"{self.automation.id}.{path_text(path)}" if path else self.automation.id


def _bucket_names(spec: EventFilter, names: list[str]) -> Callable[[str], bool] | None:
    """The test of names for one filter of a trigger with buckets; None for other triggers."""
    if not isinstance(spec, EventTrigger) or spec.window != "tumbling":
        return None
    return compile_names(names, [*spec.expect, *spec.after])


def _compile_when(text: str) -> Condition:
    return compile_condition(text, variables=WHEN_VARIABLES)


def _window_rule(trigger: EventTrigger) -> WindowRule:
    within = duration_us(trigger.within)
    cooldown = within if trigger.cooldown is None else duration_us(trigger.cooldown)
    needs_after = bool(trigger.after)
    if trigger.collect is not None:
        quiet = trigger.collect.quiet
        return CollectRule(
            events=trigger.collect.events,
            wait_us=duration_us(trigger.collect.wait),
            quiet_us=None if quiet is None else duration_us(quiet),
            first_now=trigger.collect.first == "now",
            cooldown_us=cooldown,
        )
    proactive = trigger.posture == "proactive"
    if trigger.window == "tumbling":
        return TumblingRule(threshold=trigger.threshold, within_us=within, proactive=proactive, needs_after=needs_after)
    if proactive:
        if needs_after and trigger.cooldown is None:
            cooldown = 0
        return AbsenceRule(threshold=trigger.threshold, within_us=within, cooldown_us=cooldown, needs_after=needs_after)
    if trigger.threshold == 1 and not cooldown and not needs_after:
        return EveryRule()
    return SlidingRule(threshold=trigger.threshold, within_us=within, cooldown_us=cooldown, needs_after=needs_after)
