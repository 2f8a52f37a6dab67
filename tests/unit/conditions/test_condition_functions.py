"""The functions of Google's extensions: values and failures, by closures and by compiled code, and what is refused at load."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from tests.compiled_conditions import compile_now
from whenthen.conditions import (
    CelType,
    Cidr,
    Condition,
    ConditionFailed,
    ConditionRefused,
    OptionalValue,
    Uint,
    compile_condition,
    describe,
)
from whenthen.conditions.functions.function_table import FUNCTIONS
from whenthen.conditions.parser import MACROS

Compile = Callable[[str], Condition]
NAN, INFINITY = math.nan, math.inf


@pytest.fixture(params=["closures", "compiled"])
def condition(request: pytest.FixtureRequest) -> Compile:
    """Compile for one of the two ways to evaluate."""

    def build(text: str) -> Condition:
        built = compile_condition(text, variables={"e", "now"})
        if request.param == "compiled":
            compile_now(built)
        return built

    return build


def same(found: Any, expected: Any) -> bool:
    if isinstance(expected, float):
        return type(found) is float and (repr(found) == repr(expected))
    return type(found) is type(expected) and found == expected


TEXTS = [
    ("e.charAt(1)", "aé😀", "é"),
    ("e.charAt(3)", "aé😀", ""),
    ("e.indexOf('b')", "abcb", 1),
    ("e.indexOf('b', 2)", "abcb", 3),
    ("e.indexOf('b', 4)", "abcb", -1),
    ("e.indexOf('b', 99)", "abcb", -1),
    ("e.indexOf('')", "abcb", 0),
    ("e.indexOf('', 2)", "abcb", 2),
    ("e.indexOf('', 99)", "abcb", 4),
    ("e.indexOf('😀')", "aé😀", 2),
    ("e.lastIndexOf('b')", "abcb", 3),
    ("e.lastIndexOf('b', 2)", "abcb", 1),
    ("e.lastIndexOf('b', 0)", "abcb", -1),
    ("e.lastIndexOf('bcb', 1)", "abcb", 1),
    ("e.lastIndexOf('b', 99)", "abcb", -1),
    ("e.lastIndexOf('')", "abcb", 4),
    ("e.lastIndexOf('', 2)", "abcb", 2),
    ("e.lastIndexOf('abcba')", "abcb", -1),
    ("e.join()", ["a", "b"], "ab"),
    ("e.join(', ')", ["a", "b"], "a, b"),
    ("e.join(', ')", [], ""),
    ("e.lowerAscii()", "ÄBc İ", "Äbc İ"),
    ("e.upperAscii()", "äßc ı", "äßC ı"),
    ("e.lowerAscii()", "A\ud800", "a\ud800"),
    ("strings.quote(e)", 'a"b\\c\n\t\x07\x08\x0c\r\x0b', '"a\\"b\\\\c\\n\\t\\a\\b\\f\\r\\v"'),
    ("strings.quote(e)", "é\ud800", '"é\ufffd"'),
    ("e.replace('ab', 'c')", "abab", "cc"),
    ("e.replace('ab', 'c', 1)", "abab", "cab"),
    ("e.replace('ab', 'c', 0)", "abab", "abab"),
    ("e.replace('ab', 'c', -1)", "abab", "cc"),
    ("e.replace('', '_')", "ab", "_a_b_"),
    ("e.replace('', '_', 2)", "ab", "_a_b"),
    ("e.split(',')", "a,b,,c", ["a", "b", "", "c"]),
    ("e.split(',', 2)", "a,b,c", ["a", "b,c"]),
    ("e.split(',', 1)", "a,b,c", ["a,b,c"]),
    ("e.split(',', 0)", "a,b,c", []),
    ("e.split(',', -1)", "a,b", ["a", "b"]),
    ("e.split(',', 99)", "a,b", ["a", "b"]),
    ("e.split('')", "aé😀", ["a", "é", "😀"]),
    ("e.split('', 2)", "abc", ["a", "bc"]),
    ("e.split('')", "", []),
    ("e.split(',')", "", [""]),
    ("e.substring(1)", "aé😀", "é😀"),
    ("e.substring(1, 2)", "aé😀", "é"),
    ("e.substring(3)", "aé😀", ""),
    ("e.substring(2, 2)", "abc", ""),
    ("e.trim()", "\u2003\x85\ta b\u3000\n", "a b"),
    ("e.trim()", "\u200ba\x1f", "\u200ba\x1f"),
    ("e.reverse()", "aé😀", "😀éa"),
]
FORMATS = [
    ("'%s and %d%%'.format([e, 7])", "x", "x and 7%"),
    ("'%s'.format([e])", [1, 2.0, "a", None, True, b"\xff\xfe!", {"b": 1, "a": [2]}], "[1, 2, a, null, true, \ufffd!, {a: [2], b: 1}]"),
    ("'%s %s %s'.format([e, now, type(e)])", 1e21, "1000000000000000000000 2026-01-31T08:00:00Z double"),
    ("'%s'.format([duration('90.5s')])", None, "90.5s"),
    ("'%s'.format([duration('-1ms')])", None, "-0.001s"),
    ("'%d %d'.format([e, 1u])", -3, "-3 1"),
    ("'%d'.format([e])", 5e-7, "0.0000005"),
    ("'%.2f %.0f %f'.format([e, e, e])", 2.5, "2.50 2 2.500000"),
    ("'%.1e %e'.format([e, 1])", 1234.5, "1.2e+03 1.000000e+00"),
    ("'%f %e %d %s'.format([e, e, e, e])", -INFINITY, "-Infinity -Infinity -Infinity -Infinity"),
    ("'%f'.format([e])", NAN, "NaN"),
    ("'%b %b %o'.format([e, true, 8])", -5, "-101 1 10"),
    ("'%x %X %x %X'.format([e, e, 'é', b'z'])", 30, "1e 1E c3a9 7A"),
    ("'%%%s'.format([e])", "x", "%x"),
    ("e.format(['a', 'b'])", "only %s", "only a"),
    ("'none'.format([])", None, "none"),
]  # fmt: skip
NUMBERS = [
    ("math.greatest(e, 2)", 3, 3),
    ("math.greatest(1, 2.5, e)", Uint(2), 2.5),
    ("math.greatest(e)", [1, 9, 3], 9),
    ("math.greatest(e, 1.0)", 1, 1),
    ("math.least(e, 1u)", -1, -1),
    ("math.least(e)", [2.0, 1], 1),
    ("math.least(e)", 7, 7),
    ("math.ceil(e)", -0.5, -0.0),
    ("math.ceil(e)", 1.2, 2.0),
    ("math.floor(e)", -1.2, -2.0),
    ("math.floor(e)", 1e300, 1e300),
    ("math.round(e)", 2.5, 3.0),
    ("math.round(e)", -2.5, -3.0),
    ("math.round(e)", 0.49999999999999994, 0.0),
    ("math.round(e)", NAN, NAN),
    ("math.trunc(e)", -1.9, -1.0),
    ("math.trunc(e)", -INFINITY, -INFINITY),
    ("math.abs(e)", -3, 3),
    ("math.abs(e)", -0.0, 0.0),
    ("math.abs(e)", Uint(3), Uint(3)),
    ("math.sign(e)", -3, -1),
    ("math.sign(e)", Uint(3), Uint(1)),
    ("math.sign(e)", -2.5, -1.0),
    ("math.sign(e)", NAN, NAN),
    ("math.isNaN(e) || math.isInf(e)", INFINITY, True),
    ("math.isFinite(e)", 1.0, True),
    ("math.sqrt(e)", 81, 9.0),
    ("math.sqrt(e)", -1.0, NAN),
    ("math.bitAnd(e, 5)", -3, 5),
    ("math.bitOr(e, 1u)", Uint(4), Uint(5)),
    ("math.bitXor(e, -2)", 4, -6),
    ("math.bitNot(e)", 1, -2),
    ("math.bitNot(e)", Uint(0), Uint(2**64 - 1)),
    ("math.bitShiftLeft(e, 63)", 1, -(2**63)),
    ("math.bitShiftLeft(e, 64)", 1, 0),
    ("math.bitShiftRight(e, 3)", -1024, 2305843009213693824),
    ("math.bitShiftRight(e, 1)", Uint(4), Uint(2)),
]
ADDRESSES = [
    ("ip(e)", "10.0.0.1", ip_address("10.0.0.1")),
    ("string(ip(e))", "2001:DB8:0:0::1", "2001:db8::1"),
    ("ip(e) == ip('2001:db8::1')", "2001:DB8:0:0::1", True),
    ("ip(e) == ip('10.0.0.1')", "::ffff:a00:1", True),
    ("ip(e) in [ip('10.0.0.1')]", "10.0.0.1", True),
    ("ip(e).family()", "::1", 6),
    ("isIP(e)", "010.0.0.1", False),
    ("isIP(e)", "fe80::1%eth0", False),
    ("isIP(e)", "::ffff:10.0.0.1", False),
    ("isIP(e)", "10.0.0.1/8", False),
    ("isIP(e)", "1" * 1_000_000, False),
    ("isIP(e)", " 10.0.0.1", False),
    ("ip.isCanonical(e)", "2001:DB8::1", False),
    ("ip(e).isUnspecified()", "::", True),
    ("ip(e).isLoopback()", "127.9.9.9", True),
    ("ip(e).isGlobalUnicast()", "10.0.0.1", True),
    ("ip(e).isGlobalUnicast()", "255.255.255.255", False),
    ("ip(e).isGlobalUnicast()", "0.0.0.0", False),
    ("ip(e).isLinkLocalUnicast()", "fe80::1", True),
    ("ip(e).isLinkLocalMulticast()", "224.0.0.251", True),
    ("ip(e).isLinkLocalMulticast()", "ff12::1", True),
    ("ip(e).isLinkLocalMulticast()", "224.0.1.1", False),
    ("cidr(e)", "10.1.2.3/8", Cidr(ip_address("10.1.2.3"), 8)),
    ("string(cidr(e).masked())", "10.1.2.3/8", "10.0.0.0/8"),
    ("cidr(e).isMask()", "10.1.2.3/8", False),
    ("cidr(e).prefixLength()", "::/0", 0),
    ("cidr(e).ip()", "10.1.2.3/8", ip_address("10.1.2.3")),
    ("cidr(e) == cidr('10.0.0.0/8')", "10.1.2.3/8", False),
    ("cidr('10.0.0.0/8').containsIP(e)", "10.9.9.9", True),
    ("cidr('10.0.0.0/8').containsIP(ip(e))", "11.0.0.0", False),
    ("cidr('0.0.0.0/0').containsIP(e)", "::1", False),
    ("cidr('10.0.0.0/8').containsCIDR(e)", "10.1.0.0/16", True),
    ("cidr('10.0.0.0/8').containsCIDR(cidr(e))", "0.0.0.0/0", False),
    ("isCIDR(e)", "10.0.0.0/33", False),
    ("isCIDR(e)", "10.0.0.0/08", False),
    ("isCIDR(e)", "10.0.0.0/255.0.0.0", False),
    ("isCIDR(e)", "10.0.0.0/", False),
    ("isCIDR(e)", "::ffff:a00:1/120", False),
    ("type(ip(e)) == net.IP && type(cidr('::/0')) == net.CIDR", "::1", True),
]
OPTIONALS = [
    ("e.?a.orValue(0)", {"a": 3}, 3),
    ("e.?a.orValue(0)", {}, 0),
    ("e.?a.orValue(0)", {"a": None}, None),
    ("e.?a.b.c.orValue('-')", {"a": {"b": {"c": "x"}}}, "x"),
    ("e.?a.b.c.orValue('-')", {"a": {"b": {}}}, "-"),
    ("e.?a.b.c.orValue('-')", {}, "-"),
    ("e.?`a-b`.orValue(1)", {"a-b": 2}, 2),
    ("e[?'a'].orValue(0)", {"a": 3}, 3),
    ("e[?1].orValue(0)", [4, 5], 5),
    ("e[?9].orValue(0)", [4, 5], 0),
    ("e[?-1].orValue(0)", [4, 5], 0),
    ("e.?a[0].orValue(0)", {"a": [7]}, 7),
    ("e.?a[?5][0].orValue(0)", {"a": [7]}, 0),
    ("e.?a.orValue(1 / 0)", {"a": 3}, 3),
    ("e.?a", {}, OptionalValue()),
    ("e.?a", {"a": 1}, OptionalValue(1, present=True)),
    ("e.?a == optional.of(1.0)", {"a": 1}, True),
    ("e.?a == optional.none()", {"a": None}, False),
    ("e.?a.or(e.?b).or(optional.of(9)).value()", {"b": 2}, 2),
    ("e.?a.or(optional.of(1 / 0)).hasValue()", {"a": 2}, True),
    ("e.?a.hasValue()", {"a": None}, True),
    ("optional.ofNonZeroValue(e).hasValue()", "", False),
    ("optional.ofNonZeroValue(e).hasValue()", 0.0, False),
    ("optional.ofNonZeroValue(e).hasValue()", [0], True),
    ("optional.ofNonZeroValue(timestamp('0001-01-01T00:00:00Z')).hasValue()", None, False),
    ("e.?a.optMap(x, x + 1).orValue(0)", {"a": 4}, 5),
    ("e.?a.optMap(x, x + 1).orValue(0)", {}, 0),
    ("e.?a.optFlatMap(x, x.?b).orValue(0)", {"a": {"b": 4}}, 4),
    ("e.map(x, x.?n.optMap(y, y * 2).orValue(-1))", [{"n": 2}, {}], [4, -1]),
    ("e.exists(x, x.?n.orValue(0) > 1)", [{}, {"n": 2}], True),
    ("[1].exists(x, e.?n.optMap(x, x * 2).orValue(0) == 4 && x == 1)", {"n": 2}, True),
    ("[1, ?e.?a, ?e.?b]", {"b": 2}, [1, 2]),
    ("{'x': 1, ?'y': e.?a, ?'z': e.?b}", {"b": 2}, {"x": 1, "z": 2}),
    ("has(e.?a.b)", {"a": {"b": 1}}, True),
    ("has(e.?a.b)", {}, False),
    ("type(e.?a) == optional_type", {}, True),
    ("e.first().orValue(0) + e.last().orValue(0)", [1, 2, 3], 4),
    ("e.first().hasValue()", [], False),
    ("optional.unwrap([optional.of(e), optional.none()])", 4, [4]),
    ("[optional.of(e)].unwrapOpt()", 4, [4]),
    ("google.protobuf.Int64Value{?value: e.?a}", {"a": 4}, 4),
]


@pytest.mark.parametrize(("text", "e", "expected"), [*TEXTS, *FORMATS, *NUMBERS, *ADDRESSES, *OPTIONALS])
def test_a_function_has_the_value_that_its_extension_defines(
    condition: Compile, text: str, e: Any, expected: Any
) -> None:
    now = datetime(2026, 1, 31, 8, tzinfo=UTC)
    found = condition(text)({"e": e, "now": now})
    assert same(found, expected), f"{text} gives {found!r}"


@pytest.mark.parametrize(
    ("text", "e", "reason", "detail"),
    [
        ("e.charAt(5)", "abc", "index_out_of_range", 'position 5 of a text of 3 characters: "abc"'),
        ("e.charAt(-1)", "abc", "index_out_of_range", "position -1"),
        ("e.indexOf('a', -1)", "abc", "index_out_of_range", "indexOf() takes a position from 0, not -1"),
        ("e.substring(2, 1)", "abc", "index_out_of_range", "a part from 2 to 1 ends before it starts"),
        ("e.substring(0, 4)", "abc", "index_out_of_range", "position 4"),
        ("e.trim()", 3, "no_overload", "trim() does not take (int): 3"),
        ("e.join()", ["a", 1], "no_overload", "join() takes a list of texts, which 1 is not"),
        ("e.split(',', true ? 1u : 1)", "abc", "no_overload", "split() does not take"),
        ("e.format([1])", "%d %d", "index_out_of_range", "format() has no value for clause 2: it was given 1"),
        ("e.format([1])", "%q", "bad_conversion", '"%q" is no clause; known are %s'),
        ("e.format([1])", "100%", "bad_conversion", '"%" is not finished'),
        ("e.format([1])", "%.101f", "bad_conversion", "the number of decimal places is not from 0 to 100"),
        ("e.format([1])", "%.f", "bad_conversion", "the number of decimal places"),
        ("'%d'.format([e])", "x", "no_overload", '%d does not take string: "x"'),
        ("'%s'.format([e])", 10**400, "overflow", "is outside the range of int"),
        ("'%f'.format([e])", 10**400, "overflow", "is outside the range of int"),
        ("'%x'.format([e])", "\ud800", "bad_conversion", "the text holds a lone surrogate"),
        ("math.greatest(e)", [], "no_overload", "math.greatest() of an empty list"),
        ("math.greatest(e)", [1, "a"], "no_overload", 'math.greatest() does not take (string): "a"'),
        ("math.least(e, 1.0)", NAN, "no_overload", "math.least() of NaN, which has no order"),
        ("math.ceil(e)", 1, "no_overload", "math.ceil() does not take (int): 1"),
        ("math.abs(e)", -(2**63), "overflow", "int overflow"),
        ("math.bitAnd(e, 1)", Uint(1), "no_overload", "math.bitAnd() does not take (uint, int)"),
        ("math.bitNot(e)", 2**64, "overflow", "int overflow"),
        ("math.bitShiftLeft(e, -1)", 1, "overflow", "by a negative offset: -1"),
        ("ip(e)", "10.0.0", "bad_conversion", '"10.0.0" is no IP address, such as 10.0.0.1 or 2001:db8::1'),
        ("ip(e)", "fe80::1%eth0", "bad_conversion", "an address has no zone here"),
        ("ip(e)", "::ffff:10.0.0.1", "bad_conversion", "write the IPv4 address itself"),
        ("cidr(e)", "10.0.0.0/33", "bad_conversion", "at most /32 is possible"),
        ("cidr(e)", "10.0.0.0", "bad_conversion", '"10.0.0.0" is no IP range'),
        ("e.ip()", "10.0.0.1", "no_overload", "ip() does not take (string)"),
        ("cidr('10.0.0.0/8').containsIP(e)", 7, "no_overload", "containsIP() does not take (cidr, int)"),
        ("ip(e) < ip('10.0.0.1')", "10.0.0.2", "no_overload", 'ip and ip have no order: ip("10.0.0.2") and ip("10.0.0.1")'),
        ("e.?a.value()", {}, "no_such_field", "value() of an optional that has none; orValue(...) gives another one"),
        ("e.?a.b", {"a": 3}, "no_such_field", "int has no field 'b': 3"),
        ("e.?a", [1], "no_such_field", "list has no field 'a'"),
        ("e[?'a']", [1], "no_overload", "a list is indexed by an int"),
        ("e.orValue(1)", 3, "no_overload", "orValue() does not take (int): 3"),
        ("e.?a.or(3 > 2 ? e : 1)", {}, "no_overload", "or() does not take (map)"),
        ("e.?a + 1", {"a": 1}, "no_overload", '"+" does not take (optional_type, int): optional.of(1), 1'),
        ("[?e]", 3, "no_overload", '"?" takes an optional, which 3 is not'),
        ("e.?a.optFlatMap(x, x)", {"a": 1}, "no_overload", "optFlatMap() does not take (int): 1"),
        ("e.optMap(x, x)", 1, "no_overload", "optMap() does not take (int): 1"),
    ],
)  # fmt: skip
def test_a_failing_function_says_what_it_was_given(
    condition: Compile, text: str, e: Any, reason: str, detail: str
) -> None:
    with pytest.raises(ConditionFailed) as caught:
        condition(text)({"e": e, "now": None})
    assert caught.value.reason == reason
    assert detail in caught.value.detail


@pytest.mark.parametrize(
    ("text", "reason", "column", "message"),
    [
        ("e.lowerascii()", "unknown_function", 3, 'did you mean "lowerAscii"?'),
        ("math.squrt(e)", "unknown_function", 1, "unknown function 'math.squrt'; did you mean \"math.sqrt\"?"),
        ("optional.ofNonZero(e)", "unknown_function", 1, 'did you mean "optional.ofNonZeroValue"?'),
        ("e.optmap(x, x)", "unknown_function", 3, 'did you mean "optMap"?'),
        ("math.size(e)", "unknown_function", 1, "unknown function 'math.size'"),
        ("e.split()", "unknown_function", 3, "write string.split(string) or string.split(string, int)"),
        ("split(e, ',')", "unknown_function", 1, "write string.split(string)"),
        ("math.greatest()", "unknown_function", 1, "write math.greatest(number|list) or math.greatest(number, number, ...)"),
        ("e.charAt(true)", "no_overload", 10, "charAt() does not take bool here; write string.charAt(int)"),
        ("42.charAt(2)", "no_overload", 1, "charAt() does not take int here"),
        ("e.startsWith(3)", "no_overload", 14, "startsWith() does not take int here"),
        ("e.indexOf('a', '0')", "no_overload", 16, "indexOf() does not take string here"),
        ("math.ceil(1)", "no_overload", 11, "math.ceil() does not take int here; write math.ceil(double)"),
        ("math.greatest(1, 'a')", "no_overload", 18, "math.greatest() does not take string here"),
        ("math.bitAnd(1, 1u)", "no_overload", 16, "write math.bitAnd(int, int) or math.bitAnd(uint, uint)"),
        ("isIP(cidr('10.0.0.0/8'))", "no_overload", 6, "isIP() does not take cidr here"),
        ("ip('10.0.0.256')", "bad_constant", 4, '"10.0.0.256" is no IP address'),
        ("cidr('10.0.0.0')", "bad_constant", 6, '"10.0.0.0" is no IP range'),
        ("'%q'.format([e])", "bad_constant", 1, '"%q" is no clause'),
        ("'%s %s'.format([e])", "bad_constant", 1, "no value for clause 2"),
        ("'%s'.format([e, e])", "bad_constant", 1, "1 clauses for 2 values"),
        ("e.orValue(1) > e.?a.size()", "no_overload", 16, "size() does not take optional_type here"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_refused_when_the_rule_is_loaded(text: str, reason: str, column: int, message: str) -> None:
    with pytest.raises(ConditionRefused) as caught:
        compile_condition(text, variables={"e"})
    assert (caught.value.reason, caught.value.column) == (reason, column)
    assert message in str(caught.value)


def test_a_macro_variable_named_as_a_namespace_is_a_variable(condition: Compile) -> None:
    assert condition("[ip(e)].exists(ip, ip.family() == 4)").holds({"e": "10.0.0.1", "now": None})
    assert condition("[e].exists(math, math.size() == 2 && math.abs(-1) == 1)").holds({"e": "ab", "now": None})


def test_values_are_described_as_one_would_write_them() -> None:
    shown = {
        "optional.none()": OptionalValue(),
        'optional.of("a")': OptionalValue("a", present=True),
        'ip("::1")': ip_address("::1"),
        'cidr("::1/8")': Cidr(ip_address("::1"), 8),
        '[ip("::1"), optional.of(1)]': [ip_address("::1"), OptionalValue(1, present=True)],
        "net.IP": CelType("net.IP"),
    }
    assert [describe(value) for value in shown.values()] == list(shown)
    assert len(describe(OptionalValue(["x" * 10_000] * 10_000, present=True))) < 500


def test_an_explanation_shows_the_values_of_functions_and_optionals() -> None:
    text = "cidr('10.0.0.0/8').containsIP(e.?addr.orValue('')) && math.greatest(e.a, e.b) > 3 && e.?x.optMap(y, y).hasValue()"
    shown = compile_condition(text, variables={"e"}).explain({"e": {"addr": "10.0.0.1", "a": 2, "b": 3}})
    assert shown.render().splitlines()[1:] == [
        "  cidr('10.0.0.0/8').containsIP(e.?addr.orValue(''))  ->  true",
        "    cidr('10.0.0.0/8')  ->  cidr(\"10.0.0.0/8\")",
        "    e.?addr.orValue('')  ->  \"10.0.0.1\"",
        '      e.?addr  ->  optional.of("10.0.0.1")',
        "  math.greatest(e.a, e.b) > 3  ->  false",
        "    math.greatest(e.a, e.b)  ->  3",
        "      e.a  ->  2",
        "      e.b  ->  3",
        "  e.?x.optMap(y, y).hasValue()  ->  false",
        "    e.?x.optMap(y, y)  ->  optional.none()",
        "      e.?x  ->  optional.none()",
    ]


def test_an_optional_access_requires_nothing_for_certain() -> None:
    for text in ("e.?a.orValue(1) == 1", "e.?a == optional.of(1)", "e[?'a'].b == 1", "e.?a.b"):
        assert compile_condition(text).equalities == ()


def test_the_docs_name_every_function_and_no_other() -> None:
    page = (Path(__file__).parents[3] / "docs" / "rules.md").read_text()
    table = page.split("| functions of a condition | |\n| --- | --- |\n")[1].split("\n\n")[0]
    written = "".join(row.split(" | ")[0] for row in table.splitlines())
    spans = [span.split("(")[0] for span in written.split("`")[1::2]]
    named = {span if span in FUNCTIONS else span.rpartition(".")[2] for span in spans}
    assert named == {*FUNCTIONS, *MACROS, "has"} - {"existsOne"}
