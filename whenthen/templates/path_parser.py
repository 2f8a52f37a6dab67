"""Reads the text of a JSONPath. Called by `paths`.

RFC 9535 with one extension: a name after a dot may have hyphens (`$.headers.x-delivery`), which the RFC refuses everywhere.
"""

from __future__ import annotations

import re
from typing import Never

from whenthen.schemas.errors import InvalidTemplate, near_names
from whenthen.templates import path_query as q
from whenthen.templates.path_functions import FUNCTIONS

__all__ = ["MAX_DEPTH", "MAX_PARTS", "MAX_PATH", "MAX_STEPS", "parse_path"]

#: characters of a path
MAX_PATH = 4096
#: segments of a path, each with its selectors
MAX_STEPS = 64
#: selectors, comparisons and tests in a path
MAX_PARTS = 256
#: levels of brackets in a filter
MAX_DEPTH = 16

_BLANK = re.compile(r"[ \t\n\r]*")
_NAME = re.compile("[A-Za-z_\u0080-\ud7ff\ue000-\U0010ffff][A-Za-z0-9_\u0080-\ud7ff\ue000-\U0010ffff-]*")
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_FUNCTION = re.compile(r"([a-z][a-z_0-9]*)\(")
_WORD = re.compile(r"[A-Za-z_][\w]*")
_OPERATOR = re.compile(r"==|!=|<=|>=|<|>")
_PLAIN = {"'": re.compile(r"[^'\\\x00-\x1f]*"), '"': re.compile(r'[^"\\\x00-\x1f]*')}
_HEX = re.compile(r"[0-9A-Fa-f]{4}")
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "/": "/", "\\": "\\"}
_CONSTANTS = {"true": True, "false": False, "null": None}
_EXACT = 2**53 - 1  #: the largest index that every JSON reader holds


