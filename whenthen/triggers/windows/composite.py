"""Compound and sequence triggers: fire when enough of their parts have fired.

Of each part the latest firing counts, while it lies at most `within` before the newest one. A compound fires when N parts have
fired, a sequence when all parts have fired and the order of their latest firings is the written one; then all are spent. Times
are those of the parts' firings: event time, or the clock for parts with tumbling windows; firings at the same time keep the order
in which they came. A composite fires at the time of its newest part.

State: [touched, {part number: [time, depth, [time, position, id, ...], total]}]; the newest events of each part, 1,000 of all parts
together, and how many there were (states of earlier versions do not say so). Called by `triggers.firing_outcomes`.
Meaning: docs/rules.md, "Composites".
"""

from __future__ import annotations

from dataclasses import dataclass

from whenthen.schemas.firings import Reason, Ref
from whenthen.triggers.windows.long_texts import MAX_ID_BYTES, shorten
from whenthen.triggers.windows.transitions import MAX_REFS, State, Transition, refs_of

__all__ = ["CompositeRule", "expires_us", "on_part_fired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompositeRule:
    needed: int  #: how many parts
    parts: int
    ordered: bool
    within_us: int | None


def expires_us(rule: CompositeRule, state: State) -> int | None:
    """When the firings of the parts no longer count; None without `within`."""
    if rule.within_us is None:
        return None
    newest = max((part[0] for part in state[1].values()), default=0)
    return int(max(state[0], newest)) + rule.within_us + 1


def on_part_fired(
    rule: CompositeRule,
    state: State | None,
    part: int,
    refs: tuple[Ref, ...],
    *,
    at_us: int,
    now_us: int,
    depth: int,
    total: int,
) -> Transition:
    """Decide for one firing of one part. `refs` are the newest of its `total` events."""
    if rule.needed == 1 and not rule.ordered:
        return Transition(Reason.FIRED, None, refs=refs, at_us=at_us, depth=depth, total=total)
    fired: dict[str, list[object]] = dict(state[1]) if state is not None else {}
    name = str(part)
    if name in fired and fired[name][0] > at_us:  # type: ignore[operator]
        return Transition(Reason.LATE, state, "a newer firing of this part counts", changed=False)
    flat: list[object] = []
    for ref in refs[-(MAX_REFS // rule.parts) :]:
        flat += (ref.time_us, ref.seq, shorten(ref.id, MAX_ID_BYTES))
    fired.pop(name, None)
    fired[name] = [at_us, depth, flat, total]
    if rule.within_us is not None:
        newest = max(entry[0] for entry in fired.values())  # type: ignore[type-var]
        if at_us < newest - rule.within_us:  # type: ignore[operator]
            return Transition(
                Reason.LATE, state, "older than `within` before the newest firing of a part", changed=False
            )
        fired = {key: entry for key, entry in fired.items() if entry[0] >= newest - rule.within_us}  # type: ignore[operator]
    kept: State = [now_us, fired]
    if len(fired) < rule.needed:
        return Transition(Reason.WAITING_FOR_SIBLING, kept, _waiting(rule, fired))
    if rule.ordered:
        order = [key for key, _ in sorted(fired.items(), key=lambda item: item[1][0])]  # type: ignore[arg-type,return-value]
        if order != [str(number) for number in range(rule.parts)]:
            return Transition(Reason.WAITING_FOR_SIBLING, kept, f"fired in the order {', '.join(order)}")
    every: list[Ref] = []
    beyond = 0  # events that are not kept
    for entry in fired.values():
        kept_refs = refs_of(entry[2])  # type: ignore[arg-type]
        every += kept_refs
        beyond += entry[3] - len(kept_refs) if len(entry) > 3 else 0  # type: ignore[operator]
    unique = {ref.id: ref for ref in sorted(every, key=lambda ref: ref.time_us)}
    newest_us = max(entry[0] for entry in fired.values())  # type: ignore[type-var]
    deepest = max(entry[1] for entry in fired.values())  # type: ignore[type-var]
    return Transition(
        Reason.FIRED,
        None,
        refs=tuple(unique.values())[-MAX_REFS:],
        at_us=newest_us,  # type: ignore[arg-type]
        depth=deepest,  # type: ignore[arg-type]
        total=len(unique) + beyond,
    )


def _waiting(rule: CompositeRule, fired: dict[str, list[object]]) -> str:
    missing = [f"triggers[{number}]" for number in range(rule.parts) if str(number) not in fired]
    return f"{len(fired)} of {rule.needed} parts fired; waits for {', '.join(missing[:5])}"
