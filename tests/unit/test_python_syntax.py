"""Syntax trees, whichever thread asks for them."""

from __future__ import annotations

import ast
import gc
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from whenthen import python_syntax
from whenthen.python_syntax import parse_expression, parse_module, source_of

TEXT = "\n".join(f"value_{number} = [{number}, ({number}, {{'a': {number}}})]" for number in range(400))


class Passing:
    """Garbage in a cycle that lets other threads run as it is collected."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        os.sched_yield()


def test_threads_that_parse_at_once() -> None:
    together = threading.Barrier(4)

    def parse(_number: int) -> int:
        together.wait(60)
        statements = 0
        for _ in range(5):
            Passing()
            statements += len(parse_module(TEXT).body)
        return statements

    before = gc.get_threshold()
    gc.set_threshold(50, 2, 2)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(parse, range(4))) == [5 * 400] * 4
    finally:
        gc.set_threshold(*before)


def test_what_a_library_parses_at_the_same_time_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    disturbed = iter([True, True, False])
    parse = ast.parse

    def disturbed_parse(*given: Any, **named: Any) -> Any:
        if next(disturbed):
            raise SystemError("AST constructor recursion depth mismatch (before=60, after=63)")
        return parse(*given, **named)

    monkeypatch.setattr(ast, "parse", disturbed_parse)
    assert len(parse_module("a = 1\nb = 2\n").body) == 2
    assert next(disturbed, None) is None


def test_a_system_error_that_stays_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken_parse(*given: Any, **named: Any) -> Any:
        raise SystemError("unknown opcode")

    monkeypatch.setattr(ast, "parse", broken_parse)
    with pytest.raises(SystemError, match="unknown opcode"):
        parse_module("a = 1")


def test_expressions_and_faults() -> None:
    assert ast.unparse(parse_expression("dict[str, int]")) == "dict[str, int]"
    with pytest.raises(SyntaxError):
        parse_expression("a = 1")
    with pytest.raises(SyntaxError):
        parse_module("def")


def test_the_source_of_modules_functions_and_classes() -> None:
    assert source_of(Passing).startswith("class Passing:")
    assert source_of(test_expressions_and_faults).startswith("def test_expressions_and_faults")
    assert source_of(python_syntax).startswith('"""Python source as a syntax tree')
    with pytest.raises(TypeError):
        source_of(len)


FORKED = """
import os, threading
from whenthen import python_syntax

held, over = threading.Event(), threading.Event()

def hold():
    with python_syntax._one_at_a_time:
        held.set()
        over.wait()

threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if child == 0:
    os._exit(len(python_syntax.parse_module("a = 1").body))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_child_parses_though_another_thread_held_the_lock_at_the_fork() -> None:
    # in a process of its own: later versions of Python warn of a fork beside threads
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], capture_output=True, text=True, timeout=120)
    assert done.stdout == "1\n", done.stderr
