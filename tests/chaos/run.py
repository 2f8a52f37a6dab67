"""One crash test from beginning to end: load and kills at the same time, quiet, verdict."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import orjson

from tests.chaos.history_verdict import judge_histories
from tests.chaos.house import House
from tests.chaos.killer import kill_at_random
from tests.chaos.oracle import Oracle
from tests.chaos.scenario import deliveries
from tests.chaos.sender import Sender
from tests.chaos.verdict import Found, judge, look, unfinished
from whenthen.engine.bus.connection import Bus
from whenthen.rules import load_rules
from whenthen.schemas.errors import BusUnavailable

__all__ = ["run_chaos"]


async def run_chaos(
    folder: Path,
    form: str,
    seed: int,
    *,
    kills: int,
    every_s: float,
    rate: float,
    until_s: float,
    settle_s: float = 600.0,
    hung: int = 0,
    window_bytes: int | None = None,
) -> dict[str, Any]:
    """Load and kill for at most `until_s`, and give the summary; its `faults` are the promises that were broken. `hung` events of the
    load hang whoever evaluates them. A window
    grows beyond `window_bytes`, or None: beyond a message of the server, and firings name a thousand events."""
    async with House(folder, form, hanging=hung > 0) as house:
        sender = Sender(house.url, seed)
        wanted_bytes = house.max_payload if window_bytes is None else window_bytes
        killed = asyncio.Event()
        sending = asyncio.create_task(
            sender.run(deliveries(seed, rate, hung=hung, hoard_bytes=wanted_bytes * 9 // 8), killed.is_set)
        )
        killing = asyncio.create_task(
            kill_at_random(
                house,
                seed,
                kills=kills,
                every_s=every_s,
                progress=lambda: len(sender.sent.taken),
                until_s=until_s,
            )
        )
        try:
            await asyncio.wait([sending, killing], return_when=asyncio.FIRST_COMPLETED)
            killed.set()
            sent = await sending
            blackouts = await killing
        finally:
            for task in (sending, killing):
                task.cancel()
            await asyncio.wait([sending, killing])
        began = time.monotonic()
        await house.ready()
        bus = Bus(house.nats_url)
        await bus.connect(timeout_s=60)
        try:
            oracle = Oracle(load_rules(house.rules), house.shards)
            found = await _quiet(bus, oracle, house.shards, settle_s)
            rows, differs = await judge_histories(bus, oracle, found, house.histories)
        finally:
            await bus.close()
        faults = judge(house, oracle, found, sent) + differs
        # of so much that chance can not have given it all to one of two
        busy = len(found.outcomes) > 100 and len(found.runs) > 30
        hangs = [one for one in sent.taken if "-hangs-" in one]
        if len({position for _, position in oracle.passed_over}) != len(hangs):
            faults.append(f"of the events {hangs}, which hang, {sorted(oracle.passed_over)} were set aside")
        largest = max(found.windows.values(), default=0)
        if largest <= wanted_bytes and wanted_bytes:
            faults.append(f"the largest window in parts has {largest} bytes, not more than {wanted_bytes}")
        faults += [f"{name} did nothing of what it shares" for name, did in house.shared().items() if busy and not did]
        return {
            "form": form,
            "seed": seed,
            "kills": {**house.kills(), "in_all": sum(house.kills().values()), "everything_at_once": blackouts},
            "deliveries": sent.deliveries,
            "requests": sent.requests,
            "redeliveries": sent.repeated,
            "retried_without_answer": sent.retried,
            "events_in_stream": sum(oracle.event_ids.values()),
            "firings": dict(sorted(Counter(one["automation"] for one in oracle.firings.values()).items())),
            "set_aside": len(oracle.passed_over),
            "actions": len(oracle.actions),
            "rule_changes": house.rule_changes,
            "roll_outs": house.roll_outs,
            "revisions": oracle.number,
            "largest_window_bytes": largest,
            "largest_firing_bytes": max((len(orjson.dumps(one)) for one in found.firings.values()), default=0),
            "requests_received": len(house.called()),
            "histories": list(house.histories),
            "history_rows": rows,
            "runs": len(found.runs),
            "runs_tried_again": sum(run["attempt"] > 1 for run in found.runs.values()),
            "shared": house.shared(),
            "longest_without_2xx_s": round(sent.gap_s, 2),
            "longest_delivery_s": round(sent.longest_s, 2),
            "settled_after_s": round(time.monotonic() - began, 1),
            # such as one that was starting when NATS went away; it is started again like one that was killed
            "ended_by_themselves": house.ended_by_themselves(),
            "faults": faults,
        }


async def _quiet(bus: Bus, oracle: Oracle, shards: int, limit_s: float) -> Found:
    """Wait until nothing is under way and nothing more comes, at most `limit_s`; the verdict names what is left."""
    deadline = time.monotonic() + limit_s
    before = -1
    found = Found()
    while True:
        try:
            await oracle.follow(bus)
            found = await look(bus, shards)
        except BusUnavailable:  # an event that hangs is reached only now, and takes the embedded server along
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.5)
            continue
        left = unfinished(oracle, found)
        if not left and oracle.seq == before:
            return found
        if time.monotonic() > deadline:
            return found
        before = -1 if left else oracle.seq
        await asyncio.sleep(0.5)
