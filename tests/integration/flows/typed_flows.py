"""What a type checker must see of flows and tasks: checked by mypy, strict, in test_flow_types.py. Lines with an error say so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, assert_type

from whenthen import Flow, Task, flow, get_run_logger, task, unmapped
from whenthen.futures import PrefectFuture, PrefectFutureList, as_completed, wait
from whenthen.states import Completed, State
from whenthen.transactions import Transaction, transaction


@task
def add(a: int, b: int = 1) -> int:
    return a + b


@task(retries=3, retry_delay_seconds=[1, 2], tags=["etl"])
def show(value: float) -> str:
    return str(value)


@task
async def fetch(url: str) -> bytes:
    return url.encode()


@task
def lines(n: int) -> Iterator[str]:
    yield str(n)


@flow(name="Etl", log_prints=True)
def etl(day: str, *, limit: int = 10) -> list[int]:
    assert_type(add(1), int)
    assert_type(add(1, b=2), int)
    assert_type(add(1, return_state=True), State[int])
    assert_type(add.submit(1), PrefectFuture[int])
    assert_type(add.submit(1).result(), int)
    assert_type(add.map([1, 2], unmapped(3)), PrefectFutureList[int])
    assert_type(add.map([1, 2]).result(), list[int])
    assert_type(fetch.submit("u"), PrefectFuture[bytes])
    assert_type(fetch.map(["u"]).result(), list[bytes])
    assert_type(show(add(1)), str)
    for future in as_completed([add.submit(1)]):
        assert_type(future, PrefectFuture[int])
    wait([add.submit(1), show.submit(1.0)])
    for line in lines(3):
        assert_type(line, str)
    get_run_logger().info("%s", day)
    with transaction() as made:
        assert_type(made, Transaction)
    return [limit]


@flow
async def gathers() -> int:
    found = await asyncio.gather(fetch("a"), fetch("b"))
    assert_type(found, tuple[bytes, bytes])
    assert_type(await fetch("a", return_state=True), State[bytes])
    return len(found)


@flow
async def streams() -> AsyncIterator[int]:
    yield 1


class Table:
    @task
    def row(self, n: int) -> str:
        return str(n)

    @flow
    def all(self, n: int) -> list[str]:
        assert_type(self.row(1), str)
        return self.row.map(range(n)).result()


@add.on_completion
def done(task: Task[..., Any], run: object, state: State[Any]) -> None: ...


assert_type(etl("today", limit=3), list[int])
assert_type(etl("today", return_state=True), State[list[int]])
assert_type(etl.with_options(name="x")("today"), list[int])
assert_type(Table().all(3), list[str])
assert_type(add.fn(1, 2), int)
assert_type(Completed(message="m"), State[Any])
taken: Flow[..., Any] = etl
later: Coroutine[Any, Any, int] = gathers()

add("1")  # error
etl()  # error
etl("x", limit="3")  # error
show(add(1)) + 1  # error
task(retries="3")  # error
flow(timeout_seconds="3")  # error
Table().row("x")  # error
