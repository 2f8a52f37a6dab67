"""The lexer: the text of a condition to tokens, and literals to values.

A condition's *shape* is its tokens with every number, string and bytes literal replaced by its kind.
Conditions that differ only in their literals have one shape, so they are parsed, checked and compiled once (see
`shapes`). Called by `condition`. Meaning: cel-spec, langdef, "Syntax".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from whenthen.conditions.runtime.cel_values import INT_MAX, UINT_MAX, Uint
from whenthen.conditions.runtime.condition_errors import ConditionRefused, ConditionSyntaxError, Reason

__all__ = ["END", "LITERAL_KINDS", "MAX_CHARS", "MAX_TOKENS", "Tokens", "literal_value", "tokenize"]

MAX_CHARS = 32_768
MAX_TOKENS = 8_192

END = "\0end"
INT, UINT, DOUBLE, STRING, BYTES = "\0int", "\0uint", "\0double", "\0string", "\0bytes"
LITERAL_KINDS = {INT: "int", UINT: "uint", DOUBLE: "double", STRING: "string", BYTES: "bytes"}

# One alternative a kind of token; every quantifier is over disjoint characters, so matching is linear.
_TOKEN = re.compile(
    r"""
    [\t\n\f\r\ ]+ | //[^\n]*
  | (?P<string> [rR]"""
    + '"""'
    + r"""(?:[^"]|"(?!""))*"""
    + '"""'
    + r"""
      | [rR]'''(?:[^']|'(?!''))*'''
      | [rR]"(?!"")[^"\r\n]*" | [rR]'(?!'')[^'\r\n]*'
      | """
    + '"""'
    + r"""(?:[^"\\]|\\[\s\S]|"(?!""))*"""
    + '"""'
    + r"""
      | '''(?:[^'\\]|\\[\s\S]|'(?!''))*'''
      | "(?!"")(?:[^"\\\r\n]|\\[^\r\n])*" | '(?!'')(?:[^'\\\r\n]|\\[^\r\n])*' )
  | (?P<bytes> [bB](?: [rR]"""
    + '"""'
    + r"""(?:[^"]|"(?!""))*"""
    + '"""'
    + r"""
      | [rR]'''(?:[^']|'(?!''))*'''
      | [rR]"(?!"")[^"\r\n]*" | [rR]'(?!'')[^'\r\n]*'
      | """
    + '"""'
    + r"""(?:[^"\\]|\\[\s\S]|"(?!""))*"""
    + '"""'
    + r"""
      | '''(?:[^'\\]|\\[\s\S]|'(?!''))*'''
      | "(?!"")(?:[^"\\\r\n]|\\[^\r\n])*" | '(?!'')(?:[^'\\\r\n]|\\[^\r\n])*' ) )
  | (?P<word> [A-Za-z_][A-Za-z0-9_]* )
  | (?P<double> [0-9]+(?:\.[0-9]+(?:[eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+) | \.[0-9]+(?:[eE][+-]?[0-9]+)? )
  | (?P<uint> (?:0x[0-9a-fA-F]+|[0-9]+)[uU] )
  | (?P<int> 0x[0-9a-fA-F]+|[0-9]+ )
  | (?P<operator> && | \|\| | [=!<>]= | [-+*/%!<>?:.,()\[\]{}] )
  | (?P<quoted> `[A-Za-z0-9_.\-/\ ]+` )
    """,
    re.VERBOSE,
)

