"""The budget of an evaluation: steps, counted by the size of what is touched and never in time.

A step is about a tenth of a microsecond. A macro is charged in advance for all that it ranges over, an operation for the
size of its operands, so that a charge does not depend on where the work stops, and compiled code and closures spend alike.
Outside of macros the first `FREE` steps of each operation are not charged: a condition has few such operations, and compiled
code needs no budget for them. A spent budget is never absorbed by `||`. Called by every module that evaluates.
Meaning: docs/rules.md, "Conditions".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from whenthen.conditions import nodes as n
from whenthen.conditions.runtime.cel_values import EvaluationFault, kind_name
from whenthen.conditions.runtime.condition_errors import Reason, describe

__all__ = [
    "FREE",
    "MAX_STEPS",
    "Budget",
    "allowance",
    "charge",
    "charge_parts",
    "literal_slots",
    "literal_weight",
    "pairs",
    "ranged",
    "spend",
    "weight",
]

MAX_STEPS = 2_000_000  #: steps of one evaluation
FREE = 256  #: steps of one operation outside of macros that are not charged

#: the steps left, in a list of one. None, in compiled code outside of macros: at most `FREE` steps for this operation
Budget = list[int]


def weight(node: n.Macro) -> int:
    """Steps that one element costs: the nodes of the macro's body, and one."""
    return 1 + sum(1 for part in (node.test, node.result) if part is not None for _ in n.walk(part))


def literal_slots(node: n.Macro) -> tuple[int, ...]:
    """The texts in the body of a macro; `literal_weight` is the cost of comparing with them, for one element."""
    return tuple(
        found.slot
        for part in (node.test, node.result)
        if part is not None
        for found in n.walk(part)
        if isinstance(found, n.Literal) and found.kind in ("string", "bytes")
    )


def literal_weight(texts: Iterable[Any]) -> int:
    """Steps that one element costs on top of `weight` when the body of the macro has long texts in it."""
    return sum(len(text) >> 6 for text in texts)


def spend(steps: int, budget: Budget) -> None:
    """Charge `steps`.

    Raises:
        EvaluationFault: the budget is spent.
    """
    budget[0] -= steps
    if budget[0] < 0:
        raise EvaluationFault(
            Reason.BUDGET,
            f"cost limit: the condition would take more than {MAX_STEPS:,} steps for this event;"
            " compare less, or send the event with less data",
        )


def charge(steps: int, budget: Budget | None) -> None:
    """Charge one operation. Without a budget: refuse more than `FREE` steps."""
    if budget is not None:
        spend(steps, budget)
    elif steps > FREE:
        raise EvaluationFault(Reason.BUDGET, "more than compiled code does without a budget")


def allowance(budget: Budget | None) -> Budget:
    """The budget for an operation of several charges."""
    return [FREE] if budget is None else budget


def charge_parts(value: Any, budget: Budget) -> None:
    """Charge everything inside `value`, before it is copied."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, list | dict):
            spend(1 + len(item), budget)
            stack.extend(item.values() if isinstance(item, dict) else item)


def ranged(value: Any, cost: int, budget: Budget) -> Iterable[Any]:
    """What a one-variable macro ranges over: the elements of a list, the keys of a map. Charged in advance."""
    if not isinstance(value, list | dict):
        raise EvaluationFault(
            Reason.NO_OVERLOAD,
            f"a macro ranges over a list or a map, not {kind_name(value)}: {describe(value)}",
            value,
        )
    spend(len(value) * cost, budget)
    return value


def pairs(value: Any, cost: int, budget: Budget) -> tuple[Iterable[Any], Iterable[Any]]:
    """What a two-variable macro ranges over: indexes and elements, or keys and values. Charged in advance."""
    ranged(value, cost, budget)
    if isinstance(value, dict):
        return value.keys(), value.values()
    return range(len(value)), value
