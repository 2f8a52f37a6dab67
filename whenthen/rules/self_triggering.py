"""Automations that plainly start themselves, alone or in a ring, through `emit-event`.

Called by `folder`. Refuses only what is certain: a reactive trigger that fires on every matching event, an event name
and labels without templates, no condition, no quiet time. Everything less certain is left to the lineage that events
carry at run time (docs/rules.md, "Loops").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from whenthen.rules.references import Finding, Part, is_constant
from whenthen.schemas.actions import EmitEvent
from whenthen.schemas.automations import Automation
from whenthen.schemas.errors import FieldPath
from whenthen.schemas.triggers import CompoundTrigger, EventTrigger
from whenthen.triggers import Glob, GlobKind, any_of, compile_glob

__all__ = ["loops"]

MAX_PAIRS = 500_000  #: emitted name and listener looked at; the rest is left to run time


@dataclass(frozen=True, slots=True, kw_only=True)
class _Emission:
    part: Part
    path: FieldPath
    action: EmitEvent
    source: EventTrigger  #: whose event's resource it passes on


class _Listeners:
    """Triggers that fire on every matching event, found by an event's name."""

    def __init__(self, entries: Iterable[tuple[Part, EventTrigger]]) -> None:
        self._exact: dict[str, list[tuple[Part, EventTrigger]]] = {}
        self._globs: dict[str, list[tuple[Part, EventTrigger, Glob]]] = {}  #: by the text they start with
        for part, trigger in entries:
            for name in trigger.expect:
                glob = compile_glob(name)
                if glob.kind is GlobKind.EXACT:
                    self._exact.setdefault(glob.literal, []).append((part, trigger))
                else:
                    self._globs.setdefault("" if glob.kind is GlobKind.SUFFIX else glob.literal, []).append(
                        (part, trigger, glob)
                    )
        self._lengths = sorted({len(prefix) for prefix in self._globs})

    def of(self, name: str) -> Iterator[tuple[Part, EventTrigger]]:
        """Each listener that expects events named `name`."""
        yield from self._exact.get(name, ())
        for length in self._lengths:
            for part, trigger, glob in self._globs.get(name[:length], ()) if length <= len(name) else ():
                if glob.matches(name):
                    yield part, trigger


def loops(parts: Iterable[Part]) -> Iterator[Finding]:
    """One finding for each automation that starts itself, and one for each ring of them."""
    emissions: dict[str, list[_Emission]] = {}
    entries: list[tuple[Part, EventTrigger]] = []
    for part in parts:
        automation = part.model
        if not isinstance(automation, Automation) or not automation.enabled:
            continue
        triggers = list(_certain(automation))
        entries += [(part, trigger) for trigger in triggers]
        for index, action in enumerate(automation.actions):
            if isinstance(action, EmitEvent) and is_constant(action.event) and triggers:
                emission = _Emission(part=part, path=("actions", index), action=action, source=triggers[0])
                emissions.setdefault(part.name, []).append(emission)
                if any(_expects(trigger, action.event) and _holds(emission, part, trigger) for trigger in triggers):
                    yield Finding(
                        part=part, path=(*emission.path, "event"), detail=_self_start(part.name, action.event)
                    )
    if emissions:
        yield from _rings(_starts(emissions, _Listeners(entries)))


def _starts(emissions: dict[str, list[_Emission]], listeners: _Listeners) -> dict[str, dict[str, _Emission]]:
    """Which automation starts which others, by what it emits."""
    starts: dict[str, dict[str, _Emission]] = {}
    left = MAX_PAIRS
    for name, sent in emissions.items():
        for emission in sent:
            for listener, trigger in listeners.of(emission.action.event):
                left -= 1
                if left < 0:
                    return starts
                if listener.name != name and _holds(emission, listener, trigger):
                    starts.setdefault(name, {}).setdefault(listener.name, emission)
    return starts


def _rings(starts: dict[str, dict[str, _Emission]]) -> Iterator[Finding]:
    rest = _trimmed(starts)
    while rest:
        name = next(iter(rest))
        ring = _way_back(name, rest)
        if ring is None:
            del rest[name]  # on the way from one ring to another, and in none itself
            continue
        emission = starts[name][ring[1]]
        chain = " -> ".join(f'"{step}"' for step in (*ring, name))
        detail = (
            f"automations would start each other without end: {chain}; break the ring with another name or a `match`"
        )
        yield Finding(part=emission.part, path=(*emission.path, "event"), detail=detail)
        for step in ring:
            rest.pop(step, None)
        rest = _trimmed(rest)


def _trimmed(starts: dict[str, dict[str, _Emission]]) -> dict[str, dict[str, _Emission]]:
    """Without those that start nothing that starts something, again and again: what is left leads to a ring."""
    by: dict[str, list[str]] = {}
    degree: dict[str, int] = {}
    for name, targets in starts.items():
        inside = [target for target in targets if target in starts]
        degree[name] = len(inside)
        for target in inside:
            by.setdefault(target, []).append(name)
    queue = [name for name, count in degree.items() if count == 0]
    for name in queue:
        for source in by.get(name, ()):
            degree[source] -= 1
            if degree[source] == 0:
                queue.append(source)
    gone = set(queue)
    return {name: targets for name, targets in starts.items() if name not in gone}


def _self_start(name: str, event: str) -> str:
    return (
        f'automation "{name}" would start itself: it emits "{event}", which its own trigger expects; '
        "emit another name, or narrow `expect` or `match`"
    )


def _way_back(name: str, starts: dict[str, dict[str, _Emission]]) -> list[str] | None:
    """The shortest ring through `name` of at least two automations."""
    came: dict[str, str] = {}
    queue = [name]
    for current in queue:
        for target in starts.get(current, ()):
            if target == name and current != name:
                ring = [current]
                while ring[-1] != name:
                    ring.append(came[ring[-1]])
                return ring[::-1]
            if target != name and target not in came:
                came[target] = current
                queue.append(target)
    return None


def _certain(automation: Automation) -> Iterator[EventTrigger]:
    """The triggers each of whose matching events fires the automation, at once or gathered."""
    root = automation.trigger
    candidates = [root]
    if isinstance(root, CompoundTrigger) and not root.let and (root.require in ("any", 1) or len(root.triggers) == 1):
        candidates = list(root.triggers)
    for trigger in candidates:
        if (
            isinstance(trigger, EventTrigger)
            and trigger.posture == "reactive"
            and trigger.threshold == 1
            and not trigger.within
            and not trigger.cooldown
            and not trigger.after
            and trigger.when is None
            and not trigger.let
        ):
            yield trigger


def _holds(emission: _Emission, listener: Part, trigger: EventTrigger) -> bool:
    """Whether the emitted event's labels certainly satisfy the trigger."""
    action = emission.action
    if action.resource is None:
        same = listener is emission.part and trigger is emission.source
        if trigger.match and not same and trigger.match != emission.source.match:
            return False
    elif isinstance(action.resource, str):
        if trigger.match:
            return False  # its labels are not known
    elif not _labels_hold(trigger.match, action.resource):
        return False
    return all(any(_labels_hold(match, labels) for labels in action.related) for match in trigger.match_related)


def _labels_hold(match: dict[str, list[str]], labels: dict[str, str]) -> bool:
    for label, globs in match.items():
        text = labels.get(label)
        if text is None or not is_constant(text):
            return False
        if not _one_matches(globs, text):
            return False
    return True


def _expects(trigger: EventTrigger, name: str) -> bool:
    return _one_matches(trigger.expect, name)


def _one_matches(globs: list[str], text: str) -> bool:
    return any_of([compile_glob(glob) for glob in globs])(text)
