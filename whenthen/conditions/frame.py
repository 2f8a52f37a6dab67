"""One evaluation by closures: what it looks at and may still spend, and how a failure gets its place.

Called by `exact`, `comprehensions` and `value_tree`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from whenthen.conditions import nodes as n
from whenthen.conditions.runtime.cel_values import EvaluationFault, kind_name
from whenthen.conditions.runtime.condition_errors import Reason, describe
from whenthen.conditions.runtime.cost import MAX_STEPS, Budget

__all__ = ["Evaluator", "Frame", "absorb", "fault_at", "not_bool"]


class Frame:
    """One evaluation: the caller's variables, the literals of the text, the macros' variables and the steps left."""

    __slots__ = ("budget", "constants", "locals", "seen", "variables")

    def __init__(self, variables: Mapping[str, Any], constants: Sequence[Any], steps: int = MAX_STEPS) -> None:
        self.variables = variables
        self.constants = constants
        self.locals: dict[str, Any] = {}
        self.budget: Budget = [steps]
        self.seen: set[str] = set()  #: patterns and zones out of variables that were paid for


Evaluator = Callable[[Frame], Any]


def fault_at(node: n.Node, reason: Reason, detail: str, value: object = None) -> EvaluationFault:
    fault = EvaluationFault(reason, detail, value)
    fault.node = node
    return fault


def absorb(tests: Iterable[tuple[n.Node, Evaluator]], frame: Frame, decisive: bool, what: str) -> bool:
    """`decisive` if a test yields it, whatever fails beside it; else the first failure, or the other bool."""
    failure: EvaluationFault | None = None
    for node, test in tests:
        try:
            value = test(frame)
        except EvaluationFault as fault:
            if fault.reason is Reason.BUDGET:
                raise
            failure = failure or fault
            continue
        if value is not True and value is not False:
            failure = failure or not_bool(node, what, value)
        elif value is decisive:
            return decisive
    if failure is not None:
        raise failure
    return not decisive


def not_bool(node: n.Node, what: str, value: object) -> EvaluationFault:
    return fault_at(node, Reason.NO_OVERLOAD, f"{what} takes a bool, not {kind_name(value)}: {describe(value)}", value)
