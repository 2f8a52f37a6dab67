"""Random CEL expressions and the variables they look at, for the property tests of conditions."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

FIELDS = ("a", "b", "c", "xs")

json_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 5),
    st.sampled_from([2**53 + 1, 2**63 - 1, -(2**63)]),
    st.sampled_from([0.0, -0.0, 0.5, 1.0, 2.0, -1.5, 1e300, 9007199254740992.0]),
    st.sampled_from(["", "a", "ab", "b", "1", "é", "😀", "true"]),
)
json_values: st.SearchStrategy[Any] = st.recursive(
    json_scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3),
    ),
    max_leaves=8,
)
events = st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=4)

_LITERALS = st.sampled_from(
    [
        "0", "1", "2", "3", "-1", "7", "9223372036854775807", "-9223372036854775808", "0u", "1u", "2u",
        "18446744073709551615u", "0.0", "0.5", "1.0", "2.0", "-1.5", "1e300", "true", "false", "null",
        "''", "'a'", "'ab'", "'b'", "'1'", "'é'", "b''", "b'a'", "[]", "{}", "int", "string",
        "duration('1s')", "duration('-90m')", "timestamp('2026-01-31T08:00:00Z')", "timestamp('0001-01-01T00:00:00Z')",
    ]
)  # fmt: skip
_PATHS = st.sampled_from(
    [
        "event",
        "event.a",
        "event.b",
        "event.c",
        "event.xs",
        "event.a.b",
        "event['a']",
        "event.xs[0]",
        "event.b.c.a",
        "nothing",
    ]
)
_BINARY = ("+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "in", "&&", "||")
_METHODS = ("startsWith", "endsWith", "contains")
_CONVERSIONS = ("int", "uint", "double", "string", "bytes", "bool", "type", "dyn", "size", "timestamp", "duration")
_PARTS = ("getFullYear", "getMonth", "getDayOfWeek", "getDayOfYear", "getHours", "getMilliseconds", "getSeconds")

_PLAIN_FUNCTIONS = (
    "math.abs({})", "math.sign({})", "math.ceil({})", "math.round({})", "math.greatest({})", "math.bitNot({})",
    "math.isNaN({})", "math.sqrt({})", "ip({})", "isIP({})", "cidr({})", "ip.isCanonical({})", "strings.quote({})",
    "optional.of({})", "optional.ofNonZeroValue({})", "optional.none() == {}", "({}).lowerAscii()", "({}).upperAscii()",
    "({}).trim()", "({}).reverse()", "({}).join()", "({}).first()", "({}).last()", "({}).hasValue()", "({}).isLoopback()",
    "({}).prefixLength()", "({}).unwrapOpt()", "({}).masked()", "ip('10.0.0.1') == ({})",
)  # fmt: skip
_PLAIN_FUNCTIONS_OF_TWO = (
    "math.greatest({}, {})", "math.least({}, {}, 1)", "math.bitAnd({}, {})", "math.bitXor({}, {})",
    "math.bitShiftLeft({}, {})", "math.bitShiftRight({}, {})",
)  # fmt: skip
_TEXT_FUNCTIONS = (
    "({}).charAt({})", "({}).substring({})", "({}).substring({}, 2)", "({}).indexOf({})", "({}).indexOf({}, 1)",
    "({}).lastIndexOf({})", "({}).lastIndexOf({}, 1)", "({}).split({})", "({}).split({}, 2)", "({}).join({})",
    "({}).replace({}, 'b')", "({}).replace({}, 'aa', 1)", "'%s %s'.format([{}, {}])", "'%d%x'.format([{}, {}])",
    "'%f%.1e'.format([{}, {}])", "({}).format({})", "cidr('0.0.0.0/0').containsIP({}) || isCIDR({})",
)  # fmt: skip


@st.composite
def expressions(draw: st.DrawFn, depth: int = 4, names: tuple[str, ...] = ()) -> str:
    """An expression of any type, most of them able to fail."""

    def sub(more: tuple[str, ...] = ()) -> str:
        return draw(expressions(depth - 1, names + more))

    if depth == 0 or draw(st.integers(0, 5)) == 0:
        leaves = [_LITERALS, _PATHS, _PATHS]
        if names:
            leaves += [st.sampled_from(names)] * 3
        return draw(st.one_of(leaves))
    form = draw(st.integers(0, 19))
    if form <= 5:
        return f"({sub()} {draw(st.sampled_from(_BINARY))} {sub()})"
    if form == 6:
        return draw(st.sampled_from(["!", "-"])) + f"({sub()})"
    if form == 7:
        return f"({sub()} ? {sub()} : {sub()})"
    if form == 8:
        return f"has({draw(_PATHS)}.{draw(st.sampled_from(FIELDS))})"
    if form == 9:
        return f"{draw(st.sampled_from(_CONVERSIONS))}({sub()})"
    if form == 10:
        return f"({sub()}).{draw(st.sampled_from(_METHODS))}({sub()})"
    if form == 11:
        name = draw(st.sampled_from(["x", "y"]))
        macro = draw(st.sampled_from(["all", "exists", "exists_one", "filter", "map"]))
        body = draw(expressions(depth - 1, (*names, name)))
        return f"({sub()}).{macro}({name}, {body})"
    if form == 12:
        return f"[{sub()}, {sub()}]" if draw(st.booleans()) else f"({sub()})[{sub()}]"
    if form == 13:
        return f"({sub()}).{draw(st.sampled_from(_PARTS))}()"
    if form == 14:
        text = draw(st.sampled_from([*_PLAIN_FUNCTIONS, *_PLAIN_FUNCTIONS_OF_TWO]))
        return text.format(sub(), sub()) if text in _PLAIN_FUNCTIONS_OF_TWO else text.format(sub())
    if form == 15:
        return draw(st.sampled_from(_TEXT_FUNCTIONS)).format(sub(), sub())
    if form == 16:
        name = draw(st.sampled_from(FIELDS))
        return draw(st.sampled_from([f"({sub()}).?{name}", f"({sub()})[?{sub()}]", f"({sub()}).?a.{name}"]))
    if form == 17:
        return draw(
            st.sampled_from(
                [
                    f"({sub()}).?a.orValue({sub()})",
                    f"({sub()}).orValue({sub()})",
                    f"({sub()}).or({sub()})",
                    f"({sub()}).or(optional.of({sub()})).hasValue()",
                    f"({sub()}).value()",
                    f"has(({sub()}).?a.b)",
                ]
            )
        )
    if form == 18:
        name = draw(st.sampled_from(["x", "y"]))
        body = draw(expressions(depth - 1, (*names, name)))
        return f"({sub()}).?b.{draw(st.sampled_from(['optMap', 'optFlatMap']))}({name}, {body})"
    return draw(st.sampled_from(["[{0}, ?{1}]", "{{'a': {0}, ?'b': {1}}}", "[?optional.of({0}), {1}]"])).format(
        sub(), f"({sub()}).?c"
    )


# -- typed, so that most of them have a value; zero divides no double here, where cel-python loses the sign of -0.0

_RELATIONS = st.sampled_from(["<", "==", ">"])
_KINDS = ("int", "double", "string", "time", "span", "list", "bool", "bool", "bool")

_ints = st.sampled_from(
    ["0", "1", "2", "3", "-1", "7", "-8", "9223372036854775807", "event.n", "size(event.s)", "size(event.xs)"]
)
_doubles = st.sampled_from(["0.5", "1.0", "-1.5", "2.25", "1e10", "event.d"])
_strings = st.sampled_from(["''", "'a'", "'ab'", "'b'", "'é'", '"😀"', "event.s", "event.s", "string(event.n)"])
_instants = st.sampled_from(
    ["timestamp('2026-01-31T08:00:00Z')", "timestamp('2024-02-29T23:59:59.5Z')", "timestamp(event.at)"]
)
_spans = st.sampled_from(["duration('1s')", "duration('90m')", "duration('-36h')", "duration('1.5s')"])


@st.composite
def typed_expressions(draw: st.DrawFn, kind: str, depth: int) -> str:
    def sub(of: str) -> str:
        return draw(typed_expressions(of, depth - 1))

    if depth == 0:
        leaves = {
            "int": _ints,
            "double": _doubles,
            "string": _strings,
            "time": _instants,
            "span": _spans,
            "list": st.sampled_from(["event.xs", "[1, 2, 3]", "[]"]),
            "bool": st.sampled_from(["true", "false", "event.t", "has(event.n)", "has(event.zzz)", "event.zzz == 1"]),
        }
        return draw(leaves[kind])
    pick = draw(st.integers(0, 5))
    if pick == 5 and kind != "bool":
        return f"({sub('bool')} ? {sub(kind)} : {sub(kind)})"
    if kind == "int":
        if pick == 0:
            return f"{sub('time')}.{draw(st.sampled_from((*_PARTS[:2], 'getDate', 'getHours')))}()"
        if pick == 1:
            return f"size({sub(draw(st.sampled_from(['string', 'list'])))})"
        return f"({sub('int')} {draw(st.sampled_from(['+', '-', '*', '/', '%']))} {sub('int')})"
    if kind == "double":
        if pick == 0:
            return f"({sub('double')} / {draw(st.sampled_from(['2.0', '-0.5', '3.0']))})"
        return f"({sub('double')} {draw(st.sampled_from(['+', '-', '*']))} {sub('double')})"
    if kind == "string":
        return f"({sub('string')} + {sub('string')})"
    if kind == "time":
        return f"({sub('time')} {draw(st.sampled_from(['+', '-']))} {sub('span')})"
    if kind == "span":
        return f"({sub('span')} {draw(st.sampled_from(['+', '-']))} {sub('span')})"
    if kind == "list":
        body = sub("int") if pick else "x"
        return draw(
            st.sampled_from(
                [
                    f"{sub('list')}.map(x, {body})",
                    f"{sub('list')}.filter(x, {sub('bool')})",
                    f"({sub('list')} + {sub('list')})",
                ]
            )
        )
    of = draw(st.sampled_from(["int", "double", "string", "time", "span"]))
    forms = [
        lambda: f"({sub(of)} {draw(st.sampled_from(['==', '!=', '<', '<=', '>', '>=']))} {sub(of)})",
        lambda: f"({sub('bool')} {draw(st.sampled_from(['&&', '||']))} {sub('bool')})",
        lambda: f"!({sub('bool')})",
        lambda: f"{sub('string')}.{draw(st.sampled_from(['startsWith', 'endsWith', 'contains']))}({sub('string')})",
        lambda: f"{sub('list')}.{draw(st.sampled_from(['all', 'exists']))}(x, x {draw(_RELATIONS)} {sub('int')})",
        lambda: f"({sub('int')} in {sub('list')})",
    ]
    return draw(st.sampled_from(forms))()


typed_events = st.fixed_dictionaries(
    {
        "n": st.integers(-5, 5),
        "d": st.sampled_from([0.0, 0.5, -2.0, 1e6]),
        "s": st.sampled_from(["", "a", "abc", "é"]),
        "t": st.booleans(),
        "xs": st.lists(st.integers(-3, 9), max_size=4),
        "at": st.sampled_from(["2026-01-31T08:00:00Z", "1999-12-31T23:59:59Z"]),
    }
)


@st.composite
def typed_cases(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """An expression that mostly has a value, and the variables it looks at."""
    return draw(typed_expressions(draw(st.sampled_from(_KINDS)), 3)), {"event": draw(typed_events)}
