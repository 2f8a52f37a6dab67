"""What was stored, called and run, compared with what must have been. One line a fault; none when all promises held."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from tests.chaos.house import House
from tests.chaos.oracle import Oracle, read_stream
from tests.chaos.processes import lines_of
from tests.chaos.sender import Sent
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.records import Outcome, decode_window
from whenthen.engine.bus.streams import DECISIONS, ENGINE, RUN_STATES, RUNS
from whenthen.engine.decisions import RECORDS, DecisionReader
from whenthen.engine.evaluation.commits.fenced_offset import read_offset
from whenthen.engine.evaluation.nats_log import NatsEngineStore
from whenthen.schemas.decision_records import DecisionBatch
from whenthen.schemas.deployments import TERMINAL, RunState

__all__ = ["Found", "judge", "look", "named", "unfinished"]

_SHOWN = 5


@dataclass(slots=True)
class Found:
    """What is in the streams."""

    firings: dict[str, dict[str, Any]] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)  #: action tasks that nobody ended
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    dead: list[str] = field(default_factory=list)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)  #: by id, as they are now
    queued: int = 0
    unannounced: int = 0  #: changes of runs that no event tells of yet
    offsets: list[int] = field(default_factory=list)
    decided: Counter[tuple[str, str]] = field(default_factory=Counter)  #: decisions on record, by automation and reason
    windows: dict[str, int] = field(default_factory=dict)  #: bytes of each that is in parts, by its subject


async def look(bus: Bus, shards: int) -> Found:
    """Read everything that a verdict needs."""
    found = Found()
    async for message in read_stream(bus, ENGINE, "engine.firing.>"):
        firing = orjson.loads(message.data)
        found.firings[firing["id"]] = firing
    async for message in read_stream(bus, ENGINE, "engine.outcome.>"):
        outcome = Outcome.decode(message.data)
        found.outcomes[outcome.key] = outcome
    async for message in read_stream(bus, ENGINE, "engine.action.>"):
        task = orjson.loads(message.data) if message.data else None
        # a task whose outcome is final lies there only until it expires
        if task is not None and not (task["key"] in found.outcomes and found.outcomes[task["key"]].final):
            found.waiting.append(task["key"])
    async for message in read_stream(bus, ENGINE, "engine.dead.>"):
        if message.data:
            found.dead.append(message.subject)
    async for message in read_stream(bus, f"KV_{RUN_STATES}", f"$KV.{RUN_STATES}.>"):
        if message.data:
            run = orjson.loads(message.data)
            found.runs[run["id"]] = run
    async for message in read_stream(bus, ENGINE, "engine.shard.*.window.>"):
        if message.data.startswith(b'{"parts":'):
            found.windows[message.subject] = orjson.loads(message.data.partition(b"\n")[0])["bytes"]
    found.queued = (await bus.js.stream_info(RUNS)).state.messages
    announcer = await bus.js.consumer_info(f"KV_{RUN_STATES}", "announcer")
    found.unannounced = (announcer.num_pending or 0) + (announcer.num_ack_pending or 0)
    found.offsets = [(await read_offset(NatsEngineStore(bus.client), shard)).seq for shard in range(shards)]
    found.decided = await _decided(bus)
    return found


def unfinished(oracle: Oracle, found: Found) -> list[str]:
    """What is still under way."""
    left = []
    if oracle.next_deadline_us() is not None:
        left.append("a deadline is to come")
    for shard, seq in oracle.last_of_shard.items():
        if found.offsets[shard] < seq:
            left.append(f"shard {shard} is at {found.offsets[shard]} of {seq}")
    open_runs = [run for run in found.runs.values() if RunState(run["state"]) not in TERMINAL]
    for what, count in (
        # a deadline that an event of another shard has brought here is brought there by a tick
        ("firings are to come", len(oracle.firings.keys() - found.firings.keys())),
        ("actions wait", len(found.waiting)),
        ("runs have not ended", len(open_runs)),
        ("runs are queued", found.queued),
        ("changes of runs are not announced", found.unannounced),
    ):
        if count:
            left.append(f"{count} {what}")
    return left


def judge(house: House, oracle: Oracle, found: Found, sent: Sent) -> list[str]:
    """Every promise that was not kept."""
    faults = [f"stuck: {what}" for what in unfinished(oracle, found)]
    faults += [f"refused: {answer}" for answer in sent.refused[:_SHOWN]]
    faults += [f"dead letter: {subject}" for subject in found.dead[:_SHOWN]]
    faults += _events(oracle, sent)
    faults += _firings(oracle, found)
    faults += _decisions(oracle, found)
    faults += _actions(house, oracle, found)
    faults += _runs(house.runs, oracle, found)
    return faults


def _events(oracle: Oracle, sent: Sent) -> list[str]:
    twice = [event for event, count in oracle.event_ids.items() if count > 1]
    return [
        *named("taken with 2xx but not in the stream", sent.event_ids - set(oracle.event_ids)),
        *named("more than once in the stream", twice),
    ]


def _firings(oracle: Oracle, found: Found) -> list[str]:
    expected, stored = oracle.firings, found.firings
    other = [
        f"{name} ({key} is {stored[name].get(key)!r}, must be {value!r})"
        for name in expected.keys() & stored.keys()
        if expected[name] != stored[name]
        for key, value in expected[name].items()
        if stored[name].get(key) != value
    ]
    return [
        *named("fired twice in the replay", oracle.doubled),
        *named(
            "firings missing", [f"{name} of {expected[name]['automation']}" for name in expected.keys() - stored.keys()]
        ),
        *named(
            "firings too many", [f"{name} of {stored[name]['automation']}" for name in stored.keys() - expected.keys()]
        ),
        *named("firings that differ", other),
    ]


async def _decided(bus: Bus) -> Counter[tuple[str, str]]:
    """The counts on record of every automation that has any."""
    reader, found = DecisionReader(bus), Counter[tuple[str, str]]()
    names: set[tuple[int, str]] = set()
    async for message in read_stream(bus, ENGINE, f"engine.shard.*.window.{RECORDS}.*"):
        if message.data:
            names.add((int(message.subject.split(".")[2]), decode_window(message.data)[1]))
    async for message in read_stream(bus, DECISIONS):
        batch = DecisionBatch.decode(message.data)
        names |= {(batch.shard, name) for name in batch.counts}
    for shard, name in names:
        kept = await reader.kept(shard, name)
        found.update({(name, str(reason)): count for reason, count in kept.counts.items()})
    return found


def _decisions(oracle: Oracle, found: Found) -> list[str]:
    expected = oracle.decided
    wrong = [pair for pair in expected.keys() | found.decided.keys() if expected[pair] != found.decided[pair]]
    return [
        f"{name} decided {reason} {expected[name, reason]} times in the replay, and {found.decided[name, reason]} times on record"
        for name, reason in sorted(wrong)[:_SHOWN]
    ]


def _actions(house: House, oracle: Oracle, found: Found) -> list[str]:
    called = {key for _, key in house.called()}
    calls = {key for key, (_, action) in oracle.actions.items() if action["type"] == "call-webhook"}
    done = {key for key, outcome in found.outcomes.items() if outcome.state == "executed"}
    return [
        *named("action keys that never reached their receiver", calls - called),
        *named("keys received that no firing explains", called - calls),
        *named("actions without the outcome executed", oracle.actions.keys() - done),
        *named("outcomes that no firing explains", found.outcomes.keys() - oracle.actions.keys()),
    ]


def _runs(log: Path, oracle: Oracle, found: Found) -> list[str]:
    keys = {key for key, (_, action) in oracle.actions.items() if action["type"] == "run-deployment"}
    by_key = Counter(run["key"] for run in found.runs.values())
    tries = Counter((line.split()[0], int(line.split()[1])) for line in lines_of(log))
    executed = Counter(run for run, _ in tries)
    unfinished_runs = [
        f"{run['id']} is {run['state']}: {run['message']}" for run in found.runs.values() if run["state"] != "Completed"
    ]
    once = [run["id"] for run in found.runs.values() if run["attempt"] == 1 and executed[run["id"]] != 1]
    return [
        *named("firings without a run", keys - by_key.keys()),
        *named("runs that no firing explains", by_key.keys() - keys),
        *named("keys with several runs", [key for key, count in by_key.items() if count > 1]),
        *named("runs that are not completed", unfinished_runs),
        *named("tries that were executed twice", [f"{one}" for one, count in tries.items() if count > 1]),
        *named("runs of one try that were not executed once", once),
        *named("completed runs that were never executed", found.runs.keys() - executed.keys()),
        *named("executions of unknown runs", executed.keys() - found.runs.keys()),
    ]


def named(what: str, items: Any) -> list[str]:
    """A fault that says how many there are, and some of them; none when there are none."""
    names = sorted(map(str, items))
    if not names:
        return []
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [f"{len(names)} {what}: {', '.join(names[:_SHOWN])}{more}"]
