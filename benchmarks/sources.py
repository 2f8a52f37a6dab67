"""Events a second from each broker to JetStream's acknowledgement, beside a bare consumer of the same broker.

    python -m benchmarks.sources [--messages 10000] [--rounds 3] [BROKER ...]

Ours is the role `source` without the rest of the server: what a broker holds is read, mapped to events, stored, and acknowledged upstream.
The bare consumer is the client that our source uses, in a process like ours, which reads and acknowledges as many messages and does
nothing with them. Both are measured from the first message to the last, and the processor time of their thread, which other work on the
machine changes less; rounds alternate, medians count. Of the brokers those are measured that are installed. SQS gets 200 messages.

Checked: the stream holds one event for each message, with the right number in it, and upstream nothing is left.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import time
import uuid
from collections.abc import Awaitable
from typing import Any

import orjson

from benchmarks._brokers import BROKERS, KEY, Broker, open_broker
from benchmarks._shared import bed, folder, machine, main_loop
from whenthen.cancellation import end_task
from whenthen.engine.bus.connection import Ack, Bus
from whenthen.engine.bus.datadir import embedded_url
from whenthen.engine.metrics import Metrics
from whenthen.engine.process.senders.reader_reports import ReaderReports
from whenthen.engine.sources import SourceRunner
from whenthen.schemas.event_sources import Source
from whenthen.schemas.events import Event
from whenthen.sources.readings import SourceTranslator

__all__ = ["main"]

MAP = {"event": "order.placed", "resource": {"id": "order.{{ body.n }}"}}
WAIT_S = 180.0


class Meter:
    """When the first and the last of `count` messages came."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._seen = 0
        self._began = (0.0, 0.0)
        self.rate = 0.0
        self.cpu_us = 0.0  #: of this thread, for each
        self.done = asyncio.Event()

    def took(self, count: int = 1) -> None:
        if not self._seen:
            self._began = (time.perf_counter(), time.thread_time())
        self._seen += count
        if self._seen >= self._count and not self.done.is_set():
            wall, cpu = self._began
            self.rate = (self._seen - 1) / (time.perf_counter() - wall)
            self.cpu_us = (time.thread_time() - cpu) / self._seen * 1e6
            self.done.set()


async def _ours(bus: Bus, broker: Broker, count: int) -> Meter:
    """Read with a source; what is stored is checked and removed."""
    before = (await bus.js.stream_info("EVENTS")).state.last_seq
    meter = Meter(count)
    number = f"{uuid.uuid4().hex}.{{{{ body.n }}}}"  # in each round others, as the stream drops what it knows
    source = Source.model_validate({"name": "orders", "read": broker.read, "map": {**MAP, "id": number}})
    translator = SourceTranslator(source)

    async def publish(event: Event) -> Ack:
        ack = await bus.publish(event)
        meter.took()
        return ack

    async def keep_aside(*found: Any) -> None:
        raise SystemExit(f"a message became no event: {found}")

    runner = SourceRunner(
        bus,
        lambda: {"orders": translator},
        publish=publish,
        resolve_secret=lambda reference: KEY,
        metrics=Metrics(version="benchmark"),
        keep_aside=keep_aside,
        reports=ReaderReports(bus, member="benchmark", host="benchmark", redact=str),
        member="benchmark",
        host="benchmark",
    )
    await _until_done(runner.run(), meter, broker)
    info = await bus.js.stream_info("EVENTS")
    numbers = []
    for seq in range(before + 1, info.state.last_seq + 1):
        numbers.append(int(orjson.loads((await bus.js.get_msg("EVENTS", seq)).data or b"")["payload"]["n"]))
    if sorted(numbers) != list(range(count)):
        raise SystemExit(f"{count} messages became {len(numbers)} events, {len(set(numbers))} different ones")
    await bus.js.purge_stream("EVENTS")
    return meter


async def _bare(broker: Broker, count: int) -> Meter:
    meter = Meter(count)
    await _until_done(broker.consume(meter.took), meter, broker)
    return meter


async def _until_done(work: Awaitable[None], meter: Meter, broker: Broker) -> None:
    task, waited = asyncio.ensure_future(work), asyncio.ensure_future(meter.done.wait())
    try:
        async with asyncio.timeout(WAIT_S):
            await asyncio.wait({task, waited}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            while await broker.left():
                await asyncio.sleep(0.1)
    finally:
        await end_task(task, waited)
    if left := await broker.left():
        raise SystemExit(f"{left} messages are not acknowledged")


async def compare(broker: Broker, bus: Bus, count: int, rounds: int) -> dict[str, Any]:
    ours: list[Meter] = []
    bare: list[Meter] = []
    for number in range(rounds + 1):
        size = min(count, broker.most if number else 500)  # the first round warms up
        await broker.fill(size)
        theirs = await _bare(broker, size)
        await broker.fill(size)
        mine = await _ours(bus, broker, size)
        if number:
            bare.append(theirs)
            ours.append(mine)
    return {
        "messages": min(count, broker.most),
        "events_per_s": round(statistics.median(each.rate for each in ours)),
        "bare_per_s": round(statistics.median(each.rate for each in bare)),
        "share": round(statistics.median(mine.rate / theirs.rate for mine, theirs in zip(ours, bare, strict=True)), 2),
        "cpu_us": round(statistics.median(each.cpu_us for each in ours)),
        "bare_cpu_us": round(statistics.median(each.cpu_us for each in bare)),
    }


async def measure(count: int, rounds: int, wanted: list[str]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    with folder() as scratch:
        data = scratch / "bus"
        async with bed(data) as bus:
            for name in wanted:
                with contextlib.ExitStack() as stack:
                    broker = open_broker(name, scratch, stack, bus, embedded_url(data))
                    if broker is not None:
                        figures[name] = await compare(broker, bus, count, rounds)
    return {"benchmark": "sources", **machine(), "rounds": rounds, "figures": figures}


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("brokers", nargs="*", default=list(BROKERS), metavar="BROKER")
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if unknown := set(given.brokers) - set(BROKERS):
        parser.error(f"no broker is named {', '.join(sorted(unknown))}; there are {', '.join(BROKERS)}")
    print(json.dumps(main_loop(measure(given.messages, given.rounds, given.brokers))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
