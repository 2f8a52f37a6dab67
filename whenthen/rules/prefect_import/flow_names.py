"""The name of the flow at an entry point, as its syntax says. Nothing is imported.

Called by the importer, for files that lie in their project. A flow without a name of its own has its function's, with dashes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path

from whenthen.rules.plausibility.entry_parameters import entry_file, read_syntax
from whenthen.schemas.entry_points import EntryPoint

__all__ = ["FlowNames", "flow_names_below", "function_name"]

#: The name that the code gives to the flow of an entry point, where that is known
FlowNames = Callable[[EntryPoint], str | None]


def function_name(point: EntryPoint) -> str:
    """The name of a flow whose code gives none."""
    return point.function.rpartition(".")[2].replace("_", "-")


def flow_names_below(root: Path) -> FlowNames:
    """Reads names from the code in a project's folder. A file is read once, and none outside of the folder."""
    read: dict[Path, ast.Module | str] = {}

    def name_of(point: EntryPoint) -> str | None:
        file = entry_file(point, root)
        if file is None or not file.resolve().is_relative_to(root.resolve()):
            return None
        if file not in read:
            read[file] = read_syntax(file)
        tree = read[file]
        return None if isinstance(tree, str) else _written_name(tree, point.function)

    return name_of


def _written_name(tree: ast.Module, function: str) -> str | None:
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name != function:
            continue
        for decorator in node.decorator_list:
            for word in decorator.keywords if isinstance(decorator, ast.Call) else ():
                value = word.value
                if word.arg == "name" and isinstance(value, ast.Constant) and isinstance(value.value, str):
                    return re.sub(r"[/%&<>{}\x00-\x1f\x7f]", "-", value.value).strip() or None
    return None
