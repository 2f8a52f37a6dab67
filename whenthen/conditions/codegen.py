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
from whenthen.conditions.exact import build_map
from whenthen.conditions.parser import LiteralUse
from whenthen.conditions.runtime import operators as o
from whenthen.conditions.runtime.cel_values import INT_MAX, INT_MIN, KINDS
from whenthen.conditions.runtime.comparing import COMPARED, SCANNED, equal, literal_member, member
from whenthen.conditions.runtime.cost import FREE, MAX_STEPS, literal_slots, literal_weight, pairs, ranged, weight
from whenthen.conditions.runtime.functions import CHARGED_FUNCTIONS, FUNCTIONS
from whenthen.conditions.runtime.regex import compile_pattern

__all__ = ["CompiledShape", "Recipe", "compile_shape", "constant_of"]

UNSEARCHED = 32  #: shorter texts are searched without a charge
MAX_BRACKETS = 150  #: CPython's own parser stops at 200 nested brackets

#: how a parameter is made of literals: what to make, and the slots of the literals
Recipe = tuple[str, tuple[int, ...]]
Maker = Callable[..., tuple[Callable[[Any], Any], Callable[[Any], bool]]]


class _Declined(Exception):
    """The tree contains a node that only `exact` evaluates."""


@dataclass(frozen=True, slots=True)
class CompiledShape:
    """A function factory: `make(exact, exact_holds, *parameters)` gives the value function and the truth function."""

    make: Maker
    recipes: tuple[Recipe, ...]
    source: str


@dataclass(frozen=True, slots=True)
class _Code:
    text: str
    kind: str | None = None  #: the CEL type, when it is certain
    literal: str | None = None  #: the kind of literal this is, when it is one
    negative: bool = False


def _step_aside() -> Any:
    raise _Declined


def _no_dotted(variables: Any, names: frozenset[str]) -> None:
    """A variable named `a.b` takes precedence over field `b` of `a`; only `exact` looks for it."""
    if not names.isdisjoint(variables):
        raise _Declined


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
    **{f"f_{name}": function for name, (function, _, _) in FUNCTIONS.items()},
    **{f"t_{name}": kind for name, kind in KINDS.items() if "." not in name},
}  # fmt: skip

_HELPERS = {
    "==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge",
    "+": "add", "-": "sub", "*": "mul", "/": "div", "%": "mod",
}  # fmt: skip
_PYTHON_CLASS = {"int": "int", "string": "str", "double": "float"}
_RESULTS = {
    "size": "int", "type": "type", "int": "int", "uint": "uint", "double": "double", "string": "string",
    "bytes": "bytes", "bool": "bool", "timestamp": "timestamp", "duration": "duration",
}  # fmt: skip
_COMPARABLE = frozenset({"int", "string", "double", "uint", "bytes", "bool"})
_SIZED = frozenset({"string", "bytes"})  #: the comparable kinds whose comparison costs steps
_ARITHMETIC = frozenset({"int", "uint", "double", "string", "bytes", "list"})


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
    return FUNCTIONS[what][0](constants[slots[0]], [MAX_STEPS])


def _brackets(source: str) -> int:
    depth = deepest = 0
    for character in source:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth -= 1
    return deepest


