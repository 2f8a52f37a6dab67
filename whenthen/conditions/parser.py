"""Parses the shape of a condition into a tree, by precedence climbing. Called by `shapes`.

Works on token texts alone, so that the tree can be shared; errors name a token, whose place `condition` finds.
Meaning: cel-spec, langdef, "Syntax" and "Macros".
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from whenthen.conditions import nodes as n
from whenthen.conditions.functions.function_table import FUNCTIONS
from whenthen.conditions.lexer import END, LITERAL_KINDS
from whenthen.conditions.runtime.condition_errors import Reason

__all__ = ["MACROS", "MAX_DEPTH", "MAX_NODES", "LiteralUse", "ParseFault", "Parsed", "parse"]

MAX_DEPTH = 100  #: levels of nesting, brackets and chained operators alike
MAX_NODES = 4_096

RESERVED = frozenset({
    "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package",
    "namespace", "return", "var", "void", "while",
})  # fmt: skip
KEYWORDS = frozenset({"true", "false", "null", "in"})
_PRECEDENCE = {
    "||": 1, "&&": 2,
    "==": 3, "!=": 3, "<": 3, "<=": 3, ">": 3, ">=": 3, "in": 3,
    "+": 4, "-": 4, "*": 5, "/": 5, "%": 5,
}  # fmt: skip
_MACROS = {
    ("all", 2): "all", ("exists", 2): "exists", ("exists_one", 2): "exists_one", ("existsOne", 2): "exists_one",
    ("filter", 2): "filter", ("map", 2): "map", ("map", 3): "map",
    ("all", 3): "all", ("exists", 3): "exists", ("exists_one", 3): "exists_one", ("existsOne", 3): "exists_one",
    ("transformList", 3): "transformList", ("transformList", 4): "transformList",
    ("transformMap", 3): "transformMap", ("transformMap", 4): "transformMap",
    ("optMap", 2): "optMap", ("optFlatMap", 2): "optFlatMap",
}  # fmt: skip
#: macro -> how it is written
MACROS = {
    "all": "list.all(x, test)",
    "exists": "list.exists(x, test)",
    "exists_one": "list.exists_one(x, test)",
    "existsOne": "list.existsOne(x, test)",
    "filter": "list.filter(x, test)",
    "map": "list.map(x, result) or list.map(x, test, result)",
    "transformList": "list.transformList(i, x, result) or list.transformList(i, x, test, result)",
    "transformMap": "map.transformMap(k, v, result) or map.transformMap(k, v, test, result)",
    "optMap": "optional.optMap(x, result)",
    "optFlatMap": "optional.optFlatMap(x, result)",
}
_CONSTANTS = {"true": True, "false": False, "null": None}
_NUMBERS = frozenset({"\0int", "\0double", "\0uint"})
_WORD_START = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_HINTS = {"and": '"and" is "&&"', "or": '"or" is "||"', "not": '"not" is "!"', "is": 'equality is "=="'}
_TWO_VARIABLES = frozenset({("all", 3), ("exists", 3), ("exists_one", 3), ("existsOne", 3)})


class ParseFault(Exception):
    """The shape is no condition. `token` is where."""

    def __init__(self, detail: str, token: int, reason: Reason = Reason.SYNTAX, hint: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.token = token
        self.reason = reason
        self.hint = hint


@dataclass(frozen=True, slots=True)
class LiteralUse:
    """How a literal is written: the sign before a number belongs to it."""

    token: int
    kind: str
    negative: bool


@dataclass(frozen=True, slots=True)
class Parsed:
    tree: n.Node
    literals: tuple[LiteralUse, ...]  #: by slot, in source order


def parse(shape: tuple[str, ...]) -> Parsed:
    """The tree of a shape.

    Raises:
        ParseFault: the shape is not CEL, or too large.
    """
    parser = _Parser(shape)
    tree = parser.expression()
    if parser.now != END:
        raise parser.unexpected("expected an operator or the end")
    return Parsed(tree, tuple(parser.literals))


class _Parser:
    """One pass over a shape. Recursion is two frames for each level of brackets; chains of operators use a stack."""

    __slots__ = ("at", "level", "literals", "now", "shape")

    def __init__(self, shape: tuple[str, ...]) -> None:
        self.shape = shape
        self.at = 0
        self.now = shape[0]
        self.level = 0
        self.literals: list[LiteralUse] = []

    # -- tokens

    def step(self) -> None:
        self.at += 1
        self.now = self.shape[self.at]

    def expect(self, token: str, why: str) -> None:
        if self.now != token:
            raise self.unexpected(f"expected {token!r} {why}")
        self.step()

    def unexpected(self, detail: str, hint: str | None = None) -> ParseFault:
        token = self.now
        if token == END:
            found = "the end"
        elif token in LITERAL_KINDS:
            found = f"a {LITERAL_KINDS[token]} literal"
        else:
            found = repr(token)
        if hint is None:
            hint = _HINTS.get(token)
        return ParseFault(f"{detail}, found {found}", self.at, hint=hint)

    # -- grammar

    def expression(self) -> n.Node:
        """A whole expression: operands and binary operators on a stack, then an optional `? :`."""
        self.level += 1
        if self.level > MAX_DEPTH:
            raise ParseFault(f"nested more than {MAX_DEPTH} deep", self.at, Reason.TOO_LARGE)
        node = self.operators()
        if self.now == "?":
            at = self.at
            self.step()
            yes = self.operators()
            self.expect(":", 'between the two results of "?"')
            no = self.expression()
            node = n.Choose(node.start, no.end, at, node, yes, no)
        self.level -= 1
        return node

    def operators(self) -> n.Node:
        values = [self.operand()]
        pending: list[tuple[str, int]] = []  # operator, token
        while True:
            operator = self.now
            precedence = _PRECEDENCE.get(operator, 0)
            while pending and _PRECEDENCE[pending[-1][0]] >= precedence:
                top, at = pending.pop()
                right = values.pop()
                values.append(_join(top, at, values.pop(), right))
            if not precedence:
                return values[0]
            pending.append((operator, self.at))
            self.step()
            values.append(self.operand())

    def operand(self) -> n.Node:
        """Unary operators, a primary, and the selections, indexes and calls behind it."""
        token = self.now
        if token == "!" or token == "-":
            start = self.at
            while self.now == token:
                self.step()
            times = self.at - start
            if token == "-" and self.now in _NUMBERS:
                times -= 1  # the last minus is the literal's own
                node = self.members(self.literal(negative=True))
            elif self.now == "!" or self.now == "-":
                raise self.unexpected(f"expected an operand after {token!r}")
            else:
                node = self.operand()
            # An even number of operators still requires the type, so two of them stay.
            for nth in range(min(times, 2 - times % 2)):
                node = n.Unary(start + (times - 1 - nth), node.end, start, token, node)
            return node
        return self.members(self.primary())

    def literal(self, *, negative: bool = False) -> n.Node:
        kind = LITERAL_KINDS[self.now]
        slot = len(self.literals)
        self.literals.append(LiteralUse(self.at, kind, negative))
        node = n.Literal(self.at - negative, self.at + 1, self.at, slot, kind)
        self.step()
        return node

    def primary(self) -> n.Node:
        token, start = self.now, self.at
        if token in LITERAL_KINDS:
            return self.literal()
        if token == "(":
            self.step()
            node = self.expression()
            self.expect(")", "to close the bracket")
            return dataclasses.replace(node, start=start, end=self.at)
        if token == "[":
            self.step()
            items, maybe = self.sequence("]", "the list")
            return n.ListOf(start, self.at, start, items, maybe)
        if token == "{":
            return self.map(start)
        if token in _CONSTANTS:
            self.step()
            return n.Constant(start, self.at, start, _CONSTANTS[token])
        absolute = token == "."
        if absolute:
            self.step()
        if self.now[0] not in _WORD_START:
            raise self.unexpected("expected a value")
        return self.named(start, absolute=absolute)

    def map(self, start: int) -> n.Node:
        self.step()
        entries: list[tuple[n.Node, n.Node]] = []
        maybe: set[int] = set()
        while self.now != "}":
            if self.optional():
                maybe.add(len(entries))
            key = self.expression()
            self.expect(":", "between a key and its value")
            entries.append((key, self.expression()))
            if self.now != "}":
                self.expect(",", "or '}' after a map entry")
        self.step()
        return n.MapOf(start, self.at, start, tuple(entries), frozenset(maybe))

    def named(self, start: int, *, absolute: bool) -> n.Node:
        """A name: a variable, the call of a function, or the type of a message."""
        name, at = self.now, self.at
        if name in KEYWORDS:
            raise self.unexpected("expected a name")
        message = self.message_type()
        if message is not None:
            return self.message(start, message)
        if name in RESERVED:
            raise ParseFault(f"{name!r} is a reserved word and cannot name a variable or function", at)
        self.step()
        if self.now == "(":
            self.step()
            args, _ = self.sequence(")", "the arguments")
            if name == "has" and not absolute:
                return self.has(start, at, args)
            return n.Call(start, self.at, at, name, None, args)
        return n.Name(start, self.at, at, name, absolute)

    def message_type(self) -> str | None:
        """The dotted name before a `{`, when what follows is the literal of a message."""
        end = self.at
        while self.shape[end][0] in _WORD_START and self.shape[end + 1] == ".":
            end += 2
        if self.shape[end][0] not in _WORD_START or self.shape[end + 1] != "{":
            return None
        name = "".join(self.shape[self.at : end + 1])
        self.at = end + 1
        self.now = "{"
        return name

    def message(self, start: int, type_name: str) -> n.Node:
        self.step()
        fields: list[tuple[str, n.Node]] = []
        maybe: set[int] = set()
        while self.now != "}":
            if self.optional():
                maybe.add(len(fields))
            name = self.field_name()
            self.expect(":", "between a field and its value")
            fields.append((name, self.expression()))
            if self.now != "}":
                self.expect(",", "or '}' after a field")
        self.step()
        return n.Message(start, self.at, start, type_name, tuple(fields), frozenset(maybe))

    def field_name(self) -> str:
        token = self.now
        if token[0] == "`":
            self.step()
            return token[1:-1]
        if token[0] not in _WORD_START or token in KEYWORDS:
            raise self.unexpected("expected a field name")
        self.step()
        return token

    def members(self, node: n.Node) -> n.Node:
        while True:
            if self.now == ".":
                self.step()
                maybe = self.optional()
                at = self.at
                quoted = self.now[0] == "`"
                field = self.field_name()
                if maybe:
                    if self.now == "(":
                        raise self.unexpected('".?" selects a field and calls nothing')
                    node = n.MaybeSelect(node.start, self.at, at, node, field)
                elif self.now == "(" and not quoted:
                    self.step()
                    args, _ = self.sequence(")", "the arguments")
                    node = self.method(node, field, at, args)
                else:
                    node = n.Select(node.start, self.at, at, node, field, quoted)
            elif self.now == "[":
                at = self.at
                self.step()
                kind = n.MaybeIndex if self.optional() else n.Index
                index = self.expression()
                self.expect("]", "to close the index")
                node = kind(node.start, self.at, at, node, index)
            else:
                return node

    def sequence(self, close: str, what: str) -> tuple[tuple[n.Node, ...], frozenset[int]]:
        """The items up to `close`, and the numbers of those with `?` before them."""
        items: list[n.Node] = []
        maybe: set[int] = set()
        while self.now != close:
            if close == "]" and self.optional():
                maybe.add(len(items))
            items.append(self.expression())
            if self.now == ",":
                self.step()
                if self.now == close and close == ")":
                    raise self.unexpected("expected an argument")
            elif self.now != close:
                raise self.unexpected(f"expected ',' or {close!r} in {what}")
        self.step()
        return tuple(items), frozenset(maybe)

    def optional(self) -> bool:
        """Whether a `?` marks what follows as optional; it is passed over."""
        marked = self.now == "?"
        if marked:
            self.step()
        return marked

    # -- macros

    def has(self, start: int, at: int, args: tuple[n.Node, ...]) -> n.Node:
        if len(args) != 1 or not isinstance(args[0], n.Select):
            raise ParseFault("has() takes one field selection, such as has(event.payload.ref)", at)
        select = args[0]
        return n.Has(start, self.at, select.at, select.operand, select.field)

    def method(self, target: n.Node, name: str, at: int, args: tuple[n.Node, ...]) -> n.Node:
        if isinstance(target, n.Name) and f"{target.name}.{name}" in FUNCTIONS:  # before any variable of that name
            return n.Call(target.start, self.at, target.at, f"{target.name}.{name}", None, args)
        kind = _MACROS.get((name, len(args)))
        if kind is None:
            if name in MACROS:
                raise ParseFault(
                    f"{name}() is not written with {len(args)} arguments", at, hint="write " + MACROS[name]
                )
            return n.Call(target.start, self.at, at, name, target, args)
        pair = (name, len(args)) in _TWO_VARIABLES or kind.startswith("transform")
        count = 2 if pair else 1
        variables: list[str] = []
        for arg in args[:count]:
            if not isinstance(arg, n.Name) or arg.absolute:
                raise ParseFault(f"{name}() takes a plain name as variable {len(variables) + 1}", arg.start)
            if arg.name in variables:
                raise ParseFault(f"{name}() names its variable {arg.name!r} twice", arg.start)
            variables.append(arg.name)
        rest = args[count:]
        yields = kind not in ("all", "exists", "exists_one", "filter")
        test = rest[0] if not yields or len(rest) == 2 else None
        result = rest[-1] if yields else None
        return n.Macro(target.start, self.at, at, kind, target, tuple(variables), test, result)


def _join(operator: str, at: int, left: n.Node, right: n.Node) -> n.Node:
    if operator == "&&" or operator == "||":
        # A bracketed operand starts before its own first operand; only an open chain is extended.
        if isinstance(left, n.Logic) and left.operator == operator and left.start == left.operands[0].start:
            return n.Logic(left.start, right.end, at, operator, (*left.operands, right))
        return n.Logic(left.start, right.end, at, operator, (left, right))
    return n.Binary(left.start, right.end, at, operator, left, right)
