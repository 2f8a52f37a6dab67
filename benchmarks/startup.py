"""From the command to ready: with 10 rules, with 10,000 rules, and with a million stored windows.

    python -m benchmarks.startup [--rounds 3] [--windows 1000000]

`whenthen serve` is started as a process with its embedded nats-server and asked until `/readyz` says yes. With 10,000 rules it
may take longer than with 10 by what the loading benchmark measures for them, in turns; medians are compared. The windows are stored as the evaluator
writes them and then loaded by a server.

Checked: as many automations are in force as were written; after the restart one more event fires for a key whose window was
stored, and only for that one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks import loading
from benchmarks._shared import ROOT, ServerProcess, bed, machine, main_loop, memory_mb, wait_for
from whenthen.engine.bus.records import encode_window
from whenthen.engine.bus.streams import ENGINE
from whenthen.engine.bus.subjects import window_subject
from whenthen.engine.evaluation.commits.commit import FencedShardLog
from whenthen.engine.evaluation.nats_log import NatsEngineStore
from whenthen.schemas.automations import Automation
from whenthen.schemas.events import read_event
from whenthen.schemas.times import from_us
from whenthen.triggers.evaluator import Evaluator
from whenthen.triggers.rule_set import RuleSet
from whenthen.triggers.trees.trigger_compiler import compile_automation

__all__ = ["main"]

#: the goals, in seconds
FEW_S = 3.0
WINDOWS_S = 60.0

PAIR = {
    "name": "pair",
    "trigger": {"expect": "file.seen", "for_each": ["path"], "threshold": 2, "within": "6h"},
    "actions": [{"do-nothing": {}}],
}


def ready_s(rules: str, expected: int) -> float:
    """The time to ready of a fresh server."""
    with tempfile.TemporaryDirectory(prefix="whenthen-bench-") as name, ServerProcess(Path(name), rules) as server:
        found = httpx.get(f"{server.url}/api/status", timeout=30).json()["rules"]["automations"]
        if found != expected:
            raise SystemExit(f"{found} automations are in force, {expected} were written")
        return server.seconds_to_ready


def load_s(automations: int) -> float:
    """What the loading benchmark measures, in a fresh process as the server is one."""
    command = [sys.executable, "-m", "benchmarks.loading", "--automations", str(automations), "--rounds", "1"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    return float(json.loads(done.stdout)["load_and_index_s"])


def stored_window() -> tuple[str, list[bytes], int]:
    """The trigger of `PAIR`, its window after one event as the evaluator stores it, and the evaluator's clock."""
    evaluator = Evaluator(RuleSet([compile_automation(Automation.model_validate(PAIR))]))
    now_us = time.time_ns() // 1000
    data = {"event": "file.seen", "resource": {"id": "file", "path": "first"}}
    evaluator.process(read_event(data, now=from_us(now_us), source="api"), now_us)
    ((trigger, _, state),) = evaluator.drain()
    assert state is not None
    return trigger, [state], now_us


async def store_windows(data: Path, count: int) -> None:
    """Fill a data directory: `count` windows, and an offset that covers them."""
    trigger, (state,), now_us = stored_window()
    async with bed(data) as bus:
        for number in range(count):
            key = f"/incoming/{number}.csv"
            await bus.nc.publish(window_subject(0, trigger, key), encode_window(trigger, key, state))
            if number % 2000 == 0:
                await bus.nc.flush(timeout=60)
        await bus.nc.flush(timeout=60)
        while (await bus.js.stream_info(ENGINE)).state.messages < count:
            await asyncio.sleep(0.1)
        log = FencedShardLog(NatsEngineStore(bus.client), 0)
        await log.commit([], seq=0, clock_us=now_us)


def restart(windows: int) -> dict[str, Any]:
    """Start on so many windows, and see that they are there."""
    with tempfile.TemporaryDirectory(prefix="whenthen-bench-") as name:
        main_loop(store_windows(Path(name) / "data", windows))
        server = ServerProcess(Path(name), json.dumps({"automations": [PAIR]}))
        server.start(timeout_s=300)
        try:
            report = {
                "windows": windows,
                "seconds_to_ready": round(server.seconds_to_ready, 2),
                "memory_mb": memory_mb(server.pid),
            }
            with httpx.Client(base_url=server.url, timeout=30) as client:
                for path in (f"/incoming/{windows // 2}.csv", "/incoming/never-seen.csv"):
                    event = {"event": "file.seen", "resource": {"id": "file", "path": path}}
                    client.post("/api/events", json=event).raise_for_status()

                def fired() -> list[Any]:
                    return [item["key"] for item in client.get("/api/firings").json()]

                wait_for(lambda: bool(fired()), "the firing of a stored window")
                if fired() != [{"path": f"/incoming/{windows // 2}.csv"}]:
                    raise SystemExit(f"fired for {fired()}")
        finally:
            server.stop()
    return report


def measure(rounds: int, windows: int) -> dict[str, Any]:
    ready_s(loading.rules_text(10), 10)  # compiles the bytecode
    few, many, loaded = [], [], []
    for _ in range(rounds):
        few.append(ready_s(loading.rules_text(10), 10))
        many.append(ready_s(loading.rules_text(10_000), 10_000))
        loaded.append(load_s(10_000))
    longer = statistics.median(with_many - with_few for with_many, with_few in zip(many, few, strict=True))
    limit = statistics.median(loaded)
    restarted = restart(windows)
    return {
        "benchmark": "startup",
        **machine(),
        "rounds": rounds,
        "ready_with_10_rules_s": round(statistics.median(few), 2),
        "ready_with_10000_rules_s": round(statistics.median(many), 2),
        "loading_10000_rules_s": round(limit, 2),
        "longer_s": round(longer, 2),
        "restart": restarted,
        "limits": {"ready_with_10_rules_s": FEW_S, "longer_s": round(limit, 2), "restart_s": WINDOWS_S},
        "holds": statistics.median(few) < FEW_S and longer <= limit and restarted["seconds_to_ready"] < WINDOWS_S,
    }


def main() -> int:
    """Print the figures; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--windows", type=int, default=1_000_000)
    given = parser.parse_args()
    report = measure(given.rounds, given.windows)
    print(json.dumps(report))
    return 0 if report["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
