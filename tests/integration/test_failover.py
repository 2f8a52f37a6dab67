"""Real evaluator processes that are stopped and killed: takeover, fencing, a firing of two thousand, deadlines missed."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from tests.chaos.oracle import Oracle, read_stream
from tests.chaos.processes import Supervised, child_of, whenthen
from tests.integration.conftest import NatsServer, publish_all
from tests.patience import limit, until
from whenthen.engine.bus.connection import Ack, Bus
from whenthen.engine.bus.records import Offset
from whenthen.engine.bus.streams import ENGINE, EVENTS, LEASES, StreamSettings, ensure_streams
from whenthen.engine.bus.subjects import prepared_subject
from whenthen.engine.evaluation.commits.fenced_offset import read_offset
from whenthen.engine.evaluation.leases import LeaseSettings
from whenthen.engine.evaluation.nats_log import NatsEngineStore
from whenthen.rules import load_rules
from whenthen.schemas.errors import BusUnavailable
from whenthen.schemas.events import new_event

pytestmark = [pytest.mark.anyio, pytest.mark.takes(15)]

START_S = 90.0  #: a process on a busy machine


class Evaluators:
    """Evaluator processes on one rules folder."""

    def __init__(self, folder: Path, rules: str, url: str) -> None:
        self.rules = folder / "rules"
        self.rules.mkdir()
        (self.rules / "rules.yaml").write_text(rules)
        self._folder, self._url = folder, url
        self.running: list[Supervised] = []

    def start(self) -> Supervised:
        words = whenthen("serve", self.rules, "--nats", self._url, "--role", "evaluator")
        process = Supervised(f"evaluator-{len(self.running)}", words, self._folder)
        process.start()
        self.running.append(process)
        return process


@asynccontextmanager
async def evaluators(folder: Path, rules: str, url: str) -> AsyncIterator[Evaluators]:
    found = Evaluators(folder, rules, url)
    try:
        yield found
    finally:
        await asyncio.gather(*(process.halt() for process in found.running))


async def publish(bus: Bus, name: str, id: str = "r") -> int:
    return (await bus.publish(new_event(name, resource={"id": id}, now=datetime.now(UTC), source="test"))).seq


async def firings(bus: Bus) -> dict[str, dict[str, object]]:
    found = [orjson.loads(message.data) async for message in read_stream(bus, ENGINE, "engine.firing.>")]
    return {firing["id"]: firing for firing in found}


async def holder(bus: Bus) -> str:
    """Who has the lease of shard 0."""
    found = [message.data async for message in read_stream(bus, f"KV_{LEASES}", f"$KV.{LEASES}.shard.0")]
    return str(orjson.loads(found[-1])["holder"]) if found and found[-1] else ""


async def members(bus: Bus) -> int:
    found = [one async for one in read_stream(bus, f"KV_{LEASES}", f"$KV.{LEASES}.member.>") if one.data]
    return len(found)


async def committed(bus: Bus, seq: int, *, within_s: float = 60.0, whole: bool = True) -> Offset:
    """The shard's offset once it has passed `seq`; `whole` waits for all that came of it, which needs a pause."""
    found: list[Offset] = []

    async def there() -> bool:
        found.append(await read_offset(NatsEngineStore(bus.client), 0))
        return found[-1].seq >= seq and not found[-1].prepared and not (whole and found[-1].packed)

    await until(there, within_s=within_s, what=f"the shard reaches position {seq}", every_s=0.02)
    return found[-1]


async def expected(bus: Bus, rules: Path) -> Oracle:
    oracle = Oracle(load_rules(rules))
    await oracle.follow(bus)
    assert not oracle.doubled
    return oracle


async def test_a_stopped_evaluator_is_replaced_within_seconds_and_can_not_commit_when_it_goes_on(
    tmp_path: Path, nats_server: NatsServer, bus: Bus
) -> None:
    rules = "automations: [{name: pairs, trigger: {expect: tick, threshold: 2, within: 1h, cooldown: 0s}, actions: [do-nothing]}]"
    async with evaluators(tmp_path, rules, nats_server.url) as house:
        first = house.start()
        await committed(bus, await publish(bus, "tick"), within_s=START_S)
        old = await holder(bus)
        began = time.monotonic()
        house.start()

        async def joined() -> bool:
            return await members(bus) == 2

        await until(joined, within_s=START_S, what="the second evaluator joins")
        start_s = time.monotonic() - began
        assert await holder(bus) == old, "a shard does not move because somebody joins"
        loading = True

        async def load() -> None:
            while loading:
                await asyncio.gather(*(publish(bus, "tick") for _ in range(10)))
                await asyncio.sleep(0.05)  # about 200 a second

        sending = asyncio.create_task(load())
        try:
            before = await committed(bus, await publish(bus, "tick"), whole=False)
            working = child_of(first.pid)
            assert working is not None
            os.kill(working, signal.SIGSTOP)
            stopped = time.monotonic()
            after_stop = await publish(bus, "tick")
            taken = await committed(bus, after_stop, within_s=30, whole=False)
            took_s = time.monotonic() - stopped
            assert taken.writer != before.writer
            os.kill(working, signal.SIGCONT)
            # it goes on with a batch in hand, and learns that the shard is gone
            await until(
                lambda: _said(first, "took it over", "taken by another process", "committed at position"),
                within_s=60,
                what="the stopped evaluator learns that its shard is gone",
            )
            offset = await committed(bus, await publish(bus, "tick"), whole=False)
        finally:
            loading = False
            await sending
        lapses_s = LeaseSettings().lease_s + LeaseSettings().renew_s
        assert took_s < limit(lapses_s) + 2 * start_s, f"takeover took {took_s:.1f} s, and a start {start_s:.1f} s"
        assert offset.writer == taken.writer, "the evaluator that was stopped has not committed again"
        last = await publish(bus, "tick")
        await committed(bus, last)
        oracle = await expected(bus, house.rules)
        assert len(oracle.firings) > 10
        assert await firings(bus) == oracle.firings
        assert not any(process.ended_by_itself for process in house.running)


