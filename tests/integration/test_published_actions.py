"""The executor performs the actions that were published, and none that a message spells out, whoever wrote it.

See docs/architecture.md, "One event, one action".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
from prometheus_client import generate_latest

from tests.integration.conftest import eventually
from tests.patience import limit
from whenthen.actions import (
    CompiledAction,
    compile_action,
    encode_spec,
    read_action,
    spec_digest,
)
from whenthen.actions.ports import Ports
from whenthen.actions.secrets import Redactor
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.records import encode_firing, encode_task
from whenthen.engine.bus.streams import ENGINE
from whenthen.engine.bus.subjects import action_subject, dead_subject
from whenthen.engine.execution import spec_store
from whenthen.engine.execution.action_runner import ActionMetrics, ActionRunner
from whenthen.engine.execution.dead_letters import DeadLetters
from whenthen.engine.execution.executor import Executor
from whenthen.engine.execution.spec_store import SpecStore
from whenthen.engine.metrics import Metrics
from whenthen.schemas.events import Event
from whenthen.schemas.firings import Firing, FiringState

pytestmark = pytest.mark.anyio


def compiled(name: str) -> CompiledAction:
    """An action whose performance shows: it emits an event called `name`."""
    return compile_action(read_action({"type": "emit-event", "event": name, "resource": {"id": "r"}}))


class Emitted:
    """Takes what actions emit."""

    def __init__(self) -> None:
        self.names: list[str] = []

    async def publish(self, event: Event) -> Any:
        self.names.append(event.name)
        return SimpleNamespace(seq=1, duplicate=False)


def firing(id: str, automation: str = "a") -> Firing:
    return Firing(
        id=id, automation=automation, state=FiringState.TRIGGERED, at="2026-01-01T00:00:00Z", key={}, event=None, seq=0
    )


async def send(bus: Bus, id: str, **fields: Any) -> None:
    """Publish a task as the evaluation does, with other `fields`."""
    whole = firing(id)
    task = orjson.loads(encode_task(whole, encode_firing(whole, None), 0, "emit-event", ""))
    task.update(fields)
    await bus.store(action_subject("a", id, 0), orjson.dumps(task))


@asynccontextmanager
async def executing(
    bus: Bus, in_force: Callable[[Firing, int], CompiledAction | None]
) -> AsyncIterator[tuple[Emitted, Metrics]]:
    emitted, metrics = Emitted(), Metrics(version="t")
    ports = cast(Ports, SimpleNamespace(events=emitted, redactor=Redactor()))
    runner = ActionRunner(bus, ports, in_force, SpecStore(bus.client).find)
    executor = Executor(
        bus,
        runner.perform,
        resolve=runner.resolve,
        describe=runner.describe,
        target=runner.target,
        observer=ActionMetrics(metrics),
    )
    running = asyncio.create_task(executor.run())
    await eventually(lambda: executor.ready.is_set() or running.done())
    yield emitted, metrics
    executor.stop()
    await asyncio.wait_for(running, limit(30))


async def emptied(bus: Bus) -> None:
    async with asyncio.timeout(limit(20)):
        while (await bus.js.stream_info(ENGINE, subjects_filter="engine.action.>")).state.subjects:
            await asyncio.sleep(0.01)


WEBHOOK = encode_spec(
    compile_action(
        read_action({"type": "call-webhook", "url": "http://127.0.0.1:9/", "headers": {"X-File": "file:/etc/shadow"}})
    ).action
)
SPELT = orjson.loads(WEBHOOK)


@pytest.mark.parametrize(
    "forged",
    [
        {"action": SPELT},
        {"action": SPELT, "digest": spec_digest(WEBHOOK)},
        {"action": SPELT, "digest": spec_digest(encode_spec(compiled("good").action))},
        {"action": {"type": "run-deployment", "deployment": "d"}},
        {"action": {"type": "emit-event"}},
        {"digest": spec_digest(WEBHOOK)},
        {"digest": "0" * 24},
        {"digest": ">"},
        {"digest": "x" * 5000},
        {},
    ],
    ids=[
        "spelt out",
        "spelt out with its digest",
        "spelt out with the digest of another",
        "a deployment",
        "a type alone",
        "an unpublished digest",
        "no digest of anything",
        "a wildcard",
        "a long digest",
        "nothing",
    ],
)
async def test_a_task_that_nobody_published_is_not_performed_but_on_record_and_counted(
    bus: Bus, forged: dict[str, Any]
) -> None:
    good = compiled("good")
    async with executing(bus, lambda firing, index: good) as (emitted, metrics):
        await send(bus, "f", **forged)
        await emptied(bus)
        await send(bus, "g", digest=good.digest)
        await emptied(bus)
        assert emitted.names == ["good"]
        (letter,) = await DeadLetters(bus.client).letters()
        assert (letter.key, letter.reason, letter.attempts) == ("f.0", "unknown_action", 1)
        assert "refused" in letter.error
        assert "whenthen_actions_refused_total 1.0" in generate_latest(metrics.registry).decode().splitlines()


@pytest.mark.parametrize(
    "broken",
    [
        {"action": None},
        {"action": []},
        {"action": {"type": 1}},
        {"extra": {"attempts": "x"}},
        {"extra": []},
        {"key": "other.0"},
        {"index": "0"},
        {"digest": 5},
    ],
)
async def test_what_is_no_task_is_passed_over_once(bus: Bus, broken: dict[str, Any]) -> None:
    async with executing(bus, lambda firing, index: compiled("good")) as (emitted, _):
        await send(bus, "f", **{"digest": compiled("good").digest, **broken})
        async with asyncio.timeout(limit(20)):
            while (await bus.js.consumer_info(ENGINE, "actions")).num_ack_pending or (
                await bus.js.consumer_info(ENGINE, "actions")
            ).num_pending:
                await asyncio.sleep(0.01)
        assert emitted.names == []


async def test_a_published_action_is_performed_after_its_automation_is_gone(bus: Bus) -> None:
    old = compiled("old")
    await SpecStore(bus.client).publish({old.digest: encode_spec(old.action)})
    async with executing(bus, lambda firing, index: None) as (emitted, _):
        await send(bus, "f", digest=old.digest)
        await emptied(bus)
    assert emitted.names == ["old"]


async def test_a_task_of_an_earlier_version_is_performed_when_its_action_is_a_published_one(bus: Bus) -> None:
    good, old = compiled("good"), compiled("old")
    await SpecStore(bus.client).publish({old.digest: encode_spec(old.action)})
    async with executing(bus, lambda firing, index: good) as (emitted, _):
        for number, one in enumerate((good, old)):
            await send(bus, f"f{number}", action=orjson.loads(encode_spec(one.action)), digest=one.digest)
            await emptied(bus)
            await send(bus, f"g{number}", action=orjson.loads(encode_spec(one.action)))  # of the first versions
            await emptied(bus)
    assert emitted.names == ["good", "good", "old", "old"]


async def test_a_specification_that_is_not_what_its_name_says_is_none(bus: Bus) -> None:
    store = SpecStore(bus.client)
    digest = compiled("good").digest
    await store.publish({digest: WEBHOOK})
    assert await store.find(digest) is None
    assert await store.find("0" * 24) is None


async def test_what_is_too_large_to_publish_is_left_out_and_the_rest_is_stored(bus: Bus) -> None:
    store = SpecStore(bus.client)
    one = encode_spec(compiled("one").action)
    await store.publish({"f" * 24: b"x" * (9 << 20), spec_digest(one): one})
    assert await store.find(spec_digest(one)) == one


async def test_only_what_is_old_and_named_by_no_task_and_no_dead_letter_is_deleted(bus: Bus) -> None:
    store = SpecStore(bus.client)
    specs = {one.digest: encode_spec(one.action) for one in map(compiled, ("waiting", "dead", "early", "forgotten"))}
    waiting, dead, early, forgotten = specs
    await store.publish(specs)
    await send(bus, "w", digest=waiting)
    await send(bus, "e", action=orjson.loads(specs[early]))
    whole = firing("d")
    letter = {"task": orjson.Fragment(encode_task(whole, encode_firing(whole, None), 0, "emit-event", dead))}
    await bus.store(dead_subject("a", "d", 0), orjson.dumps(letter))
    now = datetime.now(UTC)
    later = now + timedelta(seconds=spec_store.KEPT_S + 60)
    assert [await store.collect(now), await store.collect(now)] == [0, 0]
    assert await store.collect(later) == 0  # once is not enough: a task may be on its way to a dead letter
    assert await store.collect(later) == 1
    assert {digest for digest in specs if await store.find(digest) is not None} == {waiting, dead, early}
    await store.publish({forgotten: specs[forgotten]})
    assert await store.find(forgotten) == specs[forgotten]


async def test_what_is_used_in_between_is_kept(bus: Bus) -> None:
    store = SpecStore(bus.client)
    one = compiled("one")
    now = datetime.now(UTC)
    later = now + timedelta(seconds=spec_store.KEPT_S + 60)
    await store.publish({one.digest: encode_spec(one.action)})
    assert await store.collect(later) == 0
    assert await store.collect(now) == 0  # as if it had been published again
    assert await store.collect(later) == 0
    assert await store.find(one.digest) is not None
    assert await store.collect(later) == 1
    assert await store.find(one.digest) is None
