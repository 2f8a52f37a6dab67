"""From a webhook request to its performed action, beside a bare JetStream publish to its delivery, at the same rate.

    python -m benchmarks.latency [--seconds 60] [--rate 300] [--slice 5]

`whenthen serve` runs as a process with its embedded nats-server: a webhook becomes an event, an automation fires for each and
calls a webhook. A load process sends the requests and receives the calls; in turns of `--slice` seconds it publishes to a
stream of the same nats-server instead, and takes the messages from a consumer. Both follow one timetable at `--rate` a second,
and every latency counts from the moment at which the request was due, not from when it could be sent (so what waits behind
a slow answer is slow, too). One second of each turn warms up and does not count; both do `--seconds` in all.

Checked: every request was answered 202 and performed, every message came.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import nats
import orjson
from nats.aio.msg import Msg
from nats.js.api import StorageType, StreamConfig

from benchmarks._shared import ROOT, ServerProcess, folder, free_port, machine, main_loop, percentile

__all__ = ["main"]

#: the goals: times the bare publish-to-delivery
P50_TIMES = 12.0
P99_TIMES = 18.0

WARM_S = 1.0
LATE_S = 60.0  #: what is not there by then is lost

RULES = """
webhooks:
  - name: orders
    verify: none
    map:
      event: order.paid
      resource: {{id: "order.{{{{ body.order }}}}"}}
      payload: $.body

automations:
  - name: tell
    trigger: {{expect: order.paid}}
    actions:
      - call-webhook: http://127.0.0.1:{port}/calls
        body: {{order: $.payload.order}}
"""


class Watch:
    """When each number was due, and how long after that it arrived."""

    def __init__(self) -> None:
        self.due: dict[int, float] = {}
        self.took: dict[int, float] = {}
        self.counted: list[float] = []

    def arrived(self, number: int) -> None:
        if number not in self.took:
            self.took[number] = time.monotonic() - self.due[number]

    async def all(self, what: str) -> None:
        deadline = time.monotonic() + LATE_S
        while len(self.took) < len(self.due):
            if time.monotonic() > deadline:
                raise SystemExit(f"{what}: {len(self.due) - len(self.took)} of {len(self.due)} never came")
            await asyncio.sleep(0.01)


class Caller(asyncio.Protocol):
    """A kept connection to the server; many wait in a pool."""

    def __init__(self, pool: list[Caller]) -> None:
        self._pool = pool
        self._buffer = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        if not head.startswith(b"HTTP/1.1 202"):
            raise SystemExit(f"answered {self._buffer!r}")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) >= length:
            self._buffer = b""
            self._pool.append(self)


class Receiver(asyncio.Protocol):
    """Takes the calls of the action and answers 200."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._buffer = b""
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self._buffer = b""
        self._watch.arrived(orjson.loads(body)["order"])
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")


async def timetable(
    watch: Watch, rate: float, seconds: float, first: int, send: Callable[[int], Awaitable[None]]
) -> int:
    """Call `send` for each number when it is due; gives the next free number."""
    count = int((WARM_S + seconds) * rate)
    began = time.monotonic() + 0.05
    pending: set[asyncio.Task[None]] = set()
    for index in range(count):
        due = began + index / rate
        watch.due[first + index] = due
        left = due - time.monotonic()
        if left > 0:
            await asyncio.sleep(left)
        task = asyncio.ensure_future(send(first + index))
        pending.add(task)
        task.add_done_callback(pending.discard)
    while pending:
        await asyncio.wait(pending)
    await watch.all("latency")
    warm = first + int(WARM_S * rate)
    watch.counted += [watch.took[number] for number in range(warm, first + count)]
    return first + count


async def drive(url: str, nats_url: str, port: int, rate: float, seconds: float, slice_s: float) -> dict[str, Any]:
    """The load process: its report."""
    loop = asyncio.get_running_loop()
    ours, bare = Watch(), Watch()
    await loop.create_server(lambda: Receiver(ours), "127.0.0.1", port)
    host, _, http_port = url.removeprefix("http://").partition(":")
    pool: list[Caller] = []
    head = f"POST /hooks/orders HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: "

    def body(number: int) -> bytes:
        return orjson.dumps({"order": number, "status": "paid", "country": "de", "total": 129.5, "note": "x" * 120})

    async def call(number: int) -> None:
        caller = pool.pop() if pool else None
        if caller is None or caller.transport is None or caller.transport.is_closing():
            _, caller = await loop.create_connection(lambda: Caller(pool), host, int(http_port))
        assert caller.transport is not None
        data = body(number)
        caller.transport.write(f"{head}{len(data)}\r\n\r\n".encode() + data)

    nc = await nats.connect(nats_url)
    js = nc.jetstream()
    await js.add_stream(StreamConfig(name="BENCH", subjects=["bench.>"], storage=StorageType.FILE))

    async def take(message: Msg) -> None:
        bare.arrived(orjson.loads(message.data)["order"])

    await js.subscribe("bench.orders", cb=take, ordered_consumer=True)

    async def publish(number: int) -> None:
        await js.publish("bench.orders", body(number))

    done = 0.0
    numbers = {"ours": 0, "bare": 0}
    while done < seconds:
        part = min(slice_s, seconds - done)
        numbers["bare"] = await timetable(bare, rate, part, numbers["bare"], publish)
        numbers["ours"] = await timetable(ours, rate, part, numbers["ours"], call)
        done += part
    await nc.close()
    return {"ours": sorted(ours.counted), "bare": sorted(bare.counted)}


def measure(rate: float, seconds: float, slice_s: float) -> dict[str, Any]:
    with folder() as scratch:
        port = free_port()
        with ServerProcess(scratch, RULES.format(port=port)) as server:
            command = [sys.executable, "-m", "benchmarks.latency", "--drive", server.url, server.nats_url, str(port)]
            command += ["--seconds", str(seconds), "--rate", str(rate), "--slice", str(slice_s)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, cwd=ROOT)
        if done.returncode:
            raise SystemExit("the load process failed")
        found = json.loads(done.stdout)
    ours, bare = found["ours"], found["bare"]
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
    report: dict[str, Any] = {
        "benchmark": "latency",
        **machine(),
        "rate_per_s": rate,
        "seconds": seconds,
        "requests": len(ours),
    }
    report["webhook_to_action_ms"] = {name: round(1000 * percentile(ours, share), 2) for name, share in shares.items()}
    report["publish_to_delivery_ms"] = {
        name: round(1000 * percentile(bare, share), 2) for name, share in shares.items()
    }
    p50 = percentile(ours, 0.5) / percentile(bare, 0.5)
    p99 = percentile(ours, 0.99) / percentile(bare, 0.99)
    report["times"] = {"p50": round(p50, 1), "p99": round(p99, 1)}
    report["limits"] = {"p50": P50_TIMES, "p99": P99_TIMES}
    report["holds"] = p50 <= P50_TIMES and p99 <= P99_TIMES
    return report


def main() -> int:
    """Print the figures; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=300.0)
    parser.add_argument("--slice", type=float, default=5.0)
    parser.add_argument("--drive", nargs=3, metavar=("URL", "NATS", "PORT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.drive:
        url, nats_url, port = given.drive
        print(json.dumps(main_loop(drive(url, nats_url, int(port), given.rate, given.seconds, given.slice))))
        return 0
    report = measure(given.rate, given.seconds, given.slice)
    print(json.dumps(report))
    return 0 if report["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
