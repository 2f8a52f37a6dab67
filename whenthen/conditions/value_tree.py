"""Explains the value of a condition: a tree of its parts, each with its own value or error.

Called by `condition`; printed by `whenthen explain`. Every operand of `&&` and `||` is evaluated here, also those that
evaluation skips, so that all failing operands are shown at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from whenthen.conditions import nodes as n
from whenthen.conditions.exact import build
from whenthen.conditions.frame import Frame
from whenthen.conditions.lexer import Tokens
from whenthen.conditions.runtime.cel_values import EvaluationFault
from whenthen.conditions.runtime.condition_errors import ConditionFailed, Reason, describe
from whenthen.conditions.runtime.cost import MAX_STEPS

__all__ = ["Verdict", "explain_tree"]

EVALUATIONS = 4  #: budgets of an evaluation that the parts of an explanation share
_MAX_OPERANDS = 8  #: operands listed below a call or a macro


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A part of a condition with its value or error."""

    text: str  #: its source
    position: int  #: of its first character, from 0
    line: int
    column: int
    value: Any  #: None when there is an error
    error: ConditionFailed | None
    children: tuple[Verdict, ...]

    @property
    def holds(self) -> bool:
        """Whether this part is true; not the same as having a value."""
        return self.error is None and self.value is True

    def render(self) -> str:
        """The tree as indented lines: `ok` where a part is true, `no` where it is false, `error`, or the value."""
        lines: list[str] = []
        stack = [(self, 0)]
        while stack:
            verdict, depth = stack.pop()
            if verdict.error is not None:
                mark = f"error: {verdict.error.detail}"
            elif verdict.value is True or verdict.value is False:
                mark = "true" if verdict.value else "false"
            else:
                mark = describe(verdict.value)
            lines.append(f"{'  ' * depth}{' '.join(verdict.text.split())}  ->  {mark}")
            stack.extend((child, depth + 1) for child in reversed(verdict.children))
        return "\n".join(lines)


def explain_tree(
    tree: n.Node,
    frame: Frame,
    tokens: Tokens,
    declared: frozenset[str] | None,
    failed: Callable[[EvaluationFault], ConditionFailed],
) -> Verdict:
    """The verdicts of a tree. Literals get none of their own; a macro shows what it ranges over.

    The whole has the steps of an evaluation, and all parts together those of `EVALUATIONS` more.
    """
    left = EVALUATIONS * MAX_STEPS

    def evaluate(node: n.Node) -> Any:
        nonlocal left
        steps = MAX_STEPS if node is tree else min(MAX_STEPS, left)
        inner = Frame(frame.variables, frame.constants, steps)
        try:
            return build(node, frozenset(), declared)(inner)
        finally:
            if node is not tree:
                left -= steps - max(inner.budget[0], 0)

    def verdict(node: n.Node) -> Verdict:
        value: Any = None
        error: ConditionFailed | None = None
        try:
            value = evaluate(node)
        except EvaluationFault as fault:
            error = failed(fault)
        except RecursionError:
            error = failed(EvaluationFault(Reason.TOO_DEEP, "a value is nested too deeply to be evaluated"))
        position = tokens.starts[node.start]
        return Verdict(
            text=tokens.source(node.start, node.end),
            position=position,
            line=tokens.text.count("\n", 0, position) + 1,
            column=position - tokens.text.rfind("\n", 0, position),
            value=value,
            error=error,
            children=tuple(verdict(part) for part in _parts(node, value_of(node))),
        )

    def value_of(node: n.Node) -> Any:
        """The value of a ternary's test, which says which result to show."""
        if not isinstance(node, n.Choose):
            return None
        try:
            return evaluate(node.test)
        except (EvaluationFault, RecursionError):
            return None

    return verdict(tree)


def _parts(node: n.Node, test: Any) -> tuple[n.Node, ...]:
    """The parts of a node to show: those whose value does not follow from the text."""
    match node:
        case n.Choose():
            chosen = {True: (node.yes,), False: (node.no,)}.get(test, ()) if isinstance(test, bool) else ()
            found: tuple[n.Node, ...] = (node.test, *chosen)
        case n.Macro(over=over):
            found = (over,)
        case n.Select() | n.MaybeSelect() | n.Name() | n.Literal() | n.Constant():
            return ()
        case n.Logic(operands=operands):
            return operands
        case n.Has(operand=operand):
            found = (operand,) if not isinstance(operand, n.Name) else ()
        case n.ListOf() | n.MapOf() | n.Message():
            return ()
        case _:
            found = n.children(node)[:_MAX_OPERANDS]
    return tuple(part for part in found if not isinstance(part, n.Literal | n.Constant | n.ListOf | n.MapOf))
