"""The budget of an evaluation: steps of macros, and the size of the values that they build.

A macro is charged in advance for all that it ranges over, so the charge does not depend on where it stops, and compiled code
and closures spend alike. A spent budget is never absorbed by `||`. Called by `exact` and by compiled code.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from whenthen.conditions import nodes as n
from whenthen.conditions.runtime.cel_values import EvaluationFault, kind_name
from whenthen.conditions.runtime.condition_errors import Reason, describe

__all__ = ["MAX_STEPS", "pairs", "pay", "ranged", "weight"]

MAX_STEPS = 2_000_000  #: nodes that the macros of one evaluation may visit


def weight(node: n.Macro) -> int:
    """Steps that one element costs: the nodes of the macro's body, and one."""
    return 1 + sum(1 for part in (node.test, node.result) if part is not None for _ in n.walk(part))


def _spend(steps: int, budget: list[int]) -> None:
    budget[0] -= steps
    if budget[0] < 0:
        raise EvaluationFault(Reason.BUDGET, f"the macros of this condition would take more than {MAX_STEPS:,} steps")


def ranged(value: Any, cost: int, budget: list[int]) -> Iterable[Any]:
    """What a one-variable macro ranges over: the elements of a list, the keys of a map. Charged in advance."""
    if not isinstance(value, list | dict):
        raise EvaluationFault(
            Reason.NO_OVERLOAD,
            f"a macro ranges over a list or a map, not {kind_name(value)}: {describe(value)}",
            value,
        )
    _spend(len(value) * cost, budget)
    return value


def pairs(value: Any, cost: int, budget: list[int]) -> tuple[Iterable[Any], Iterable[Any]]:
    """What a two-variable macro ranges over: indexes and elements, or keys and values. Charged in advance."""
    ranged(value, cost, budget)
    if isinstance(value, dict):
        return value.keys(), value.values()
    return range(len(value)), value


def pay(value: Any, budget: list[int]) -> Any:
    """Charge for a value built inside a macro, a step for every 16 characters or elements."""
    if isinstance(value, str | bytes | list):
        _spend(len(value) >> 4, budget)
    return value
