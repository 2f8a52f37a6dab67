"""Compiles a tree to one Python function that covers the usual cases and falls back to `exact` in every other.

Called by `shapes`. The function inlines what conditions mostly do: fields of dicts, comparisons of values of
one type, text tests, macros over lists. Whatever is unusual (a missing field, mixed types, an overflow, an error
that `||` may absorb) calls a helper or raises an exception, after which `exact` evaluates the condition from the start. So
this module may decline a tree, but never gives another result: tests/unit/conditions/test_agreement.py compares the two.

Operations are inlined for operands that cost no step; others go to a helper that charges the budget of the macros around it.
Outside of macros there is no budget: a helper that would charge more than `FREE` leaves the condition to `exact`.

Literals are parameters (`k0`, `k1`, ...), so one compiled function body serves every condition of a shape.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from whenthen.conditions import nodes as n
from whenthen.conditions.check import dotted_name
from whenthen.conditions.code_operators import Code, OperatorWriter, Recipe
from whenthen.conditions.exact import build_map
from whenthen.conditions.functions.function_table import (
    CONSTANT_FUNCTIONS,
    FUNCTIONS,
    LAZY_FUNCTIONS,
    Function,
    constant_value,
)
from whenthen.conditions.functions.optional_functions import filled, filled_entries, flat_mapped, mapped
from whenthen.conditions.parser import LiteralUse
from whenthen.conditions.runtime import operators as o
from whenthen.conditions.runtime.cel_values import KINDS
from whenthen.conditions.runtime.comparing import equal, literal_member, member
from whenthen.conditions.runtime.cost import MAX_STEPS, literal_slots, literal_weight, pairs, ranged, weight
from whenthen.conditions.runtime.regex import compile_pattern

__all__ = ["CompiledShape", "Recipe", "compile_shape", "constant_of"]

UNSEARCHED = 32  #: shorter texts are searched without a charge
OPTIONAL = "optional_type"
MAX_BRACKETS = 150  #: CPython's own parser stops at 200 nested brackets

Maker = Callable[..., tuple[Callable[[Any], Any], Callable[[Any], bool]]]


class _Declined(Exception):
    """The tree contains a node that only `exact` evaluates."""


@dataclass(frozen=True, slots=True)
class CompiledShape:
    """A function factory: `make(exact, exact_holds, *parameters)` gives the value function and the truth function."""

    make: Maker
    recipes: tuple[Recipe, ...]
    source: str


def _step_aside() -> Any:
    raise _Declined


def _no_dotted(variables: Any, names: frozenset[str]) -> None:
    """A variable named `a.b` takes precedence over field `b` of `a`; only `exact` looks for it."""
    if not names.isdisjoint(variables):
        raise _Declined


def _global_of(function: Function, *, method: bool) -> str:
    """What compiled code calls a function."""
    own = method and function.method is not None
    return f"{'m' if own else 'f'}_{function.name.replace('.', '_')}"


_GLOBALS: dict[str, Any] = {
    "__builtins__": {
        "type": type, "len": len, "any": any, "all": all, "sum": sum, "map": map, "filter": filter,
        "list": list, "int": int, "str": str, "float": float, "dict": dict, "frozenset": frozenset,
        "Exception": Exception,
    },
    "eq": equal, "ne": o.unequal, "lt": o.less, "le": o.less_or_equal, "gt": o.greater, "ge": o.greater_or_equal,
    "add": o.add, "sub": o.subtract, "mul": o.multiply, "div": o.divide, "mod": o.remainder,
    "neg": o.negate, "member": member, "lmember": literal_member, "element": o.element,
    "aside": _step_aside, "no_dotted": _no_dotted, "build_map": build_map,
    "ranged": ranged, "pairs": pairs,
    "maybe_select": o.maybe_select, "maybe_element": o.maybe_element, "select": o.select, "has": o.has,
    "filled": filled, "filled_entries": filled_entries, "mapped": mapped, "flat_mapped": flat_mapped,
    **{_global_of(function, method=method): function.called(method=method)
       for function in FUNCTIONS.values() for method in (False, True)},
    **{f"t_{name}": kind for name, kind in KINDS.items() if "." not in name},
}  # fmt: skip


def compile_shape(
    tree: n.Node, literals: Sequence[LiteralUse], declared: frozenset[str] | None
) -> CompiledShape | None:
    """Compile a tree, or None when only `exact` evaluates it."""
    writer = _Writer(literals, declared)
    try:
        code = writer.write(tree, {})
    except _Declined:
        return None
    source = writer.function(code)
    if _brackets(source) > MAX_BRACKETS:
        return None
    namespace: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # Python's opinion of `true[0]`, which fails in CEL's own way
        code_object = compile(source, "<condition>", "exec")
    exec(code_object, _GLOBALS, namespace)
    return CompiledShape(namespace["make"], tuple(writer.recipes), source)


def constant_of(recipe: Recipe, constants: Sequence[Any]) -> Any:
    """The parameter that a recipe makes of the literals of one text.

    Raises:
        EvaluationFault: a constant pattern, duration or timestamp is not valid.
    """
    what, slots = recipe
    if what == "literal":
        return constants[slots[0]]
    if what == "set":
        return frozenset(constants[slot] for slot in slots)
    if what == "list":
        return [constants[slot] for slot in slots]
    if what == "weight":
        return literal_weight(constants[slot] for slot in slots)
    if what == "pattern":
        return compile_pattern(constants[slots[0]])
    return constant_value(what, constants[slots[0]])


def _brackets(source: str) -> int:
    depth = deepest = 0
    for character in source:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth -= 1
    return deepest


class _Writer(OperatorWriter):
    """Writes expressions; collects the variables, parameters and dotted names that they use."""

    def __init__(self, literals: Sequence[LiteralUse], declared: frozenset[str] | None) -> None:
        super().__init__()
        self.literals = literals
        self.declared = declared
        self.roots: dict[str, str] = {}
        self.dotted: set[str] = set()
        self.has_macros = False

    # -- names

    def function(self, code: Code) -> str:
        parameters = "".join(f", k{index}" for index in range(len(self.recipes)))
        head = [f"{python} = V[{name!r}]" for name, python in self.roots.items()]
        if self.has_macros:
            head.append(f"budget = [{MAX_STEPS}]")
        if self.dotted:
            names = ", ".join(repr(name) for name in sorted(self.dotted))
            head.append(f"if len(V) != {len(self.roots)}: no_dotted(V, dotted)")
            dotted = f"    dotted = frozenset(({names},))\n"
        else:
            dotted = ""
        lines = "".join(f"            {line}\n" for line in head)
        value = (
            f"    def value(V):\n        try:\n{lines}            return {code.text}\n"
            "        except Exception:\n            return exact(V)\n"
        )
        if code.kind == "bool":
            holds = "    return value, value\n"
        else:
            holds = (
                "    def holds(V):\n        result = value(V)\n"
                "        return result if result is True or result is False else exact_holds(V)\n"
                "    return value, holds\n"
            )
        return f"def make(exact, exact_holds{parameters}):\n{dotted}{value}{holds}"

    # -- expressions

    def truth(self, node: n.Node, scope: dict[str, str]) -> str:
        """An expression that gives a bool or falls back."""
        code = self.write(node, scope)
        if code.kind == "bool":
            return code.text
        x = self.fresh()
        return f"({x} if ({x} := {code.text}) is True or {x} is False else aside())"

    def write(self, node: n.Node, scope: dict[str, str]) -> Code:
        match node:
            case n.Literal(slot=slot, kind=kind):
                negative = self.literals[slot].negative
                return Code(self.parameter("literal", slot), kind, kind, negative)
            case n.Constant(value=value):
                return Code(repr(value), "null_type" if value is None else "bool", repr(value))
            case n.Name():
                return self.name(node, scope)
            case n.Select(operand=operand, field=field):
                self.note_dotted(node, scope)
                of = self.write(operand, scope)
                if of.kind == OPTIONAL:
                    return Code(f"select({of.text}, {field!r})", OPTIONAL)
                return Code(f"{of.text}[{field!r}]")
            case n.Has(operand=operand, field=field):
                of, x = self.write(operand, scope), self.fresh()
                if of.kind == OPTIONAL:
                    return Code(f"has({of.text}, {field!r})", "bool")
                return Code(f"({field!r} in {x} if type({x} := {of.text}) is dict else aside())", "bool")
            case n.MaybeSelect(operand=operand, field=field):
                return Code(f"maybe_select({self.write(operand, scope).text}, {field!r})", OPTIONAL)
            case n.MaybeIndex(operand=operand, index=index):
                of, by = self.write(operand, scope), self.write(index, scope)
                return Code(f"maybe_element({of.text}, {by.text})", OPTIONAL)
            case n.Index():
                return self.index(node, scope)
            case n.Unary(operator="!", operand=operand):
                return Code(f"(not {self.truth(operand, scope)})", "bool")
            case n.Unary(operand=operand):
                inner_code = self.write(operand, scope)
                return Code(f"neg({inner_code.text})", inner_code.kind)
            case n.Binary(operator="in"):
                return self.membership(node, scope)
            case n.Binary(operator=operator):
                if operator in ("+", "-", "*", "/", "%"):
                    return self.arithmetic(node, scope)
                return self.comparison(node, scope)
            case n.Call():
                return self.call(node, scope)
            case n.Logic(operator=operator, operands=operands):
                word = " and " if operator == "&&" else " or "
                return Code(f"({word.join(self.truth(operand, scope) for operand in operands)})", "bool")
            case n.Choose(test=test, yes=yes, no=no):
                condition, first, second = self.truth(test, scope), self.write(yes, scope), self.write(no, scope)
                both = first.kind if first.kind == second.kind else None
                return Code(f"({first.text} if {condition} else {second.text})", both)
            case n.ListOf(items=items, maybe=maybe):
                if maybe:
                    marked = enumerate(self.write(item, scope).text for item in items)
                    return Code(
                        f"filled(({''.join(f'({number in maybe}, {text}),' for number, text in marked)}))", "list"
                    )
                return Code(f"[{', '.join(self.write(item, scope).text for item in items)}]", "list")
            case n.MapOf(entries=entries, maybe=maybe):
                parts = "".join(f"({self.write(k, scope).text}, {self.write(v, scope).text})," for k, v in entries)
                if maybe:
                    return Code(
                        f"build_map(filled_entries(({parts}), frozenset(({''.join(f'{m},' for m in maybe)}))))", "map"
                    )
                return Code(f"build_map(({parts}))", "map")
            case n.Macro():
                return self.macro(node, scope)
        raise _Declined

    def name(self, node: n.Name, scope: dict[str, str]) -> Code:
        if node.name in scope and not node.absolute:
            return Code(scope[node.name])
        if node.name in KINDS and (self.declared is None or node.name not in self.declared):
            if self.declared is not None:
                return Code(f"t_{node.name}", "type")
            return Code(f"(V[{node.name!r}] if {node.name!r} in V else t_{node.name})")
        return Code(self.roots.setdefault(node.name, f"r{len(self.roots)}"))

    def note_dotted(self, node: n.Select, scope: dict[str, str]) -> None:
        dotted = dotted_name(node, scope)
        if dotted is None:
            return
        if dotted in KINDS or (self.declared is not None and dotted in self.declared):
            raise _Declined
        if self.declared is None:
            self.dotted.add(dotted)

    def index(self, node: n.Index, scope: dict[str, str]) -> Code:
        operand, index = self.write(node.operand, scope), self.write(node.index, scope)
        if operand.kind == OPTIONAL:
            return Code(f"element({operand.text}, {index.text})", OPTIONAL)
        if index.literal == "string":
            return Code(f"{operand.text}[{index.text}]")
        if index.literal == "int" and not index.negative:
            x = self.fresh()
            return Code(f"({x}[{index.text}] if type({x} := {operand.text}) is list else element({x}, {index.text}))")
        return Code(f"element({operand.text}, {index.text})")

    def call(self, node: n.Call, scope: dict[str, str]) -> Code:
        name = node.function
        function = FUNCTIONS.get(name)
        if function is None:
            raise _Declined
        operands = node.operands
        literal = node.args[-1] if node.args and isinstance(node.args[-1], n.Literal) else None
        if literal is not None and literal.kind != "string":
            literal = None
        budget = self.budget(scope)
        if name == "matches":
            if literal is None:
                raise _Declined  # compiling the pattern is charged
            x, subject = self.fresh(), self.write(operands[0], scope).text
            pattern = self.parameter("pattern", literal.slot)
            return Code(f"({pattern}({x}, {budget}) if type({x} := {subject}) is str else aside())", "bool")
        if name in CONSTANT_FUNCTIONS and literal is not None:
            return Code(self.parameter(name, literal.slot), function.gives)
        if name in LAZY_FUNCTIONS:
            return self.alternative(node, operands[0], operands[1], scope)
        if name.startswith("get") and len(operands) == 2 and literal is None:
            raise _Declined  # loading the time zone is charged
        codes = [self.write(operand, scope) for operand in operands]
        if name == "size":
            return Code(f"len({codes[0].text})", "int")
        if name in ("startsWith", "endsWith") and literal is not None:
            method = "startswith" if name == "startsWith" else "endswith"
            return Code(f"{codes[0].text}.{method}({codes[1].text})", "bool")
        if name == "contains" and literal is not None:
            x = self.fresh()
            inline = f"{codes[1].text} in {x} if type({x} := {codes[0].text}) is str and len({x}) < {UNSEARCHED}"
            return Code(f"({inline} else f_contains({x}, {codes[1].text}, {budget}))", "bool")
        if name == "dyn":
            return Code(codes[0].text, codes[0].kind)
        arguments = [code.text for code in codes] + [budget] * function.charged
        python = _global_of(function, method=node.target is not None)
        return Code(f"{python}({', '.join(arguments)})", function.gives)

    def alternative(self, node: n.Call, first: n.Node, second: n.Node, scope: dict[str, str]) -> Code:
        """`or` and `orValue`, whose second operand is evaluated when it is needed."""
        if node.function == "orValue" and isinstance(first, n.MaybeSelect):
            operand = self.write(first.operand, scope)
            if operand.kind != OPTIONAL:
                x, field, other = self.fresh(), repr(first.field), self.write(second, scope).text
                chosen = f"{x}[{field}] if {field} in {x} else {other}"
                return Code(f"(({chosen}) if type({x} := {operand.text}) is dict else aside())")
        optional, other = self.write(first, scope).text, self.write(second, scope).text
        return Code(f"f_{node.function}({optional}, lambda: {other})", OPTIONAL if node.function == "or" else None)

    def macro(self, node: n.Macro, scope: dict[str, str]) -> Code:
        self.has_macros = True
        over = self.write(node.over, scope).text
        inner = dict(scope)
        for variable in node.variables:
            inner[variable] = f"v{self.temporaries}_{len(inner)}"
            self.temporaries += 1
        names = ", ".join(inner[variable] for variable in node.variables)
        if node.kind in ("optMap", "optFlatMap"):
            assert node.result is not None
            helper = "mapped" if node.kind == "optMap" else "flat_mapped"
            return Code(f"{helper}({over}, lambda {names}: {self.write(node.result, inner).text})", OPTIONAL)
        cost, slots = str(weight(node)), literal_slots(node)
        if slots:
            cost += f" + {self.parameter('weight', *slots)}"
        if len(node.variables) == 1:
            source = f"ranged({over}, {cost}, budget)"
        elif node.kind.startswith("transform"):
            raise _Declined
        else:
            source = f"*pairs({over}, {cost}, budget)"
        test = f"lambda {names}: {self.truth(node.test, inner)}" if node.test is not None else ""
        if node.kind in ("exists", "all"):
            return Code(f"{'any' if node.kind == 'exists' else 'all'}(map({test}, {source}))", "bool")
        if node.kind == "exists_one":
            return Code(f"(sum(map({test}, {source})) == 1)", "bool")
        if node.kind == "filter":
            return Code(f"list(filter({test}, {source}))", "list")
        assert node.result is not None
        if test:
            source = f"filter({test}, {source})"
        return Code(f"list(map(lambda {names}: {self.write(node.result, inner).text}, {source}))", "list")
