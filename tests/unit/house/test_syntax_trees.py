"""Nothing parses Python beside `whenthen.python_syntax`, which does it one thread at a time, as CPython needs it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import whenthen

PACKAGE = Path(whenthen.__file__).parent
#: functions that make syntax trees; `inspect` does so to find a class
PARSING = {
    "ast": {"parse", "PyCF_ONLY_AST"},
    "inspect": {"getsource", "getsourcelines", "findsource", "getblock"},
}


def what_parses(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in PARSING.get(node.value.id, ()):
                yield f"line {node.lineno}: {node.value.id}.{node.attr}"
        elif isinstance(node, ast.ImportFrom):
            for name in node.names:
                if name.name in PARSING.get(node.module or "", ()):
                    yield f"line {node.lineno}: {node.module}.{name.name}"
        elif isinstance(node, ast.keyword) and node.arg == "use_attribute_docstrings":
            yield f"line {node.lineno}: {node.arg}; use `schemas.base.DocumentedModel`"
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called == "compile" and (len(node.args) > 3 or any(word.arg == "flags" for word in node.keywords)):
                yield f"line {node.lineno}: compile with flags"
            if called == "ast.literal_eval" and not isinstance(node.args[0], ast.Name):
                yield f"line {node.lineno}: literal_eval of a text"


def test_one_place_parses_python() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}, {what}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name != "python_syntax.py"
        for what in what_parses(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found, "call `whenthen.python_syntax` in their place"


@pytest.mark.parametrize(
    "written",
    [
        "import ast\nast.parse(text)",
        "from ast import parse",
        "import inspect\ninspect.getsource(kind)",
        "compile(text, 'a', 'exec', 1024)",
        "compile(text, 'a', mode='exec', flags=1024)",
        "ConfigDict(frozen=True, use_attribute_docstrings=True)",
        "ast.literal_eval('[1]')",
    ],
)
def test_what_is_found(written: str) -> None:
    assert list(what_parses(ast.parse(written)))