async def _said(process: Supervised, *texts: str) -> bool:
    log = process.log.read_text(errors="replace")
    return any(text in log for text in texts)


async def test_an_event_that_fires_two_thousand_automations_is_exact_when_the_process_is_killed_in_the_middle(
    tmp_path: Path, nats_server: NatsServer, bus: Bus
) -> None:
    rules = "automations:\n" + "".join(
        f"  - {{name: wide-{number}, trigger: {{expect: burst}}, actions: [do-nothing]}}\n" for number in range(2000)
    )
    killed_at: list[Offset] = []
    async with evaluators(tmp_path, rules, nats_server.url) as house:
        process = house.start()
        await committed(bus, await publish(bus, "burst"), within_s=START_S)
        for moment in range(3):
            sent = await publish(bus, "burst")

            async def under_way(sent: int = sent, moment: int = moment) -> bool:
                offset = await read_offset(NatsEngineStore(bus.client), 0)
                return offset.seq >= sent and (offset.applied >= moment or not offset.prepared)

            await until(under_way, within_s=60, what="the commit is under way", every_s=0.0)
            process.kill()
            killed_at.append(await read_offset(NatsEngineStore(bus.client), 0))
            await committed(bus, sent, within_s=START_S)
        oracle = await expected(bus, house.rules)
        assert len(oracle.firings) == 8000
        assert await firings(bus) == oracle.firings
        tasks = [message.subject async for message in read_stream(bus, ENGINE, "engine.action.>")]
        assert len(tasks) == len(set(tasks)) == 8000
        assert any(offset.prepared for offset in killed_at), "no kill hit a commit that was half applied"
        left = [one async for one in read_stream(bus, ENGINE, prepared_subject(0, 0)) if one.data]
        assert not left


async def test_a_deadline_that_passes_while_the_evaluator_is_down_fires_once_when_it_is_up_again(
    tmp_path: Path, nats_server: NatsServer, bus: Bus
) -> None:
    rules = """
automations:
  - name: missing
    trigger: {after: started, expect: done, for_each: id, posture: proactive, within: 15s}
    actions: [do-nothing]
"""
    async with evaluators(tmp_path, rules, nats_server.url) as house:
        first = house.start()
        await committed(bus, await publish(bus, "done", "nobody"), within_s=START_S)  # the evaluator is at work
        await publish(bus, "started", "late")
        await committed(bus, await publish(bus, "started", "backlog"), within_s=START_S)
        due = time.monotonic() + 15
        await first.halt(kill=True)
        await publish(bus, "done", "backlog")  # in time, but nobody has seen it yet
        assert not await firings(bus)

        async def passed() -> bool:
            return time.monotonic() > due

        await until(passed, within_s=20, what="the deadline has passed")
        house.start()

        async def fired() -> bool:
            return bool(await firings(bus))

        await until(fired, within_s=START_S, what="the deadline fires on the way up")
        await committed(bus, await publish(bus, "done", "other"))  # which opens no window
        found = await firings(bus)
        oracle = await expected(bus, house.rules)
        stream = [(one.seq, one.time_us, one.subject, one.data) async for one in read_stream(bus, EVENTS)]
        assert found == oracle.firings, stream
        assert [firing["key"] for firing in found.values()] == [{"id": "late"}]
        ticks = [one async for one in read_stream(bus, EVENTS, "ticks.>")]
        assert ticks, "nothing but the stream's own clock tells the time"


async def test_a_redelivery_is_recognised_though_nats_was_killed_since(nats_server: NatsServer, bus: Bus) -> None:
    await ensure_streams(bus.js, StreamSettings(duplicate_window=timedelta(hours=1)))
    assert (await bus.js.stream_info(EVENTS)).config.duplicate_window == 3600
    events = [new_event("order", resource={"id": "r"}, now=datetime.now(UTC), source="test") for _ in range(50)]
    stored = [ack.seq for ack in await publish_all(bus, events)]
    nats_server.kill()
    nats_server.start()

    again: list[Ack] = []

    async def taken() -> bool:
        try:
            again[:] = await publish_all(bus, events)
        except BusUnavailable:
            return False
        return True

    await until(taken, within_s=30, what="the connection is back")
    assert [ack.seq for ack in again] == stored
    assert all(ack.duplicate for ack in again)
