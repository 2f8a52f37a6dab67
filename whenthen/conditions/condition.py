"""A condition: the text of a rule's `when`, compiled once and evaluated for every event that could match.

`compile_condition` is the public face; the rest of the package serves it. Meaning: docs/rules.md, "Conditions",
and the CEL language definition.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from whenthen.conditions import nodes as n
from whenthen.conditions.codegen import constant_of
from whenthen.conditions.conjuncts import Path, Tests, tests_of
from whenthen.conditions.frame import Frame
from whenthen.conditions.lexer import literal_value, tokenize
from whenthen.conditions.parser import ParseFault
from whenthen.conditions.runtime.cel_values import EvaluationFault, kind_name
from whenthen.conditions.runtime.condition_errors import (
    ConditionFailed,
    ConditionRefused,
    ConditionSyntaxError,
    Reason,
    describe,
)
from whenthen.conditions.shapes import Shape, shape_of
from whenthen.conditions.value_tree import Verdict, explain_tree

__all__ = ["Condition", "compile_condition"]


def compile_condition(text: str, *, variables: Collection[str] | None = None) -> Condition:
    """Compile a CEL expression.

    With `variables` every name must be one of them, and every function a known one. Without, any name is
    accepted and looked up at each call, and an unknown function is accepted where CEL lets its error be
    absorbed.

    Raises:
        ConditionSyntaxError: the text is not CEL; `line`, `column` and `caret` say where.
        ConditionRefused: it is CEL, but too large, or uses an unknown name, or contains an invalid constant pattern,
            duration, timestamp, address or format.
    """
    tokens = tokenize(text)
    declared = None if variables is None else frozenset(variables)
    try:
        shared = shape_of(tokens.shape, declared)
    except ParseFault as fault:
        cls = ConditionSyntaxError if fault.reason is Reason.SYNTAX else ConditionRefused
        raise cls(
            fault.detail,
            reason=fault.reason,
            text=text,
            position=tokens.starts[fault.token],
            hint=fault.hint,
        ) from None
    constants = tuple(
        [
            literal_value(source, use.kind, negative=use.negative, text=text, position=tokens.starts[use.token])
            for use, source in zip(shared.literals, tokens.literals, strict=True)
        ]
    )
    for checked in shared.constants_checked:
        try:
            checked.check(constants[checked.slot])
        except EvaluationFault as found:
            raise ConditionRefused(
                found.detail,
                reason=Reason.BAD_CONSTANT,
                text=text,
                position=tokens.starts[checked.node.start],
                clause=tokens.source(checked.node.start, checked.node.end),
            ) from None
    return Condition(text, shared, constants)


class Condition:
    """A compiled condition. Calling it with variables gives its CEL value as a plain Python value.

    Values: JSON as it comes (int, float, bool, str, None, list, dict), bytes, datetime (a timestamp; UTC when
    it names no zone), timedelta (a duration), `Uint`, `CelType`, `OptionalValue`, IPv4Address and
    IPv6Address, `Cidr`. Evaluation has no side effects and keeps nothing between
    calls.

    Raises, when called:
        ConditionFailed: the condition has no value for these variables.
    """

    __slots__ = ("_constants", "_shape", "_tests", "_value", "holds", "text")

    text: str
    holds: Callable[[Mapping[str, Any]], bool]
    """Whether the condition is true. Raises `ConditionFailed` when it has no value, or one that is not a bool."""

    def __init__(self, text: str, shared: Shape, constants: tuple[Any, ...]) -> None:
        self.text = text
        self._shape = shared
        self._constants = constants
        self._tests: Tests | None = None
        self._value: Callable[[Mapping[str, Any]], Any] = self._first_value
        self.holds = self._first_holds

    def __call__(self, variables: Mapping[str, Any]) -> Any:
        return self._value(variables)

    def __repr__(self) -> str:
        return f"Condition({self.text!r})"

    # -- what it reads and requires

    def reads(self, variable: str) -> bool:
        """Whether the variable is named in the text; not whether evaluation comes to it."""
        return variable in self._shape.names

    @property
    def equalities(self) -> tuple[tuple[Path, str | int | bool], ...]:
        """Tests `path == constant` that must hold for the condition to be true, such as `event.payload.ref ==
        "main"`.

        A conjunct that is a path alone requires true, a negated one false. CEL compares numbers by value: the
        constant 1 is also met by 1.0, and never by true; an index over them must look 1.0 up as 1 and keep
        booleans apart.
        """
        return self._required().equalities

    @property
    def memberships(self) -> tuple[tuple[Path, tuple[str | int | bool, ...]], ...]:
        """Tests `path in [constants]` that must hold; numbers compare as for `equalities`."""
        return self._required().memberships

    def selections(self, variable: str) -> Iterator[tuple[tuple[str, ...], int]]:
        """Each chain of fields that the condition selects from `variable`, as `("payload", "ref")` of `event.payload.ref` or
        `event.payload["ref"]`, and where its first field is in the text. A chain and its beginnings come one by one."""
        starts = tokenize(self.text).starts
        for node in n.walk(self._shape.tree):
            fields: list[tuple[str, int]] = []
            inner: n.Node = node
            while True:
                match inner:
                    case n.Select() | n.MaybeSelect() | n.Has():
                        fields.append((inner.field, inner.at))
                    case n.Index(index=n.Literal(slot=slot, kind="string")):
                        fields.append((self._constants[slot], inner.at))
                    case n.MaybeIndex(index=n.Literal(slot=slot, kind="string")):
                        fields.append((self._constants[slot], inner.at))
                    case _:
                        break
                inner = inner.operand
            if fields and isinstance(inner, n.Name) and inner.name == variable:
                yield tuple(field for field, _ in reversed(fields)), starts[fields[-1][1]]

    def _required(self) -> Tests:
        if self._tests is None:
            self._tests = tests_of(self._shape.tree, self._constants)
        return self._tests

    def explain(self, variables: Mapping[str, Any]) -> Verdict:
        """The value of the condition and of each part that decided it, with the values compared."""
        tokens = tokenize(self.text)
        frame = Frame(variables, self._constants)
        return explain_tree(self._shape.tree, frame, tokens, self._shape.declared, self._failed)

    # -- evaluation

    def _first_value(self, variables: Mapping[str, Any]) -> Any:
        self._warm()
        return self._exact(variables)

    def _first_holds(self, variables: Mapping[str, Any]) -> bool:
        self._warm()
        return self._exact_holds(variables)

    def _warm(self) -> None:
        """Switch to the compiled function as soon as the shape has one."""
        compiled = self._shape.compiled()
        if compiled is not None:
            parameters = [constant_of(recipe, self._constants) for recipe in compiled.recipes]
            self._value, self.holds = compiled.make(self._exact, self._exact_holds, *parameters)
        elif self._shape.is_final:
            self._value, self.holds = self._exact, self._exact_holds

    def _exact(self, variables: Mapping[str, Any]) -> Any:
        try:
            return self._shape.evaluator(Frame(variables, self._constants))
        except EvaluationFault as fault:
            raise self._failed(fault) from None
        except RecursionError:
            raise ConditionFailed(
                "a value is nested too deeply to be evaluated", reason=Reason.TOO_DEEP, text=self.text
            ) from None

    def _exact_holds(self, variables: Mapping[str, Any]) -> bool:
        value = self._exact(variables)
        if value is True or value is False:
            return bool(value)
        raise ConditionFailed(
            f"the condition gives {describe(value)} ({kind_name(value)}), not a bool",
            reason=Reason.NOT_BOOLEAN,
            text=self.text,
            clause=self.text.strip(),
            value=value,
        )

    def _failed(self, fault: EvaluationFault) -> ConditionFailed:
        node, text = fault.node or self._shape.tree, self.text

        def locate() -> tuple[int, str]:
            tokens = tokenize(text)
            return tokens.starts[node.at], tokens.source(node.start, node.end)

        return ConditionFailed(fault.detail, reason=fault.reason, text=text, value=fault.value, locate=locate)