class _Writer:
    """Writes expressions; collects the variables, parameters and dotted names that they use."""

    def __init__(self, literals: Sequence[LiteralUse], declared: frozenset[str] | None) -> None:
        self.literals = literals
        self.declared = declared
        self.recipes: list[Recipe] = []
        self.roots: dict[str, str] = {}
        self.dotted: set[str] = set()
        self.temporaries = 0
        self.has_macros = False

    # -- names

    def fresh(self) -> str:
        self.temporaries += 1
        return f"x{self.temporaries}"

    def parameter(self, what: str, *slots: int) -> str:
        recipe = (what, slots)
        if recipe not in self.recipes:
            self.recipes.append(recipe)
        return f"k{self.recipes.index(recipe)}"

    def function(self, code: _Code) -> str:
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

    def write(self, node: n.Node, scope: dict[str, str]) -> _Code:
        match node:
            case n.Literal(slot=slot, kind=kind):
                negative = self.literals[slot].negative
                return _Code(self.parameter("literal", slot), kind, kind, negative)
            case n.Constant(value=value):
                return _Code(repr(value), "null_type" if value is None else "bool", repr(value))
            case n.Name():
                return self.name(node, scope)
            case n.Select(operand=operand, field=field):
                self.note_dotted(node, scope)
                return _Code(f"{self.write(operand, scope).text}[{field!r}]")
            case n.Has(operand=operand, field=field):
                x = self.fresh()
                inner = self.write(operand, scope).text
                return _Code(f"({field!r} in {x} if type({x} := {inner}) is dict else aside())", "bool")
            case n.Index():
                return self.index(node, scope)
            case n.Unary(operator="!", operand=operand):
                return _Code(f"(not {self.truth(operand, scope)})", "bool")
            case n.Unary(operand=operand):
                inner_code = self.write(operand, scope)
                return _Code(f"neg({inner_code.text})", inner_code.kind)
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
                return _Code(f"({word.join(self.truth(operand, scope) for operand in operands)})", "bool")
            case n.Choose(test=test, yes=yes, no=no):
                condition, first, second = self.truth(test, scope), self.write(yes, scope), self.write(no, scope)
                both = first.kind if first.kind == second.kind else None
                return _Code(f"({first.text} if {condition} else {second.text})", both)
            case n.ListOf(items=items):
                return _Code(f"[{', '.join(self.write(item, scope).text for item in items)}]", "list")
            case n.MapOf(entries=entries):
                parts = "".join(f"({self.write(k, scope).text}, {self.write(v, scope).text})," for k, v in entries)
                return _Code(f"build_map(({parts}))", "map")
            case n.Macro():
                return self.macro(node, scope)
        raise _Declined

    def name(self, node: n.Name, scope: dict[str, str]) -> _Code:
        if node.name in scope and not node.absolute:
            return _Code(scope[node.name])
        if node.name in KINDS and (self.declared is None or node.name not in self.declared):
            if self.declared is not None:
                return _Code(f"t_{node.name}", "type")
            return _Code(f"(V[{node.name!r}] if {node.name!r} in V else t_{node.name})")
        return _Code(self.roots.setdefault(node.name, f"r{len(self.roots)}"))

    def note_dotted(self, node: n.Select, scope: dict[str, str]) -> None:
        dotted = dotted_name(node, scope)
        if dotted is None:
            return
        if dotted in KINDS or (self.declared is not None and dotted in self.declared):
            raise _Declined
        if self.declared is None:
            self.dotted.add(dotted)

    def index(self, node: n.Index, scope: dict[str, str]) -> _Code:
        operand, index = self.write(node.operand, scope), self.write(node.index, scope)
        if index.literal == "string":
            return _Code(f"{operand.text}[{index.text}]")
        if index.literal == "int" and not index.negative:
            x = self.fresh()
            return _Code(f"({x}[{index.text}] if type({x} := {operand.text}) is list else element({x}, {index.text}))")
        return _Code(f"element({operand.text}, {index.text})")

    def comparison(self, node: n.Binary, scope: dict[str, str]) -> _Code:
        operator, helper = node.operator, _HELPERS[node.operator]
        left, right = self.write(node.left, scope), self.write(node.right, scope)
        text_limit, budget = self.text_limit(scope), self.budget(scope)
        if (
            left.kind == right.kind
            and left.kind in _COMPARABLE
            and (left.kind not in _SIZED or left.literal or right.literal)
        ):
            return _Code(f"({left.text} {operator} {right.text})", "bool")
        for literal, other in ((right, left), (left, right)):
            if literal.literal is None or other.literal is not None:
                continue
            if operator in ("==", "!="):
                if literal.literal in ("True", "False", "None"):
                    word = "is" if operator == "==" else "is not"
                    return _Code(f"({other.text} {word} {literal.text})", "bool")
                if literal.literal == "string":  # no value of another type equals a str in Python either
                    return _Code(f"({other.text} {operator} {literal.text})", "bool")
            if literal.literal in _PYTHON_CLASS:
                x = self.fresh()
                sides = f"{x} {operator} {literal.text}" if literal is right else f"{literal.text} {operator} {x}"
                call = f"{x}, {literal.text}" if literal is right else f"{literal.text}, {x}"
                test = f"type({x} := {other.text}) is {_PYTHON_CLASS[literal.literal]}"
                return _Code(f"({sides} if {test} else {helper}({call}, {budget}))", "bool")
        x, y = self.fresh(), self.fresh()
        same = f"type({x} := {left.text}) is type({y} := {right.text})"
        if operator in ("==", "!="):
            ready = f"{same} is str and len({x}) < {text_limit}"
        else:
            kind = self.fresh()
            ready = (
                f"({kind} := type({x} := {left.text})) is type({y} := {right.text})"
                f" and ({kind} is int or {kind} is float or ({kind} is str and len({x}) < {text_limit}))"
            )
        return _Code(f"({x} {operator} {y} if {ready} else {helper}({x}, {y}, {budget}))", "bool")

    def budget(self, scope: dict[str, str]) -> str:
        """What a helper charges: None outside of macros."""
        return "budget" if scope else "None"

    def text_limit(self, scope: dict[str, str]) -> int:
        """Shorter texts are compared without a charge."""
        return (1 if scope else FREE) << COMPARED

    def arithmetic(self, node: n.Binary, scope: dict[str, str]) -> _Code:
        operator, helper = node.operator, _HELPERS[node.operator]
        left, right = self.write(node.left, scope), self.write(node.right, scope)
        kind = next((code.kind for code in (left, right) if code.kind in _ARITHMETIC), None)
        x, y = self.fresh(), self.fresh()
        if operator in ("+", "-", "*") and kind in (None, "int"):
            r = self.fresh()
            both = f"type({x} := {left.text}) is type({y} := {right.text}) is int"
            inline = f"({r} if ({both}) and {INT_MIN} <= ({r} := {x} {operator} {y}) <= {INT_MAX} else "
            return _Code(f"{inline}{self.operation(node, x, y, scope)})", kind)
        if operator in ("/", "%") and right.literal == "int" and not right.negative:
            python = "//" if operator == "/" else "%"
            test = f"type({x} := {left.text}) is int and {x} >= 0"
            return _Code(f"({x} {python} {right.text} if {test} else {helper}({x}, {right.text}))", "int")
        return _Code(self.operation(node, left.text, right.text, scope), kind)

    def operation(self, node: n.Binary, left: str, right: str, scope: dict[str, str]) -> str:
        charged = f", {self.budget(scope)}" if node.operator in o.CHARGED else ""
        return f"{_HELPERS[node.operator]}({left}, {right}{charged})"

    def membership(self, node: n.Binary, scope: dict[str, str]) -> _Code:
        left, budget = self.write(node.left, scope), self.budget(scope)
        if isinstance(node.right, n.ListOf) and node.right.items:
            items = node.right.items
            literals = [item for item in items if isinstance(item, n.Literal)]
            kinds = {item.kind for item in literals}
            if len(literals) == len(items) and len(kinds) == 1:
                slots = tuple(item.slot for item in literals)
                if kinds == {"string"}:
                    return _Code(f"({left.text} in {self.parameter('set', *slots)})", "bool")
                if kinds == {"int"}:
                    x = self.fresh()
                    members, whole = self.parameter("set", *slots), self.parameter("list", *slots)
                    return _Code(
                        f"({x} in {members} if type({x} := {left.text}) is int else member({x}, {whole}, {budget}))",
                        "bool",
                    )
        right = self.write(node.right, scope)
        if left.literal == "string":
            x = self.fresh()
            few = (1 if scope else FREE) << SCANNED
            test = f"type({x} := {right.text}) is list and len({x}) < {few} or type({x}) is dict"
            return _Code(f"({left.text} in {x} if {test} else lmember({left.text}, {x}, {budget}))", "bool")
        return _Code(f"member({left.text}, {right.text}, {budget})", "bool")

    def call(self, node: n.Call, scope: dict[str, str]) -> _Code:
        name = node.function
        if name not in FUNCTIONS:
            raise _Declined
        operands = node.operands
        literal = operands[-1] if isinstance(operands[-1], n.Literal) and operands[-1].kind == "string" else None
        budget = self.budget(scope)
        if name == "matches":
            if literal is None:
                raise _Declined  # compiling the pattern is charged
            x, subject = self.fresh(), self.write(operands[0], scope).text
            pattern = self.parameter("pattern", literal.slot)
            return _Code(f"({pattern}({x}, {budget}) if type({x} := {subject}) is str else aside())", "bool")
        if name in ("timestamp", "duration") and literal is not None:
            return _Code(self.parameter(name, literal.slot), name)
        if name.startswith("get") and len(operands) == 2 and literal is None:
            raise _Declined  # loading the time zone is charged
        codes = [self.write(operand, scope) for operand in operands]
        if name == "size":
            return _Code(f"len({codes[0].text})", "int")
        if name in ("startsWith", "endsWith") and literal is not None:
            method = "startswith" if name == "startsWith" else "endswith"
            return _Code(f"{codes[0].text}.{method}({codes[1].text})", "bool")
        if name == "contains" and literal is not None:
            x = self.fresh()
            inline = f"{codes[1].text} in {x} if type({x} := {codes[0].text}) is str and len({x}) < {UNSEARCHED}"
            return _Code(f"({inline} else f_contains({x}, {codes[1].text}, {budget}))", "bool")
        if name == "dyn":
            return _Code(codes[0].text, codes[0].kind)
        charged = f", {budget}" if name in CHARGED_FUNCTIONS else ""
        text = f"f_{name}({', '.join(code.text for code in codes)}{charged})"
        kind = "int" if name.startswith("get") else _RESULTS.get(name, "bool")
        return _Code(text, kind)

    def macro(self, node: n.Macro, scope: dict[str, str]) -> _Code:
        self.has_macros = True
        over = self.write(node.over, scope).text
        inner = dict(scope)
        for variable in node.variables:
            inner[variable] = f"v{self.temporaries}_{len(inner)}"
            self.temporaries += 1
        names = ", ".join(inner[variable] for variable in node.variables)
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
            return _Code(f"{'any' if node.kind == 'exists' else 'all'}(map({test}, {source}))", "bool")
        if node.kind == "exists_one":
            return _Code(f"(sum(map({test}, {source})) == 1)", "bool")
        if node.kind == "filter":
            return _Code(f"list(filter({test}, {source}))", "list")
        assert node.result is not None
        if test:
            source = f"filter({test}, {source})"
        return _Code(f"list(map(lambda {names}: {self.write(node.result, inner).text}, {source}))", "list")