_ESCAPE = re.compile(
    r"\\(?:([abfnrtv\\?\"'`])|[xX]([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})|([\s\S]|$))"
)
_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one text: what the parser sees, and where each stands."""

    text: str
    shape: tuple[str, ...]  #: token texts, literals by kind, END last
    literals: list[str]  #: source of each literal, in order
    starts: list[int]  #: position of each token, END included
    ends: list[int]

    def source(self, start: int, end: int) -> str:
        """The text of tokens `start` up to, not including, `end`."""
        return self.text[self.starts[start] : self.ends[end - 1]]


def tokenize(text: str) -> Tokens:
    """Cut `text` into tokens.

    Raises:
        ConditionRefused: the text is too large.
        ConditionSyntaxError: a character starts no token, or a string is not closed.
    """
    if len(text) > MAX_CHARS:
        raise ConditionRefused(
            f"the condition has {len(text):,} characters, the limit is {MAX_CHARS:,}",
            reason=Reason.TOO_LARGE,
            text=text,
            hint="split it, or move constant lists into the event's labels",
        )
    shape: list[str] = []
    literals: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    at = 0
    for match in _TOKEN.finditer(text):
        if match.start() != at:
            break
        at = match.end()
        group = match.lastgroup
        if group is None:
            continue
        starts.append(match.start())
        ends.append(at)
        if group == "word" or group == "operator" or group == "quoted":
            shape.append(match.group())
        else:
            shape.append("\0" + group)
            literals.append(match.group())
    if at != len(text):
        raise _stray(text, at)
    if len(shape) > MAX_TOKENS:
        raise ConditionRefused(
            f"the condition has {len(shape):,} tokens, the limit is {MAX_TOKENS:,}",
            reason=Reason.TOO_LARGE,
            text=text,
            position=starts[MAX_TOKENS],
        )
    shape.append(END)
    starts.append(len(text))
    ends.append(len(text))
    return Tokens(text, tuple(shape), literals, starts, ends)


def _stray(text: str, at: int) -> ConditionSyntaxError:
    prefix = re.match(r"[bB]?[rR]?", text[at:])
    quote = at + (prefix.end() if prefix else 0)
    if text[quote : quote + 1] in ("'", '"'):
        return ConditionSyntaxError(
            "the string that starts here is not closed", reason=Reason.SYNTAX, text=text, position=at
        )
    hints = {
        "=": 'equality is "=="',
        "&": '"and" is "&&"',
        "|": '"or" is "||"',
        "`": 'a quoted field name takes letters, digits and "_.-/ " and is closed by "`"',
    }
    return ConditionSyntaxError(
        f"unexpected character {text[at]!r}",
        reason=Reason.SYNTAX,
        text=text,
        position=at,
        hint=hints.get(text[at]),
    )


def literal_value(source: str, kind: str, *, negative: bool, text: str, position: int) -> object:
    """The value of a literal. `negative`: a minus sign stands before it and belongs to it.

    Raises:
        ConditionSyntaxError: a number out of its range, or an escape that is none.
    """
    if kind == "string":
        if source[0] in "'\"":
            if "\\" not in source and source[:3] not in ("'''", '"""'):
                return source[1:-1]
            return _unescape(source, 0, text, position)
        return _strip_quotes(source[1:])
    if kind == "bytes":
        if source[1] in "rR":
            return _strip_quotes(source[2:]).encode("utf-8", "surrogatepass")
        return _unescape_bytes(source, 1, text, position)
    if kind == "double":
        return -float(source) if negative else float(source)
    digits = source.rstrip("uU") if kind == "uint" else source
    if len(digits) > 40:
        number = UINT_MAX + 1  # out of range either way; int() of thousands of digits is slow
    else:
        number = int(digits, 16) if digits[:2] == "0x" else int(digits)
    if kind == "uint":
        if number > UINT_MAX or negative:
            raise _out_of_range(source, "uint: 0 to 18446744073709551615", text, position)
        return Uint(number)
    if number > INT_MAX + negative:
        raise _out_of_range(source, "int: -9223372036854775808 to 9223372036854775807", text, position)
    return -number if negative else number


def _out_of_range(source: str, limits: str, text: str, position: int) -> ConditionSyntaxError:
    return ConditionSyntaxError(
        f"{source[:45]} is outside the range of {limits}", reason=Reason.SYNTAX, text=text, position=position
    )


def _strip_quotes(source: str) -> str:
    width = 3 if source[:3] in ("'''", '"""') else 1
    return source[width:-width]


def _bad_escape(escape: str, why: str, text: str, position: int) -> ConditionSyntaxError:
    return ConditionSyntaxError(f"{escape!s} {why}", reason=Reason.SYNTAX, text=text, position=position)


def _unescape(source: str, skip: int, text: str, position: int) -> str:
    width = 3 if source[skip : skip + 3] in ("'''", '"""') else 1
    body = source[skip + width : -width]
    offset = position + skip + width

    def replace(match: re.Match[str]) -> str:
        simple, hexes, four, eight, octal, _ = match.groups()
        if simple:
            return _SIMPLE.get(simple, simple)
        if octal:
            return chr(int(octal, 8))
        digits = hexes or four or eight
        if digits is None:
            raise _bad_escape(match.group(), "is no escape sequence", text, offset + match.start())
        code = int(digits, 16)
        if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            raise _bad_escape(match.group(), "is no Unicode code point", text, offset + match.start())
        return chr(code)

    return _ESCAPE.sub(replace, body)


def _unescape_bytes(source: str, skip: int, text: str, position: int) -> bytes:
    width = 3 if source[skip : skip + 3] in ("'''", '"""') else 1
    body = source[skip + width : -width]
    offset = position + skip + width
    parts: list[bytes] = []
    at = 0
    for match in _ESCAPE.finditer(body):
        parts.append(body[at : match.start()].encode("utf-8", "surrogatepass"))
        at = match.end()
        simple, hexes, four, eight, octal, _ = match.groups()
        if simple:
            parts.append(_SIMPLE.get(simple, simple).encode())
        elif octal or hexes:
            parts.append(bytes([int(octal, 8) if octal else int(hexes, 16)]))
        else:
            why = "names a code point; bytes take \\x or octal" if four or eight else "is no escape sequence"
            raise _bad_escape(match.group(), why, text, offset + match.start())
    parts.append(body[at:].encode("utf-8", "surrogatepass"))
    return b"".join(parts)
