"""Python source as a syntax tree, and the source of functions and classes, from any thread.

CPython counts the depth of the tree that it converts in one place for all threads, until 3.11.8 and 3.12.2: of two that convert at one
time one fails, with `SystemError: AST constructor recursion depth mismatch`. Everything that parses goes through here, one after
another; a test of the house holds that. What libraries parse at the same time is outside of that, so a failure is tried again.
"""

from __future__ import annotations

import ast
import inspect
import os
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

__all__ = ["parse_expression", "parse_module", "source_of"]

T = TypeVar("T")
TRIES: Final = 5
_one_at_a_time = threading.RLock()  # a collection amid a conversion may run code that converts


def parse_module(source: str | bytes) -> ast.Module:
    """The tree of a file.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: as `ast.parse` does.
    """
    return _alone(lambda: ast.parse(source))


def parse_expression(source: str) -> ast.expr:
    """The tree of one expression.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: as `ast.parse` does.
    """
    return _alone(lambda: ast.parse(source, mode="eval")).body


def source_of(target: Any) -> str:
    """The source of a module, function or class; to find a class its file is parsed.

    Raises:
        OSError: the source is not at hand.
        TypeError: `target` is none of these, or built in.
    """
    return _alone(lambda: inspect.getsource(target))


def _alone(convert: Callable[[], T]) -> T:
    for tried in range(1, TRIES + 1):
        try:
            with _one_at_a_time:
                return convert()
        except SystemError:
            if tried == TRIES:
                raise
    raise AssertionError("unreachable")


def _unlock_in_child() -> None:
    """The thread that holds the lock while another one forks is not there in the child."""
    global _one_at_a_time
    _one_at_a_time = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_in_child)
