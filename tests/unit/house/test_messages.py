"""No message is taken apart again: what an error is about is in its attributes, `path`, `detail` and `reason`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import whenthen

PACKAGE = Path(whenthen.__file__).parent
#: methods that look into a text or cut it
CUTTING = frozenset(
    [
        "startswith",
        "endswith",
        "removeprefix",
        "removesuffix",
        "split",
        "rsplit",
        "partition",
        "rpartition",
        "splitlines",
        "find",
        "index",
        "replace",
    ]
)
#: functions of `re` that do
SEARCHING = frozenset(["match", "search", "fullmatch", "findall", "finditer", "split", "sub"])


def caught_names(tree: ast.AST) -> Iterator[tuple[str, ast.ExceptHandler]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.name is not None:
            yield node.name, node


def is_text_of(node: ast.AST, name: str) -> bool:
    """`str(error)`, `repr(error)`, f"{error}", `error.args[0]`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("str", "repr"):
        return len(node.args) == 1 and isinstance(node.args[0], ast.Name) and node.args[0].id == name
    if isinstance(node, ast.JoinedStr):
        return any(
            isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.Name) and part.value.id == name
            for part in node.values
        )
    return (
        isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == "args"
        and isinstance(node.value.value, ast.Name)
        and node.value.value.id == name
    )


def takes_apart(node: ast.AST, name: str, texts: set[str]) -> bool:
    """Whether `node` looks into the text of the error `name`, or into a variable of `texts`, which have it."""

    def is_text(part: ast.AST) -> bool:
        return is_text_of(part, name) or (isinstance(part, ast.Name) and part.id in texts)

    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr in CUTTING and is_text(node.func.value):
            return True
        if node.func.attr in SEARCHING and any(is_text(argument) for argument in node.args):
            return True
    if isinstance(node, ast.Compare):
        parts = zip([node.left, *node.comparators], node.ops, node.comparators, strict=False)
        return any(
            (isinstance(op, (ast.In, ast.NotIn)) and is_text(right))
            or (isinstance(op, (ast.Eq, ast.NotEq)) and (is_text(left) or is_text(right)))
            for left, op, right in parts
        )
    return False


def found_in(source: str) -> list[int]:
    """The lines on which the text of a caught error is taken apart."""
    lines = set()
    for name, handler in caught_names(ast.parse(source)):
        texts = {
            target.id
            for node in ast.walk(handler)
            if isinstance(node, ast.Assign) and is_text_of(node.value, name)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        lines |= {
            node.lineno
            for node in ast.walk(handler)
            if isinstance(node, (ast.Call, ast.Compare)) and takes_apart(node, name, texts)
        }
    return sorted(lines)


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_the_text_of_an_error_is_not_taken_apart(file: Path) -> None:
    assert found_in(file.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "x = str(error).removeprefix(f'{error.field}: ')",
        "x = str(error).partition(': ')[2]",
        "x = 'deleted' in str(error)",
        "x = re.match('(.*): ', str(error))",
        "x = error.args[0].split(':')",
        "x = f'{error}'.startswith('a')",
        "text = str(error); x = text.split(':')",
        "x = str(error) == 'gone'",
    ],
)
def test_the_search_notices(line: str) -> None:
    assert found_in(f"try:\n    pass\nexcept ValueError as error:\n    {line}\n") == [4]


@pytest.mark.parametrize(
    "line", ["x = str(error)", "raise ValueError(f'no: {error}') from None", "x = str(error)[:200]", "x = 'a'.split()"]
)
def test_quoting_an_error_is_no_taking_apart(line: str) -> None:
    assert found_in(f"try:\n    pass\nexcept ValueError as error:\n    {line}\n") == []
