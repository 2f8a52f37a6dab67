"""Memory while a server reads and evaluates a backlog of a million events.

    python -m benchmarks.backlog [--events 1000000]

The events lie in the stream when `whenthen serve` starts: a server that was away. They count in windows of 1,000 keys, and each
hundredth of a key fires. The resident memory of the server and of its nats-server is read twice a second until the last event is
committed.

Checked: the shard is at the last event, and as many firings are stored as the events ask for. Bounded means: between
a quarter of the backlog and its end the server's memory grows by less than `GROWTH_MB`; and the last quarter is read at no less
than `PACE` of the rate of the first, so that nothing that is remembered makes the next event dearer.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks._shared import ServerProcess, bed, fill, machine, main_loop, memory_mb, upload
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.streams import ENGINE, EVENTS

__all__ = ["main"]

#: the goal: what the server may grow by while it reads three quarters of the backlog
GROWTH_MB = 100.0

#: the goal: the rate of the last quarter, as a share of the first one's
PACE = 0.4

KEYS = 1000
THRESHOLD = 100
RULES = f"""
automations:
  - name: busy
    trigger:
      expect: s3.file.uploaded
      for_each: [bucket]
      threshold: {THRESHOLD}
      within: 6h
      cooldown: 0s
    actions:
      - do-nothing: {{}}
"""


async def prepare(data: Path, events: int) -> int:
    """Fill a data directory with the backlog; gives the last position."""
    async with bed(data) as bus:
        await fill(bus, (upload(number, bucket=f"bucket-{number % KEYS}") for number in range(events)))
        return int((await bus.js.stream_info(EVENTS)).state.last_seq)


async def firings(nats_url: str) -> int:
    bus = Bus(nats_url)
    await bus.connect()
    try:
        found = (await bus.js.stream_info(ENGINE, subjects_filter="engine.firing.>")).state.subjects or {}
        return len(found)
    finally:
        await bus.close()


def watch(server: ServerProcess, last: int) -> tuple[list[tuple[float, int, float, float]], float]:
    """Seconds, position, memory of the server and of nats-server, until the shard is at `last`."""
    samples = []
    began = time.monotonic()
    nats = int((server.data / "nats" / "pid").read_text())
    with httpx.Client(base_url=server.url, timeout=30) as client:
        while True:
            at = client.get("/api/status").json()["shards"].get("0", 0)
            samples.append((round(time.monotonic() - began, 1), at, memory_mb(server.pid), memory_mb(nats)))
            if at >= last:
                return samples, time.monotonic() - began
            if time.monotonic() > began + 900:
                raise SystemExit(f"at {at} of {last} after 900 s")
            time.sleep(0.5)


def measure(events: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="whenthen-bench-") as name:
        folder = Path(name)
        last = main_loop(prepare(folder / "data", events))
        with ServerProcess(folder, RULES, "--log-level", "warning") as server:
            samples, seconds = watch(server, last)
            deadline = time.monotonic() + 60
            while (stored := main_loop(firings(server.nats_url))) < events // KEYS // THRESHOLD * KEYS:
                if time.monotonic() > deadline:
                    break
                time.sleep(0.2)
    if stored != events // KEYS // THRESHOLD * KEYS:
        raise SystemExit(f"{stored} firings are stored of {events} events")
    early = max((memory for _, at, memory, _ in samples if at <= last / 4), default=samples[0][2])
    most = max(memory for _, _, memory, _ in samples)
    step = max(1, len(samples) // 20)
    marks = [next(at_s for at_s, at, *_ in samples if at >= last * quarter / 4) for quarter in range(5)]
    quarters = [round(events / 4 / (end - start)) for start, end in itertools.pairwise(marks)]
    return {
        "benchmark": "backlog",
        **machine(),
        "events": events,
        "firings": stored,
        "seconds": round(seconds, 1),
        "events_per_s": round(events / seconds),
        "events_per_s_by_quarter": quarters,
        "memory_mb": {
            "at_ready": samples[0][2],
            "first_quarter_max": early,
            "max": most,
            "nats_server_max": max(memory for *_, memory in samples),
        },
        "over_time": [{"s": at_s, "position": at, "mb": memory} for at_s, at, memory, _ in samples[::step]],
        "growth_mb": round(most - early, 1),
        "limits": {"growth_mb": GROWTH_MB, "pace": PACE},
        "holds": most - early < GROWTH_MB and quarters[-1] >= PACE * quarters[0],
    }


def main() -> int:
    """Print the figures; 1 when the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    given = parser.parse_args()
    report = measure(given.events)
    print(json.dumps(report))
    return 0 if report["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
