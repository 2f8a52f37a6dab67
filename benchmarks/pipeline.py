"""Events a second from the stream to the commit, beside Prefect's evaluator, and with 10,000 automations beside 10.

    python -m benchmarks.pipeline [--events 60000] [--rounds 3] [--peer-events 150] [--no-peer]

One process reads `EVENTS`, evaluates and commits, as a server does, against a nats-server of its own; the clock runs
from the start of the shard until the last event is committed. The workloads:

    windowed         one window for each key over 200 keys, a threshold that is never reached, with Prefect's buckets
                     (`tumbling`, the semantics of the peer) and with exact windows (`sliding`, the default, which
                     remembers each event)
    windowed_wide    the same exact windows over 20,000 keys: nearly every event changes another window
    fires            each event fires one action; the firing and its task are committed
    of_10, of_10000  the `windowed` trigger for each of so many values of a label

What was committed is read back and compared with what had to come out: every window's count of events, every firing, every
task. Rounds alternate between the workloads and the peer, which runs its own benchmark on its default database; medians are
reported. The peer evaluates events that are in memory already and has one window; it commits to a file, too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import orjson

from benchmarks._shared import bed, fill, machine, main_loop, prefect_python, prefect_rates, upload
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.streams import ENGINE, EVENTS
from whenthen.engine.evaluation.commits.commit import FencedShardLog
from whenthen.engine.evaluation.nats_log import NatsEngineStore, nats_shard_loop
from whenthen.engine.metrics import Metrics
from whenthen.engine.process.observation import Observation
from whenthen.schemas.automations import Automation
from whenthen.triggers.evaluator import Evaluator
from whenthen.triggers.rule_set import RuleSet
from whenthen.triggers.trees.trigger_compiler import compile_automation

__all__ = ["main"]

#: the goals: times the peer's rate, and the rate with 10,000 automations as a share of that with 10
WINDOWED_TIMES = 300.0
FIRES_TIMES = 100.0
MANY_SHARE = 0.7

KEYS = 200
WIDE = 20_000
WORKLOADS = ("windowed", "windowed_sliding", "windowed_wide", "fires", "of_10", "of_10000")


def rules(workload: str) -> list[dict[str, Any]]:
    """The automations of a workload, as YAML would give them."""
    windowed = {
        "expect": "s3.file.uploaded",
        "threshold": 100_000,
        "within": "1h",
        "window": "tumbling",
        "for_each": ["bucket"],
    }
    sliding = {**windowed, "window": "sliding"}
    acts = [{"do-nothing": {}}]
    if workload == "windowed":
        return [{"name": "windowed", "trigger": windowed, "actions": acts}]
    if workload in ("windowed_sliding", "windowed_wide"):
        return [{"name": "windowed", "trigger": sliding, "actions": acts}]
    if workload == "fires":
        return [{"name": "fires", "trigger": {"expect": "s3.file.uploaded"}, "actions": acts}]
    count = int(workload.removeprefix("of_"))
    return [
        {"name": f"one-{n}", "trigger": {**windowed, "match": {"bucket": f"bucket-{n}"}}, "actions": acts}
        for n in range(count)
    ]


def keys_of(workload: str) -> int:
    return WIDE if workload == "windowed_wide" else 10 if workload in ("of_10", "of_10000") else KEYS


async def run(bus: Bus, workload: str, rule_set: RuleSet, events: int, shard: int) -> float:
    """Evaluate what the stream holds under `workload`; the seconds from start to the last commit."""
    metrics = Metrics(version="0")
    observation = Observation(metrics)
    loop = nats_shard_loop(bus, shard, Evaluator(rule_set), observer=observation)
    last = (await bus.js.stream_info(EVENTS)).state.last_seq
    began = time.perf_counter()
    task = asyncio.create_task(loop.run())
    while loop.committed < last:
        if task.done():
            task.result()
        if time.perf_counter() > began + 300:
            raise SystemExit(f"{workload}: {loop.committed} of {last} after 300 s")
        await asyncio.sleep(0.002)
    seconds = time.perf_counter() - began
    loop.stop()
    await task
    await verify(bus, workload, events, shard)
    return seconds


async def verify(bus: Bus, workload: str, events: int, shard: int) -> None:
    """Fail unless what lies in `ENGINE` is what had to come out."""
    counted: dict[tuple[str, str], int] = {}

    def window(trigger: str, key: str, state: bytes) -> None:
        value = orjson.loads(state) if state else []
        if "~" not in trigger and not trigger.startswith("@"):  # windows, not records of the shard
            counted[(trigger, key)] = count_in(workload, value)

    await FencedShardLog(NatsEngineStore(bus.client), shard).load(window)
    if workload == "fires":
        found = (await bus.js.stream_info(ENGINE, subjects_filter="engine.firing.>")).state.subjects or {}
        tasks = (await bus.js.stream_info(ENGINE, subjects_filter="engine.action.>")).state.subjects or {}
        if not len(found) == len(tasks) == events:
            raise SystemExit(f"fires: {len(found)} firings and {len(tasks)} tasks of {events} events")
        await bus.js.purge_stream(ENGINE, subject="engine.firing.>")
        await bus.js.purge_stream(ENGINE, subject="engine.action.>")
        return
    total = sum(counted.values())
    if total != events or len(counted) != keys_of(workload):
        raise SystemExit(f"{workload}: {total} events counted in {len(counted)} windows, sent {events}")


def count_in(workload: str, state: list[Any]) -> int:
    """How many events a stored window has counted."""
    if workload in ("windowed_sliding", "windowed_wide"):
        return (len(state) - 4) // 3
    return int(state[3])


async def measure(events: int, rounds: int, peer: Callable[[], dict[str, float]] | None) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {workload: [] for workload in WORKLOADS}
    peers: dict[str, list[float]] = {}
    sets = {
        workload: RuleSet([compile_automation(Automation.model_validate(rule)) for rule in rules(workload)])
        for workload in WORKLOADS
    }
    shard = 0
    for _ in range(rounds):
        for keys in (KEYS, WIDE, 10):
            async with bed() as bus:
                await fill(bus, (upload(n, bucket=f"bucket-{n * 7919 % keys}") for n in range(events)))
                for workload in WORKLOADS:
                    if keys_of(workload) == keys:
                        shard += 1
                        seconds[workload].append(await run(bus, workload, sets[workload], events, shard))
        if peer is not None:
            for name, rate in (await asyncio.to_thread(peer)).items():
                peers.setdefault(name, []).append(rate)
    rate = {workload: events / statistics.median(taken) for workload, taken in seconds.items()}
    report: dict[str, Any] = {
        "benchmark": "pipeline",
        **machine(),
        "events": events,
        "rounds": rounds,
        "keys": {workload: keys_of(workload) for workload in WORKLOADS},
        "events_per_s": {workload: round(value) for workload, value in rate.items()},
        "of_10000_share": round(
            statistics.median(a / b for a, b in zip(seconds["of_10"], seconds["of_10000"], strict=True)), 2
        ),
    }
    holds = report["of_10000_share"] >= MANY_SHARE
    if peers:
        ours = {"windowed_not_firing": "windowed", "each_fires_one_action": "fires"}
        report["peer_events_per_s"] = {name: round(statistics.median(rates), 1) for name, rates in peers.items()}
        times = {
            workload: statistics.median(
                events / mine / theirs for mine, theirs in zip(seconds[workload], peers[name], strict=True)
            )
            for name, workload in ours.items()
        }
        times["windowed_sliding"] = rate["windowed_sliding"] / statistics.median(peers["windowed_not_firing"])
        times["windowed_wide"] = rate["windowed_wide"] / statistics.median(peers["windowed_not_firing"])
        report["times_the_peer"] = {workload: round(value) for workload, value in times.items()}
        report["limits"] = {"windowed": WINDOWED_TIMES, "fires": FIRES_TIMES, "of_10000_share": MANY_SHARE}
        holds = holds and times["windowed"] >= WINDOWED_TIMES and times["fires"] >= FIRES_TIMES
    else:
        report["absent"] = "prefect; `make peers` installs it"
    report["holds"] = holds
    return report


def main() -> int:
    """Print the figures; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-events", type=int, default=150)
    parser.add_argument("--no-peer", action="store_true")
    given = parser.parse_args()
    python = None if given.no_peer else prefect_python()
    peer = None if python is None else lambda: prefect_rates(python, given.peer_events)
    report = main_loop(measure(given.events, given.rounds, peer))
    print(json.dumps(report))
    return 0 if report["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