def parse_path(text: str) -> q.Query:
    """The query that a text is.

    Raises:
        InvalidTemplate: it is none; with the column, counted from 1.
    """
    if len(text) > MAX_PATH:
        raise InvalidTemplate(f"a path of {len(text)} characters; at most {MAX_PATH} are allowed")
    if not text.startswith("$"):
        raise InvalidTemplate(f"column 1: a path starts with $, found {text[:40]!r}; write $.payload.name")
    parser = _Parser(text)
    parser.at = 1
    found = parser.segments(from_root=True)
    if parser.at < len(text):
        parser.malformed()
    return found


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0
        self.parts = 0

    # -- characters

    def fail(self, what: str, at: int | None = None) -> Never:
        column = (self.at if at is None else at) + 1
        raise InvalidTemplate(f"column {column}: {self.text!r}: {what}")

    def malformed(self) -> Never:
        text, at = self.text, self.at
        rest = text[at : at + 20]
        if re.match(r"\.\d", rest):
            hint = "an index is [0], a key that starts with a digit ['0']"
        elif rest in (".", ".."):
            hint = "a name is missing after the dot"
        elif not rest.strip():
            hint = "a path does not end with blanks"
        else:
            hint = "write .name, [0] or ['any text']; text that is not a path starts with $$"
        self.fail(f"unexpected {rest!r}; {hint}")

    def blanks(self) -> None:
        match = _BLANK.match(self.text, self.at)
        assert match is not None
        self.at = match.end()

    def take(self, token: str) -> bool:
        if self.text.startswith(token, self.at):
            self.at += len(token)
            return True
        return False

    def part(self) -> None:
        self.parts += 1
        if self.parts > MAX_PARTS:
            raise InvalidTemplate(
                f"{self.text[:40]!r} has more than {MAX_PARTS} selectors and comparisons; use a condition (when)"
            )

    # -- segments and selectors

    def segments(self, *, from_root: bool) -> q.Query:
        found: list[q.Segment] = []
        while True:
            end = self.at
            self.blanks()
            segment = self.segment()
            if segment is None:
                self.at = end
                break
            found.append(segment)
        if len(found) > MAX_STEPS:
            raise InvalidTemplate(f"{self.text[:40]!r} has {len(found)} steps; at most {MAX_STEPS} are allowed")
        return q.Query(from_root, tuple(found), _steps(found))

    def segment(self) -> q.Segment | None:
        start = self.at
        if self.text.startswith("[", start):
            return q.Segment(self.bracket(), descends=False)
        descends = self.take("..")
        if not descends and not self.take("."):
            return None
        if descends and self.text.startswith("[", self.at):
            return q.Segment(self.bracket(), descends=True)
        self.part()
        if self.take("*"):
            return q.Segment((q.Wildcard(),), descends)
        name = _NAME.match(self.text, self.at)
        if name is None:
            self.at = start
            self.malformed()
        self.at = name.end()
        return q.Segment((q.Name(name[0]),), descends)

    def bracket(self) -> tuple[q.Selector, ...]:
        start = self.at
        self.at += 1
        found: list[q.Selector] = []
        while True:
            self.blanks()
            self.part()
            found.append(self.selector(start))
            self.blanks()
            if self.take("]"):
                return tuple(found)
            if not self.take(","):
                if self.at >= len(self.text):
                    self.fail("the bracket is not closed", start)
                self.unexpected("a comma or ] is expected")

    def selector(self, start: int) -> q.Selector:
        text, at = self.text, self.at
        char = text[at : at + 1]
        if not char:
            self.fail("the bracket is not closed", start)
        if char in "'\"":
            return q.Name(self.quoted())
        if self.take("*"):
            return q.Wildcard()
        if self.take("?"):
            self.blanks()
            return q.Filter(self.either())
        first = self.integer()
        end = self.at
        self.blanks()
        if self.take(":"):
            self.blanks()
            second, third = self.integer(), None
            self.blanks()
            if self.take(":"):
                self.blanks()
                third = self.integer()
            return q.Slice(first, second, third)
        self.at = end
        if first is None:
            if _NAME.match(text, at):
                self.fail("a name in brackets needs quotes: ['name']")
            self.unexpected("an index, a slice, *, a quoted name or a filter (?) is expected")
        return q.Index(first)

    def integer(self) -> int | None:
        match = _INTEGER.match(self.text, self.at)
        if match is None:
            return None
        if match[0] == "-0" or self.text[match.end() : match.end() + 1].isdigit():
            self.fail("a whole number has no leading zeros and is not -0")
        if len(match[0]) > 17 or abs(int(match[0])) > _EXACT:
            self.fail(f"an index is at most {_EXACT}")
        self.at = match.end()
        return int(match[0])

    def quoted(self) -> str:
        start, quote = self.at, self.text[self.at]
        self.at += 1
        found: list[str] = []
        while True:
            match = _PLAIN[quote].match(self.text, self.at)
            assert match is not None
            found.append(match[0])
            self.at = match.end()
            char = self.text[self.at : self.at + 1]
            if char == quote:
                self.at += 1
                return "".join(found)
            if char == "\\":
                found.append(self.escape(quote))
            elif not char:
                self.fail("the quote is not closed", start)
            else:
                self.fail(f"a control character in quotes is written \\u{ord(char):04x}")

    def escape(self, quote: str) -> str:
        at = self.at
        code = self.text[at + 1 : at + 2]
        self.at += 2
        if code == quote:
            return quote
        if code != "u":
            if code not in _ESCAPES or not code:
                self.fail(f"unknown escape \\{code}", at)
            return _ESCAPES[code]
        unit = self.unit(at)
        if 0xDC00 <= unit < 0xE000:
            self.fail("an escape is half of a surrogate pair", at)
        if not 0xD800 <= unit < 0xDC00:
            return chr(unit)
        low = self.unit(at) if self.take("\\u") else 0
        if not 0xDC00 <= low < 0xE000:
            self.fail("an escape is half of a surrogate pair", at)
        return chr(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00))

    def unit(self, at: int) -> int:
        match = _HEX.match(self.text, self.at)
        if match is None:
            self.fail("\\u takes four hexadecimal digits", at)
        self.at = match.end()
        return int(match[0], 16)

    # -- filters

    def either(self) -> q.Expression:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail(f"nested more than {MAX_DEPTH} deep; use a condition (when)")
        operands = [self.both()]
        while self.operator("||"):
            operands.append(self.both())
        self.depth -= 1
        return operands[0] if len(operands) == 1 else q.AnyOf(tuple(operands))

    def both(self) -> q.Expression:
        operands = [self.basic()]
        while self.operator("&&"):
            operands.append(self.basic())
        return operands[0] if len(operands) == 1 else q.AllOf(tuple(operands))

    def operator(self, token: str) -> bool:
        end = self.at
        self.blanks()
        if self.take(token):
            self.blanks()
            return True
        if self.text.startswith(token[0], self.at):
            self.fail(f"write {token} in a filter")
        self.at = end
        return False

    def basic(self) -> q.Expression:
        self.part()
        if self.take("!"):
            self.blanks()
            if self.take("("):
                return q.Not(self.grouped())
            start = self.at
            return q.Not(self.tested(self.operand(), start))
        if self.take("("):
            return self.grouped()
        start = self.at
        left = self.operand()
        end = self.at
        self.blanks()
        operator = _OPERATOR.match(self.text, self.at)
        if operator is None:
            self.at = end
            return self.tested(left, start)
        self.compared(left, start)
        self.at = operator.end()
        self.blanks()
        start = self.at
        right = self.operand()
        self.compared(right, start)
        return q.Comparison(operator[0], left, right)

    def grouped(self) -> q.Expression:
        start = self.at - 1
        self.blanks()
        found = self.either()
        self.blanks()
        if not self.take(")"):
            if self.at >= len(self.text):
                self.fail("the bracket is not closed", start)
            self.unexpected(") is expected")
        return found

    def tested(self, operand: q.Each, start: int) -> q.Expression:
        if isinstance(operand, q.Literal):
            self.fail("a constant is compared, as in @.name == 1", start)
        if isinstance(operand, q.Call) and not operand.logical:
            self.fail(f"the result of {operand.name}() is compared, as in {operand.name}(...) > 0", start)
        return operand

    def compared(self, operand: q.Each, start: int) -> None:
        if isinstance(operand, q.Query) and operand.steps is None:
            self.fail("a path that may match more than once is not compared; name its steps, or use value()", start)
        if isinstance(operand, q.Call) and operand.logical:
            self.fail(f"{operand.name}() is a test and is not compared", start)

    def operand(self) -> q.Each:
        text, at = self.text, self.at
        char = text[at : at + 1]
        if char and char in "@$":
            self.at += 1
            return self.segments(from_root=char == "$")
        if char and char in "'\"":
            return q.Literal(self.quoted())
        if match := _FUNCTION.match(text, at):
            return self.call(match[1], match.end())
        if match := _WORD.match(text, at):
            if match[0] in _CONSTANTS:
                self.at = match.end()
                return q.Literal(_CONSTANTS[match[0]])
            self.unexpected("a filter compares @.name, numbers, quoted text, true, false and null")
        if match := _NUMBER.match(text, at):
            self.at = match.end()
            if self.text[self.at : self.at + 1].isdigit() or self.text[self.at : self.at + 1] in (".", "e", "E"):
                self.fail("a number is written as in JSON", at)
            return q.Literal(float(match[0]) if match[1] or match[2] else int(match[0]))
        self.unexpected("a filter compares @.name, numbers, quoted text, true, false and null")

    def call(self, name: str, end: int) -> q.Call:
        function, start = FUNCTIONS.get(name), self.at
        if function is None:
            near = near_names(name, FUNCTIONS)
            self.fail(
                f"unknown function {name}(); "
                + (f"did you mean {near[0]}()?" if near else f"there are {', '.join(FUNCTIONS)}")
            )
        self.at = end
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail(f"nested more than {MAX_DEPTH} deep; use a condition (when)")
        arguments: list[q.Each] = []
        self.blanks()
        while not self.take(")"):
            if arguments and not self.take(","):
                self.unexpected("a comma or ) is expected")
            self.blanks()
            self.part()
            at = self.at
            argument = self.operand()
            if function.nodes and not isinstance(argument, q.Query):
                self.fail(f"{name}() takes a path, such as @.*", at)
            if not function.nodes:
                self.compared(argument, at)
            arguments.append(argument)
            self.blanks()
        if len(arguments) != function.takes:
            self.fail(f"{name}() takes {function.takes} arguments, found {len(arguments)}", start)
        self.depth -= 1
        return q.Call(name, function.run, tuple(arguments), function.nodes, function.logical)

    def unexpected(self, expected: str) -> Never:
        rest = self.text[self.at : self.at + 20]
        if rest.startswith(("=~", "`")):
            expected = "regular expressions are match(@.name, 'a.*') and search(); see docs/templates.md"
        self.fail(f"unexpected {rest!r}; {expected}" if rest else f"it ends too early; {expected}")


def _steps(segments: list[q.Segment]) -> tuple[str | int, ...] | None:
    steps: list[str | int] = []
    for segment in segments:
        match segment:
            case q.Segment(selectors=(q.Name(name=step),), descends=False):
                steps.append(step)
            case q.Segment(selectors=(q.Index(index=number),), descends=False):
                steps.append(number)
            case _:
                return None
    return tuple(steps)
