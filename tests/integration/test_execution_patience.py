"""What must not use up an action's tries: being handed back, and the loss of our own connection. A crash must."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.conftest import eventually
from tests.integration.test_execution import ask, emptied, executing, resolve, task
from tests.patience import limit
from whenthen.cancellation import end_task
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.request_client import BusReason, unavailable
from whenthen.engine.execution import executor as execution
from whenthen.engine.execution.circuit_breaker import CircuitBreakerSettings
from whenthen.engine.execution.dead_letters import DeadLetters
from whenthen.engine.execution.executor import ExecutionSettings, Executor
from whenthen.schemas.firings import ActionTask

pytestmark = pytest.mark.anyio


async def test_tasks_that_were_handed_back_while_their_target_was_busy_are_all_performed(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "SUSPECT", 0)
    done: list[str] = []

    async def perform(one: ActionTask) -> None:
        await asyncio.sleep(0.05)
        done.append(one.key)

    limits = ExecutionSettings(circuit_breaker=CircuitBreakerSettings(at_once=1, waiting=1))
    await ask(bus, *(task(f"f{number}", retry={"attempts": 1}) for number in range(20)))
    async with executing(bus, perform, settings=limits):
        await eventually(lambda: len(done) == 20, within_s=60)
        await emptied(bus)
    assert len(set(done)) == 20
    assert await DeadLetters(bus.client).letters() == []


async def test_the_loss_of_our_own_connection_is_no_try_of_the_action(bus: Bus) -> None:
    tries: list[int] = []

    async def perform(one: ActionTask) -> None:
        tries.append(one.attempt)
        if len(tries) < 4:
            raise unavailable("there is no connection to NATS", BusReason.DISCONNECTED)

    await ask(bus, task("f", retry={"attempts": 1}))
    async with executing(bus, perform):
        await emptied(bus)
    assert tries == [1, 1, 1, 1]
    assert await DeadLetters(bus.client).letters() == []


async def test_a_full_stream_that_an_action_meets_is_its_failure(bus: Bus) -> None:
    async def perform(one: ActionTask) -> None:
        raise unavailable("the stream is full", BusReason.FULL)

    await ask(bus, task("f", retry={"attempts": 2, "delay": "10ms"}))
    async with executing(bus, perform):
        await emptied(bus)
    (letter,) = await DeadLetters(bus.client).letters()
    assert letter.attempts == 2


async def test_a_task_that_brings_its_executor_down_again_and_again_is_buried(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "SUSPECT", 1)
    begun: list[int] = []

    async def perform(one: ActionTask) -> None:
        begun.append(one.attempt)
        await asyncio.Event().wait()

    await ask(bus, task("f", retry={"attempts": 2}))
    settings = ExecutionSettings(ack_wait_s=0.3)
    async with asyncio.timeout(limit(60)):
        while not await DeadLetters(bus.client).letters():
            before = len(begun)
            executor = Executor(bus, perform, resolve=resolve, settings=settings)
            executor._answer = _silent  # type: ignore[method-assign]  # a killed process says nothing
            running = asyncio.create_task(executor.run())
            while len(begun) == before and not await DeadLetters(bus.client).letters():
                await asyncio.sleep(0.02)
            for left in executor._tasks.values():
                left.cancel()
            await end_task(running)
    assert 3 <= len(begun) <= 6
    (letter,) = await DeadLetters(bus.client).letters()
    assert "never ended" in letter.error


async def _silent(reply: str, verb: bytes) -> None:
    return None
