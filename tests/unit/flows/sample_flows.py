"""A flow and a task at the top of a module, where pickle finds them."""

from __future__ import annotations

from whenthen import flow, task


@task
def add(a: int, b: int = 1) -> int:
    return a + b


@flow
def adds(n: int) -> int:
    return add(n)
