"""The tree of a condition. Positions are token numbers, literals are slots: one tree serves every text of its shape.

Built by `parser`; read by `check`, `exact`, `codegen`, `conjuncts` and `explain`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = [
    "Binary",
    "Call",
    "Choose",
    "Constant",
    "Has",
    "Index",
    "ListOf",
    "Literal",
    "Logic",
    "Macro",
    "MapOf",
    "MaybeIndex",
    "MaybeSelect",
    "Message",
    "Name",
    "Node",
    "Select",
    "Unary",
    "children",
    "walk",
]


@dataclass(frozen=True, slots=True)
class Node:
    start: int  #: number of the first token
    end: int  #: number of the token after the last
    at: int  #: number of the token to point at: the operator, the field, the function's name


@dataclass(frozen=True, slots=True)
class Literal(Node):
    slot: int
    kind: str


@dataclass(frozen=True, slots=True)
class Constant(Node):
    value: bool | None


@dataclass(frozen=True, slots=True)
class Name(Node):
    name: str
    absolute: bool  #: written with a leading dot: never a macro's variable


@dataclass(frozen=True, slots=True)
class Select(Node):
    operand: Node
    field: str
    quoted: bool


@dataclass(frozen=True, slots=True)
class Has(Node):
    operand: Node
    field: str


@dataclass(frozen=True, slots=True)
class Index(Node):
    operand: Node
    index: Node


@dataclass(frozen=True, slots=True)
class MaybeSelect(Node):
    """`operand.?field`"""

    operand: Node
    field: str


@dataclass(frozen=True, slots=True)
class MaybeIndex(Node):
    """`operand[?index]`"""

    operand: Node
    index: Node


@dataclass(frozen=True, slots=True)
class Call(Node):
    function: str  #: with its namespace, as `math.abs`, which is then no target
    target: Node | None
    args: tuple[Node, ...]

    @property
    def operands(self) -> tuple[Node, ...]:
        return self.args if self.target is None else (self.target, *self.args)


@dataclass(frozen=True, slots=True)
class Unary(Node):
    operator: str
    operand: Node


@dataclass(frozen=True, slots=True)
class Binary(Node):
    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Logic(Node):
    """`&&` or `||` over two or more operands, flattened."""

    operator: str
    operands: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choose(Node):
    test: Node
    yes: Node
    no: Node


@dataclass(frozen=True, slots=True)
class ListOf(Node):
    items: tuple[Node, ...]
    maybe: frozenset[int] = frozenset()  #: the numbers of the items with `?` before them


@dataclass(frozen=True, slots=True)
class MapOf(Node):
    entries: tuple[tuple[Node, Node], ...]
    maybe: frozenset[int] = frozenset()  #: the numbers of the entries with `?` before them


@dataclass(frozen=True, slots=True)
class Message(Node):
    type_name: str
    fields: tuple[tuple[str, Node], ...]
    maybe: frozenset[int] = frozenset()  #: the numbers of the fields with `?` before them


@dataclass(frozen=True, slots=True)
class Macro(Node):
    """A comprehension. `test` is absent where the macro has none; `result` where it yields a bool or the element.

    The optional macros range over at most one value; they have a result and no test.
    """

    kind: str  #: all, exists, exists_one, filter, map, transformList, transformMap, optMap, optFlatMap
    over: Node
    variables: tuple[str, ...]
    test: Node | None
    result: Node | None


def children(node: Node) -> tuple[Node, ...]:
    """The direct sub-expressions, in source order."""
    match node:
        case Select(operand=operand) | Has(operand=operand) | Unary(operand=operand) | MaybeSelect(operand=operand):
            return (operand,)
        case Index(operand=operand, index=index) | MaybeIndex(operand=operand, index=index):
            return (operand, index)
        case Call():
            return node.operands
        case Binary(left=left, right=right):
            return (left, right)
        case Logic(operands=operands):
            return operands
        case Choose(test=test, yes=yes, no=no):
            return (test, yes, no)
        case ListOf(items=items):
            return items
        case MapOf(entries=entries):
            return tuple(part for entry in entries for part in entry)
        case Message(fields=fields):
            return tuple(value for _, value in fields)
        case Macro(over=over, test=condition, result=result):
            return tuple(part for part in (over, condition, result) if part is not None)
    return ()


def walk(node: Node) -> Iterator[Node]:
    """Every node of the tree, without recursion."""
    stack = [node]
    while stack:
        found = stack.pop()
        yield found
        stack.extend(reversed(children(found)))
