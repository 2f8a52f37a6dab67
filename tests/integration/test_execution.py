"""The execution loop against a real server: at least once under one key, retried, buried, redriven, oldest first."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from tests.integration.conftest import NatsServer, eventually
from tests.patience import limit, until
from whenthen.cancellation import end_task
from whenthen.engine.bus.batches import publish_batch
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.records import Message, encode_firing, encode_task
from whenthen.engine.bus.stream_pages import newest
from whenthen.engine.bus.streams import ENGINE
from whenthen.engine.bus.subjects import action_subject
from whenthen.engine.execution.circuit_breaker import CircuitBreakerSettings
from whenthen.engine.execution.dead_letters import DeadLetters
from whenthen.engine.execution.executor import CONSUMER, ExecutionSettings, Executor
from whenthen.schemas.errors import ActionError, NotFound
from whenthen.schemas.events import Event, new_event
from whenthen.schemas.firings import ActionTask, Firing, FiringState

pytestmark = pytest.mark.anyio

SPECS: dict[str, dict[str, Any]] = {}  #: of the tasks that `task` made, by digest
FAST = {"attempts": 3, "delay": "10ms", "jitter": 0}


def firing(id: str, seq: int = 0, event: dict[str, Any] | None = None) -> Firing:
    return Firing(
        id=id, automation="a b", state=FiringState.TRIGGERED, at="2026-01-01T00:00:00Z", key={}, event=event, seq=seq
    )


async def outcomes(bus: Bus, *, limit: int = 100) -> list[dict[str, Any]]:
    """How actions that were tried stand, the last changed first."""
    stored = await newest(
        bus.client,
        ENGINE,
        "engine.outcome.>",
        limit=limit,
        pick=lambda kept: orjson.loads(kept.data) if kept.data else None,
    )
    return list(stored)


def task(
    id: str, kind: str = "x", retry: object = FAST, of: Firing | None = None, event: bytes | None = None
) -> Message:
    digest = f"{kind} {orjson.dumps(retry).decode()}"
    SPECS[digest] = {"type": kind, "retry": retry}
    whole = of or firing(id)
    return Message(action_subject("a b", id, 0), encode_task(whole, encode_firing(whole, event), 0, kind, digest), 3600)


async def resolve(one: ActionTask) -> ActionTask:
    """As the runner does, with the specifications of this module."""
    return dataclasses.replace(one, action=SPECS[one.digest])


async def ask(bus: Bus, *tasks: Message) -> None:
    for start in range(0, len(tasks), 1000):
        await publish_batch(bus.client, tasks[start : start + 1000], expect=None)


@asynccontextmanager
async def executing(
    bus: Bus, perform: Callable[[ActionTask], Awaitable[Any]], **options: Any
) -> AsyncIterator[Executor]:
    executor = Executor(bus, perform, resolve=resolve, **options)
    running = asyncio.create_task(executor.run())
    try:
        await eventually(lambda: executor.ready.is_set() or running.done())
        yield executor
        executor.stop()
        await asyncio.wait_for(running, limit(30))
    finally:
        if not running.done():
            await end_task(running)


async def waiting(bus: Bus) -> int:
    info = await bus.js.stream_info(ENGINE, subjects_filter="engine.action.>")
    return len(info.state.subjects or {})


async def emptied(bus: Bus, *, within_s: float = 20) -> None:
    async with asyncio.timeout(limit(within_s)):
        while await waiting(bus):
            await asyncio.sleep(0.01)


async def test_each_task_is_performed_its_outcome_stored_and_the_task_removed(bus: Bus) -> None:
    done: list[str] = []
    events: list[Event] = []

    async def perform(one: ActionTask) -> dict[str, str]:
        done.append(one.key)
        return {"by": one.key}

    def describe(one: ActionTask, result: Any, duration: timedelta, retry_in: timedelta | None) -> Event:
        events.append(
            new_event("done", resource={"id": "r"}, now=datetime.now(UTC), source="t", id=f"{one.key}.executed")
        )
        return events[-1]

    await ask(bus, *(task(f"f{number}") for number in range(300)))
    async with executing(bus, perform, describe=describe):
        await emptied(bus)
    assert Counter(done) == Counter(f"f{number}.0" for number in range(300))
    listed = await outcomes(bus, limit=500)
    assert {(item["key"], item["state"], item["attempt"]) for item in listed} == {(key, "executed", 1) for key in done}
    assert (await bus.js.stream_info("EVENTS")).state.messages == 300


async def test_a_failed_try_is_repeated_and_the_last_one_buries_the_task(bus: Bus) -> None:
    tries: list[int] = []

    async def perform(one: ActionTask) -> None:
        tries.append(one.attempt)
        raise ActionError("nobody answers")

    letters = DeadLetters(bus.client)
    await ask(bus, task("f"))
    async with executing(bus, perform):
        await emptied(bus)
        assert tries == [1, 2, 3]
        (letter,) = await letters.letters()
        assert (letter.key, letter.error, letter.attempts) == ("f.0", "nobody answers", 3)
        await letters.redrive("f.0")
        await eventually(lambda: len(tries) == 6)
        await emptied(bus)
    assert tries == [1, 2, 3, 4, 5, 6]
    await letters.drop("f.0")
    assert await letters.letters() == []
    (listed,) = await outcomes(bus)
    assert listed["state"] == "dropped"
    with pytest.raises(NotFound):
        await letters.redrive("f.0")


async def test_what_can_not_work_is_not_tried_again(bus: Bus) -> None:
    tries: list[int] = []

    async def perform(one: ActionTask) -> None:
        tries.append(one.attempt)
        raise ActionError("no such deployment", retryable=False)

    await ask(bus, task("f"))
    async with executing(bus, perform):
        await emptied(bus)
    assert tries == [1]


async def test_a_redriven_task_that_works_leaves_no_letter(bus: Bus) -> None:
    works = False

    async def perform(one: ActionTask) -> str:
        if not works:
            raise ActionError("down", retryable=False)
        return "ok"

    letters = DeadLetters(bus.client)
    await ask(bus, task("f"))
    async with executing(bus, perform):
        await emptied(bus)
        works = True
        await letters.redrive("f.0")
        await emptied(bus)
    assert await letters.letters() == []
    (listed,) = await outcomes(bus)
    assert (listed["state"], listed["result"]) == ("executed", "ok")


async def test_a_task_whose_executor_died_is_performed_again_under_the_same_key(bus: Bus) -> None:
    keys: list[str] = []
    hang = asyncio.Event()

    async def hanging(one: ActionTask) -> None:
        keys.append(one.key)
        await hang.wait()

    async def perform(one: ActionTask) -> None:
        keys.append(one.key)

    settings = ExecutionSettings(ack_wait_s=1.0)
    await ask(bus, task("f"))
    dead = Executor(bus, hanging, resolve=resolve, settings=settings)
    running = asyncio.create_task(dead.run())
    await eventually(lambda: keys == ["f.0"])
    dead._answer = _nothing  # type: ignore[method-assign]  # a dead process says nothing more
    for one in [running, *dead._tasks.values()]:
        one.cancel()
    async with executing(bus, perform, settings=settings):
        await emptied(bus)
    assert keys == ["f.0", "f.0"]


async def _nothing(reply: str, verb: bytes) -> None:
    return None


async def test_a_task_whose_acknowledgement_was_lost_is_not_performed_again(bus: Bus) -> None:
    keys: list[str] = []

    async def perform(one: ActionTask) -> None:
        keys.append(one.key)

    settings = ExecutionSettings(ack_wait_s=1.0)
    await ask(bus, task("f"))
    async with executing(bus, perform, settings=settings) as executor:
        original, executor._close = executor._close, _lost  # type: ignore[method-assign]
        await eventually(lambda: keys and not executor._tasks)
        executor._close = original  # type: ignore[method-assign]
        await emptied(bus)
    assert keys == ["f.0"]


async def test_a_try_that_fails_after_another_one_is_done_changes_nothing(bus: Bus) -> None:
    tries: list[str] = []
    release = asyncio.Event()

    async def hanging(one: ActionTask) -> None:
        tries.append(one.key)
        await release.wait()
        raise ActionError("NATS did not answer")

    async def perform(one: ActionTask) -> None:
        return None

    settings = ExecutionSettings(ack_wait_s=1.0)
    await ask(bus, task("f"))
    async with executing(bus, hanging, settings=settings) as slow:
        slow._answer = _nothing  # type: ignore[method-assign]  # it does not say that it works on the task
        await eventually(lambda: tries)
        async with executing(bus, perform, settings=settings):
            await emptied(bus)
        release.set()
        await eventually(lambda: not slow._tasks)
    (listed,) = await outcomes(bus)
    assert (listed["state"], listed["error"]) == ("executed", "")


async def test_a_task_that_comes_again_while_it_is_performed_is_performed_once(bus: Bus) -> None:
    keys: list[str] = []
    release = asyncio.Event()

    async def perform(one: ActionTask) -> None:
        keys.append(one.key)
        await release.wait()

    async def delivered() -> int:
        info = await bus.js.consumer_info(ENGINE, CONSUMER)
        return info.delivered.consumer_seq if info.delivered is not None else 0

    settings = ExecutionSettings(ack_wait_s=0.5)
    await ask(bus, task("f"))
    async with executing(bus, perform, settings=settings) as executor:
        answer, executor._answer = executor._answer, _nothing  # type: ignore[method-assign]  # the server hears of no progress
        await until(lambda: more_than(delivered, 3))
        executor._answer = answer  # type: ignore[method-assign]
        release.set()
        await emptied(bus)
    (listed,) = await outcomes(bus)
    assert (keys, listed["state"], listed["attempt"]) == (["f.0"], "executed", 1)


async def more_than(count: Callable[[], Awaitable[int]], least: int) -> bool:
    return await count() > least


async def _lost(reply: str, seq: int) -> None:
    return None


async def test_a_long_action_is_not_given_to_somebody_else(bus: Bus) -> None:
    keys: list[str] = []

    async def perform(one: ActionTask) -> None:
        keys.append(one.key)
        await asyncio.sleep(2.5 * settings.ack_wait_s)

    settings = ExecutionSettings(ack_wait_s=limit(0.6))
    await ask(bus, task("f"))
    async with executing(bus, perform, settings=settings), executing(bus, perform, settings=settings):
        await emptied(bus)
    assert keys == ["f.0"]


async def test_two_executors_share_the_work_and_oldest_comes_first(bus: Bus) -> None:
    order: list[int] = []
    by: Counter[str] = Counter()

    def performer(name: str) -> Callable[[ActionTask], Awaitable[None]]:
        async def perform(one: ActionTask) -> None:
            order.append(int(one.firing.id))
            by[name] += 1
            await asyncio.sleep(0)

        return perform

    settings = ExecutionSettings(concurrency=8)
    async with (
        executing(bus, performer("one"), settings=settings),
        executing(bus, performer("two"), settings=settings),
    ):
        await ask(bus, *(task(str(number)) for number in range(2000)))  # once both are there
        await emptied(bus)
    assert sorted(order) == list(range(2000))
    assert max(abs(place - number) for place, number in enumerate(order)) <= 200
    assert min(by.values()) > 100


async def test_ten_thousand_at_once_are_worked_off_in_order_of_age_though_a_target_hangs(bus: Bus) -> None:
    hang = asyncio.Event()
    order: list[int] = []

    async def perform(one: ActionTask) -> None:
        if one.action["type"] == "stuck":
            await hang.wait()
        else:
            order.append(int(one.firing.id))

    stuck = [task(f"stuck-{number}", "stuck") for number in range(100)]
    await ask(bus, *stuck, *(task(str(number)) for number in range(10_000)))
    settings = ExecutionSettings(concurrency=64)
    async with executing(bus, perform, settings=settings):
        async with asyncio.timeout(limit(90)):
            while len(order) < 10_000:
                await asyncio.sleep(0.05)
        assert max(abs(place - number) for place, number in enumerate(order)) <= 4 * settings.concurrency
        hang.set()
        await emptied(bus, within_s=60)
    assert sorted(order) == list(range(10_000))


async def test_a_target_that_hangs_does_not_hold_up_the_others(bus: Bus) -> None:
    hang = asyncio.Event()
    done: list[str] = []

    async def perform(one: ActionTask) -> None:
        if one.action["type"] == "hanging":
            await hang.wait()
        done.append(one.action["type"])

    settings = ExecutionSettings(concurrency=16, circuit_breaker=CircuitBreakerSettings(at_once=4, waiting=4))
    await ask(bus, *(task(f"h{number}", "hanging") for number in range(300)))
    await ask(bus, *(task(f"q{number}", "quick") for number in range(300)))
    async with executing(bus, perform, settings=settings):
        await eventually(lambda: done.count("quick") == 300)
        assert "hanging" not in done
        hang.set()
        await emptied(bus)
    assert done.count("hanging") == 300


async def test_a_large_event_is_fetched_and_one_that_is_gone_buries_the_task(bus: Bus) -> None:
    seen: list[Any] = []

    async def perform(one: ActionTask) -> None:
        seen.append(one.firing.event)

    big = new_event("big", resource={"id": "r"}, now=datetime.now(UTC), source="t", payload="x" * 70_000)
    ack = await bus.publish(big)
    here = firing("here", ack.seq, big.data)
    gone = firing("gone", ack.seq + 7, big.data)
    await ask(bus, task("here", of=here, event=big.encode()), task("gone", of=gone, event=big.encode()))
    async with executing(bus, perform):
        await emptied(bus)
    assert seen == [big.data]
    (letter,) = await DeadLetters(bus.client).letters()
    assert "no longer kept" in letter.error


async def test_stopping_hands_unfinished_tasks_back_at_once(bus: Bus) -> None:
    started: list[str] = []

    async def hanging(one: ActionTask) -> None:
        started.append(one.key)
        await asyncio.Event().wait()

    async def perform(one: ActionTask) -> None:
        started.append(one.key)

    settings = ExecutionSettings(ack_wait_s=60.0, stop_s=0.2)
    await ask(bus, task("f"))
    async with executing(bus, hanging, settings=settings):
        await eventually(lambda: started == ["f.0"])
    async with executing(bus, perform, settings=settings):
        await emptied(bus)
    assert started == ["f.0", "f.0"]


async def test_tasks_go_on_after_the_server_was_killed(bus: Bus, nats_server: NatsServer) -> None:
    done: Counter[str] = Counter()

    async def perform(one: ActionTask) -> None:
        done[one.key] += 1
        await asyncio.sleep(0.001)

    settings = ExecutionSettings(concurrency=8, ack_wait_s=2.0)
    await ask(bus, *(task(str(number)) for number in range(1500)))
    async with executing(bus, perform, settings=settings):
        await eventually(lambda: len(done) > 200)
        nats_server.kill()
        nats_server.start()
        await eventually(lambda: bus.connected)
        await eventually(lambda: len(done) == 1500)
        await emptied(bus)
