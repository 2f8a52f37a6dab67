"""The functions of CEL by name: what each takes and gives, how it is written, and what computes it.

`FUNCTIONS` is the table that the parser knows qualified names by, `check` refuses by, `exact` calls and `codegen` inlines
from. Meaning: docs/rules.md, "Functions".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from whenthen.conditions.functions import math_functions as numbers
from whenthen.conditions.functions import network_functions as network
from whenthen.conditions.functions import optional_functions as optionals
from whenthen.conditions.functions import standard_functions as standard
from whenthen.conditions.functions import text_functions as texts
from whenthen.conditions.functions.text_format import format_text
from whenthen.conditions.runtime import conversions
from whenthen.conditions.runtime.cel_values import kind
from whenthen.conditions.runtime.cost import MAX_STEPS
from whenthen.conditions.runtime.regex import matches

__all__ = ["CONSTANT_FUNCTIONS", "FUNCTIONS", "LAZY_FUNCTIONS", "NAMESPACES", "Form", "Function", "constant_value"]

CONSTANTS_KEPT = 1_024

Kinds = frozenset[str] | None  #: names of types, as messages write them; None takes any value

_GROUPS = {"number": "int|uint|double"}


@dataclass(frozen=True, slots=True)
class Form:
    """One way to call a function."""

    kinds: tuple[Kinds, ...]  #: of each operand; for `x.f(...)` the first is that of x
    method: bool  #: written `x.f(...)`
    more: bool  #: the last operand may be repeated

    def takes(self, count: int, *, method: bool) -> bool:
        """Whether it is called in this way with `count` operands."""
        known = len(self.kinds)
        return method is self.method and (count == known or (self.more and count > known))

    def kinds_at(self, position: int) -> Kinds:
        return self.kinds[min(position, len(self.kinds) - 1)]


@dataclass(frozen=True, slots=True)
class Function:
    """A function, with its forms as people read them: `string.indexOf(string, int)`."""

    name: str
    call: Callable[..., Any]  #: takes the operands, and with `charged` the budget behind them
    signatures: tuple[str, ...]
    forms: tuple[Form, ...]
    gives: str | None  #: the type of every result; None when it depends on the operands
    charged: bool
    method: Callable[..., Any] | None = None  #: instead of `call` for `x.f(...)`, where that is another function

    def called(self, *, method: bool) -> Callable[..., Any]:
        return self.method if method and self.method is not None else self.call


def _kinds(text: str) -> Kinds:
    if text == "any":
        return None
    return frozenset(kind for part in text.split("|") for kind in _GROUPS.get(part, part).split("|"))


def _form(name: str, signature: str) -> Form:
    target, _, rest = signature.partition(f"{name}(")
    operands = [text for text in rest.removesuffix(")").split(", ") if text]
    more = operands[-1:] == ["..."]
    if more:
        operands.pop()
    if target:
        operands.insert(0, target.removesuffix("."))
    return Form(tuple(_kinds(operand) for operand in operands), bool(target), more)


def _function(
    name: str,
    call: Callable[..., Any],
    *signatures: str,
    gives: str | None = None,
    charged: bool = False,
    method: Callable[..., Any] | None = None,
) -> Function:
    forms = tuple(_form(name, text) for text in signatures)
    return Function(name, call, signatures, forms, gives, charged, method)


def _standard() -> Iterable[Function]:
    yield _function("size", standard.size, "size(string|bytes|list|map)", "string|bytes|list|map.size()", gives="int")
    yield _function("matches", matches, "string.matches(string)", "matches(string, string)", gives="bool", charged=True)
    for name, test in (
        ("startsWith", standard.starts_with),
        ("endsWith", standard.ends_with),
        ("contains", standard.contains),
    ):
        yield _function(name, test, f"string.{name}(string)", gives="bool", charged=True)
    yield _function("type", kind, "type(any)", gives="type")
    yield _function("dyn", conversions.to_dyn, "dyn(any)")
    for name, convert in (
        ("int", conversions.to_int),
        ("uint", conversions.to_uint),
        ("double", conversions.to_double),
        ("string", conversions.to_string),
        ("bytes", conversions.to_bytes),
        ("timestamp", conversions.to_timestamp),
        ("duration", conversions.to_duration),
    ):
        yield _function(name, convert, f"{name}(any)", gives=name, charged=True)
    yield _function("bool", conversions.to_bool, "bool(any)", gives="bool")
    for name, part in standard.PARTS.items():
        target = "timestamp" if name in standard.OF_TIMES_ALONE else "timestamp|duration"
        yield _function(name, part, f"{target}.{name}()", f"timestamp.{name}(string)", gives="int")


def _texts() -> Iterable[Function]:
    yield _function("charAt", texts.char_at, "string.charAt(int)", gives="string")
    for name, find in (("indexOf", texts.index_of), ("lastIndexOf", texts.last_index_of)):
        forms = f"string.{name}(string)", f"string.{name}(string, int)"
        yield _function(name, find, *forms, gives="int", charged=True)
    yield _function("join", texts.join, "list.join()", "list.join(string)", gives="string", charged=True)
    yield _function("lowerAscii", texts.lower_ascii, "string.lowerAscii()", gives="string", charged=True)
    yield _function("upperAscii", texts.upper_ascii, "string.upperAscii()", gives="string", charged=True)
    yield _function("strings.quote", texts.quote, "strings.quote(string)", gives="string", charged=True)
    forms = "string.replace(string, string)", "string.replace(string, string, int)"
    yield _function("replace", texts.replace, *forms, gives="string", charged=True)
    forms = "string.split(string)", "string.split(string, int)"
    yield _function("split", texts.split, *forms, gives="list", charged=True)
    forms = "string.substring(int)", "string.substring(int, int)"
    yield _function("substring", texts.substring, *forms, gives="string", charged=True)
    yield _function("trim", texts.trim, "string.trim()", gives="string", charged=True)
    yield _function("reverse", texts.reverse, "string.reverse()", gives="string", charged=True)
    yield _function("format", format_text, "string.format(list)", gives="string", charged=True)


def _numbers() -> Iterable[Function]:
    for name, extreme in (("math.greatest", numbers.greatest), ("math.least", numbers.least)):
        yield _function(name, extreme, f"{name}(number|list)", f"{name}(number, number, ...)", charged=True)
    for name, rounded in numbers.ROUNDED.items():
        yield _function(name, rounded, f"{name}(double)", gives="double")
    for name, test in numbers.TESTS.items():
        yield _function(name, test, f"{name}(double)", gives="bool")
    yield _function("math.abs", numbers.absolute, "math.abs(number)")
    yield _function("math.sign", numbers.sign, "math.sign(number)")
    yield _function("math.sqrt", numbers.square_root, "math.sqrt(number)", gives="double")
    for name, combine in numbers.BITWISE.items():
        yield _function(name, combine, f"{name}(int, int)", f"{name}(uint, uint)")
    yield _function("math.bitNot", numbers.bit_not, "math.bitNot(int|uint)")
    for name, shift in numbers.SHIFTS.items():
        yield _function(name, shift, f"{name}(int|uint, int)")


def _network() -> Iterable[Function]:
    yield _function("ip", network.to_ip, "ip(string)", "cidr.ip()", gives="ip", charged=True, method=network.ip_of)
    yield _function("isIP", network.is_ip, "isIP(string)", gives="bool", charged=True)
    name = "ip.isCanonical"
    yield _function(name, network.is_canonical, f"{name}(string)", gives="bool", charged=True)
    yield _function("family", network.family, "ip.family()", gives="int")
    for name, test in network.TESTS.items():
        yield _function(name, test, f"ip.{name}()", gives="bool", charged=True)
    yield _function("cidr", network.to_cidr, "cidr(string)", gives="cidr", charged=True)
    yield _function("isCIDR", network.is_cidr, "isCIDR(string)", gives="bool", charged=True)
    yield _function("containsIP", network.contains_ip, "cidr.containsIP(ip|string)", gives="bool", charged=True)
    yield _function("containsCIDR", network.contains_cidr, "cidr.containsCIDR(cidr|string)", gives="bool", charged=True)
    yield _function("masked", network.masked, "cidr.masked()", gives="cidr", charged=True)
    yield _function("isMask", network.is_mask, "cidr.isMask()", gives="bool", charged=True)
    yield _function("prefixLength", network.prefix_length, "cidr.prefixLength()", gives="int")


def _optionals() -> Iterable[Function]:
    gives = "optional_type"
    yield _function("optional.of", optionals.of, "optional.of(any)", gives=gives)
    yield _function("optional.ofNonZeroValue", optionals.of_non_zero_value, "optional.ofNonZeroValue(any)", gives=gives)
    yield _function("optional.none", optionals.none, "optional.none()", gives=gives)
    yield _function("optional.unwrap", optionals.unwrap, "optional.unwrap(list)", gives="list", charged=True)
    yield _function("unwrapOpt", optionals.unwrap, "list.unwrapOpt()", gives="list", charged=True)
    yield _function("hasValue", optionals.has_value, "optional_type.hasValue()", gives="bool")
    yield _function("value", optionals.value, "optional_type.value()")
    yield _function("or", optionals.either, "optional_type.or(optional_type)", gives=gives)
    yield _function("orValue", optionals.value_or, "optional_type.orValue(any)")
    yield _function("first", optionals.first, "list.first()", gives=gives)
    yield _function("last", optionals.last, "list.last()", gives=gives)


FUNCTIONS: dict[str, Function] = {
    function.name: function for family in (_standard, _texts, _numbers, _network, _optionals) for function in family()
}
#: what stands before the dot of qualified names, as `math` in `math.abs`
NAMESPACES = frozenset(name.partition(".")[0] for name in FUNCTIONS if "." in name)
#: of a constant text their value is a constant too: made, and checked, when a condition is loaded
CONSTANT_FUNCTIONS = frozenset({"timestamp", "duration", "ip", "cidr"})

#: their second operand is a function without parameters, called when it is needed
LAZY_FUNCTIONS = frozenset({"or", "orValue"})


@lru_cache(maxsize=CONSTANTS_KEPT)
def constant_value(function: str, text: str) -> Any:
    """The value of one of `CONSTANT_FUNCTIONS` for a constant text, which is not charged.

    Raises:
        EvaluationFault: the text is none that the function takes.
    """
    return FUNCTIONS[function].call(text, [MAX_STEPS])
