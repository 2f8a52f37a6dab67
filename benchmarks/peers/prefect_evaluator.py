"""Prefect's own trigger evaluator, driven in virtual time: what does Prefect answer to these events?

Runs inside an environment that has `prefect` (see requirements.txt) and imports nothing of whenthen, so the
answers are the peer's alone. Called by `make peers` and by whoever refreshes `tests/conformance`.

    prefect_evaluator.py [FILE]             answer cases (JSON lines; standard input without FILE)
    prefect_evaluator.py --variants [FILE]  also say which cases have no well-defined answer, and why
    prefect_evaluator.py --record OUT FILE  write cases with their answers as one JSON document
    prefect_evaluator.py --bench reactive|find_interested

A case is `{"automations": [...], "events": [...]}` with optional `name`, `class`, `note` and `sweep`.
Automations are what `prefect automation create` accepts; events are Prefect's JSON, or `{"tick": "<RFC 3339
time>"}`. An answer is `{"name", "firings": [...]}`; a firing has `automation`, `states`, `triggered`,
`line` (index of the input line during which it fired), `event` (id or null), `events` (ids of all child
firings, sorted), `key` (the bucketing key) and `labels`. A case with an automation that Prefect refuses answers
`{"name", "refused": "..."}`.

How time moves. There is one virtual clock. It starts at the first line's time and is the maximum of every
`occurred` and every tick seen so far, so an event that is late does not move it. Prefect reads it wherever
it would read the wall clock: `received`, `Firing.triggered`, the events clock, the proactive schedule, the
30 minutes for which an event id is remembered. Before a line is handled the clock is moved to it, and on
the way Prefect's two periodic jobs run: `evaluate_proactive_triggers` and then `periodic_evaluation` (lost
followers, forgetting buckets 60 s after their end). A server runs them every 5 s of wall time at a phase
nobody controls; here `sweep` says when:

    exact (default)  at the start, at each moment at which Prefect asked to look again, and at the line's
                     time: the limit of a server that sweeps ever more often
    tick             at tick lines only, once each: what a server with that sweep schedule would do

An event is then handed over as the service does it: an id that was seen is dropped, an event that arrived
before the one it `follows` waits inside Prefect. Triggers that one event matches are evaluated in declared
order, where Prefect takes them from a set in arbitrary order. Firings are recorded instead of published, so
`prefect.automation.triggered` events do not come back as input.

`--variants` (and `--record`) adds `unstable`, the reasons why an answer depends on what the case does not
say:

    order  reversing the order of matching triggers changes it
    phase  sweeping each second, whatever Prefect scheduled, changes it
    tie    two children of a sequence fired at one instant
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TextIO
from uuid import UUID, uuid4

SECOND = timedelta(seconds=1)
MOST_STOPS = 20_000  #: sweeps on the way to one line; more means that a case cannot end


def isolate(home: str) -> None:
    """Point Prefect at a throw-away home and database before it is imported; no server, no telemetry."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        del os.environ[name]
    os.environ.update(
        PREFECT_HOME=home,
        PREFECT_API_DATABASE_CONNECTION_URL=f"sqlite+aiosqlite:///{home}/prefect.db",
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        PREFECT_LOGGING_LEVEL="CRITICAL",
        PREFECT_LOGGING_SERVER_LEVEL="CRITICAL",
        PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY="false",
        DO_NOT_TRACK="1",
    )


class Peer:
    """Prefect's evaluator with its database, and the clock it reads."""

    def __init__(self) -> None:
        import prefect
        import prefect.types._datetime as prefect_time
        from prefect.server.database import provide_database_interface
        from prefect.server.events import triggers
        from prefect.server.events.ordering import memory
        from prefect.server.events.schemas import automations

        self.version: str = prefect.__version__
        self.time = prefect_time
        self.db = provide_database_interface()
        self.triggers = triggers
        self.ordering = memory
        self.schemas = automations
        self.clock: datetime = datetime(2026, 1, 1, tzinfo=UTC)
        self.line = 0
        self.firings: list[dict[str, Any]] = []
        self.reverse = False
        self.tied = False
        self._rank: dict[UUID, int] = {}
        self._find = triggers.find_interested_triggers
        self._act = triggers.act
        logging.disable(logging.CRITICAL)
        warnings.simplefilter("ignore")  # of Prefect's dependencies, about each other

    async def open(self) -> None:
        await self.db.create_db()

    # Cases

    def install(self) -> None:
        """Replace the clock, the order of candidates and the last step, acting, by ours."""
        self.time.now = lambda tz="UTC": self.time.create_datetime_instance(self.clock)
        self.triggers.find_interested_triggers = self._find_in_order
        self.triggers.act = self._record
        sequence = self.schemas.SequenceTrigger
        decide = sequence.ready_to_fire

        def ready_to_fire(trigger: Any, firings: Any) -> bool:
            moments = [firing.triggered for firing in firings]
            self.tied = self.tied or len(set(moments)) < len(moments)
            return bool(decide(trigger, firings))

        sequence.ready_to_fire = ready_to_fire

    def _find_in_order(self, event: Any) -> list[Any]:
        found = sorted(self._find(event), key=lambda trigger: self._rank[trigger.id])
        return found[::-1] if self.reverse else found

    async def _record(self, firing: Any) -> None:
        trigger = firing.trigger
        events: dict[str, None] = {}
        for event in firing.all_events():
            events.setdefault(str(event.id))
        labels = dict(firing.triggering_labels)
        self.firings.append(
            {
                "automation": trigger.automation.name,
                "states": sorted(state.value for state in firing.trigger_states),
                "triggered": stamp(firing.triggered),
                "line": self.line,
                "event": str(firing.triggering_event.id) if firing.triggering_event else None,
                "events": sorted(events),
                "key": [labels[name] for name in sorted(labels)],
                "labels": labels,
            }
        )

    async def answer(self, case: dict[str, Any], *, reverse: bool = False, ungated: bool = False) -> dict[str, Any]:
        """What Prefect fires for `case`. `ungated` sweeps each second, whatever Prefect scheduled."""
        lines = [(moment_of(line), line) for line in case["events"]]
        name = case.get("name", "")
        sweep = case.get("sweep", "exact")
        if sweep not in ("exact", "tick"):
            raise SystemExit(f'case {name!r}: sweep: found {sweep!r}; write "exact" or "tick"')
        self.clock, self.line, self.firings = lines[0][0], 0, []
        self.reverse, self.tied = reverse, False
        try:
            await self._load(case["automations"])
        except (ValueError, TypeError) as refusal:
            return {"name": name, "refused": " ".join(str(refusal).split())[:300]}
        if sweep == "exact":
            await self._sweep(ungated)
        for self.line, (moment, line) in enumerate(lines):
            if sweep == "exact":
                await self._walk(moment, ungated)
            self.clock = max(self.clock, moment)
            if "tick" not in line:
                await self._receive(line)
            elif sweep == "tick":
                await self._sweep(ungated)
        return {"name": name, "firings": self.firings}

    async def _load(self, specs: list[dict[str, Any]]) -> None:
        from prefect.events.schemas.automations import AutomationCore

        await self.triggers.reset()
        self.ordering.CausalOrdering.clear_all_scopes()
        ordering = self.ordering.CausalOrdering(scope="triggers")
        remembered = ordering._seen_events
        ordering._seen_events = type(remembered)(
            maxsize=remembered.maxsize, ttl=remembered.ttl, timer=lambda: self.clock.timestamp()
        )
        async with self.db.session_context(begin_transaction=True) as session:
            import sqlalchemy as sa

            for table in (
                self.db.AutomationBucket,
                self.db.AutomationHeldEvent,
                self.db.CompositeTriggerChildFiring,
                self.db.Automation,
            ):
                await session.execute(sa.delete(table))
            self._rank = {}
            for spec in specs:
                # the client's model fills defaults, the server's model is what is stored: as over the API
                posted = AutomationCore.model_validate(spec).model_dump(mode="json")
                automation = self.schemas.Automation.model_validate({**posted, "id": str(uuid4())})
                for trigger in automation.triggers():
                    self._rank[trigger.id] = len(self._rank)
                session.add(self.db.Automation(**automation.model_dump()))
        await self.triggers.reconcile_automations(force=True)
        # loaded in no given order; sweeps go through this mapping
        loaded = sorted(self.triggers.triggers.items(), key=lambda item: self._rank[item[0]], reverse=self.reverse)
        self.triggers.triggers.clear()
        self.triggers.triggers.update(loaded)

    async def _walk(self, moment: datetime, ungated: bool) -> None:
        """Sweep at each moment at which Prefect wants to look again, up to `moment`, and there."""
        for _ in range(MOST_STOPS):
            if moment <= self.clock:
                return
            following = self.clock + SECOND
            if not ungated:
                planned = [
                    max(due, following) if due <= self.clock else due
                    for due in self.triggers.next_proactive_runs.values()
                ]
                following = min(planned, default=moment)
            self.clock = min(datetime.fromtimestamp(following.timestamp(), UTC), moment)
            await self._sweep(ungated)
        raise SystemExit(f"more than {MOST_STOPS} sweeps before {moment}; bring the lines nearer to each other")

    async def _date_held_events(self) -> None:
        """Events that Prefect holds carry the database's time, which is that of the wall: put the virtual one there."""
        import sqlalchemy as sa

        table = self.db.AutomationHeldEvent
        async with self.db.session_context(begin_transaction=True) as session:
            await session.execute(sa.update(table).where(table.updated > self.clock).values(updated=self.clock))

    async def _sweep(self, ungated: bool) -> None:
        if ungated:
            self.triggers.next_proactive_runs.clear()
        await self.triggers.evaluate_proactive_triggers()
        await self.triggers.periodic_evaluation(self.time.now("UTC"))
        await self._date_held_events()

    async def _receive(self, line: dict[str, Any]) -> None:
        from prefect.server.events.ordering import EventArrivedEarly
        from prefect.server.events.schemas.events import ReceivedEvent

        event = ReceivedEvent.model_validate({"received": self.clock, **line})
        if await self.triggers.get_triggers_causal_ordering().event_has_been_seen(event.id):
            return
        try:
            await self.triggers.reactive_evaluation(event)
        except EventArrivedEarly:
            pass  # Prefect has put it aside and comes back to it
        await self._date_held_events()

    async def instabilities(self, case: dict[str, Any], answer: dict[str, Any]) -> list[str]:
        """Why Prefect's answer to `case` depends on something that the case does not say."""
        reasons = ["tie"] if self.tied else []
        for reason, options in (("order", {"reverse": True}), ("phase", {"ungated": True})):
            if reason == "phase" and (case.get("sweep", "exact") != "exact" or not self._watches()):
                continue
            other = await self.answer(case, **options)
            if essence(other) != essence(answer):
                reasons.append(reason)
        return reasons

    def _watches(self) -> bool:
        posture = self.schemas.Posture.Proactive
        return any(trigger.posture == posture for trigger in self.triggers.triggers.values())

    # Benchmarks

    def report(self, bench: str, results: dict[str, Any]) -> str:
        about = {"peer": "prefect", "version": self.version, "python": platform.python_version()}
        return json.dumps({**about, "bench": bench, "database": "sqlite file", "results": results}) + "\n"

    async def load_benchmark(self, specs: list[dict[str, Any]]) -> None:
        await self._load(specs)
        self.triggers.find_interested_triggers = self._find

    def count_actions(self) -> list[int]:
        """Let firings go through Prefect's own publishing, counted."""
        acted = [0]

        async def act(firing: Any) -> None:
            await self._act(firing)
            acted[0] += 1

        self.triggers.act = act
        return acted


def moment_of(line: dict[str, Any]) -> datetime:
    text = line["tick"] if "tick" in line else line["occurred"]
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    if moment.tzinfo is None:
        raise SystemExit(f"time {text!r} has no zone; write it with Z or an offset")
    return moment.astimezone(UTC)


def stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def essence(answer: dict[str, Any]) -> Any:
    """What two runs must share: who fired, in which line, for which event and key; not the order."""
    if "refused" in answer:
        return "refused"
    return sorted(
        (f["line"], f["automation"], f["key"], f["event"] or "", sorted(f["events"])) for f in answer["firings"]
    )


def read_cases(source: TextIO) -> Iterator[dict[str, Any]]:
    for number, text in enumerate(source, start=1):
        if text.strip():
            case = json.loads(text)
            if not case.get("events"):
                raise SystemExit(f"line {number}: events: none found; a case needs at least one event or tick")
            yield {"name": f"case-{number}", "class": "", **case}


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


async def answer_cases(peer: Peer, cases: list[dict[str, Any]], *, variants: bool) -> list[dict[str, Any]]:
    peer.install()
    answers = []
    for case in cases:
        answer = await peer.answer(case)
        if variants:
            answer["unstable"] = await peer.instabilities(case, answer)
        answers.append(answer)
    return answers


def automation(name: str, **trigger: Any) -> dict[str, Any]:
    return {
        "name": name,
        "trigger": {"type": "event", "posture": "Reactive", **trigger},
        "actions": [{"type": "do-nothing"}],
    }


def event_at(index: int, *, bucket: str, name: str = "s3.file.uploaded") -> Any:
    from prefect.server.events.schemas.events import ReceivedEvent

    return ReceivedEvent(
        occurred=datetime.now(UTC),
        event=name,
        resource={
            "prefect.resource.id": f"s3://{bucket}/incoming/{index}.csv",
            "bucket": bucket,
            "key": f"incoming/{index}.csv",
        },
        payload={"size": 1024 + index},
        id=uuid4(),
    )


async def timed_reactive(peer: Peer, specs: list[dict[str, Any]], count: int, expected: int) -> dict[str, Any]:
    acted = peer.count_actions()
    await peer.load_benchmark(specs)
    events = [event_at(index, bucket=f"bucket-{index % len(specs)}") for index in range(count)]
    begun = time.perf_counter()
    for event in events:
        await peer.triggers.reactive_evaluation(event)
    seconds = time.perf_counter() - begun
    if acted[0] != expected:
        raise SystemExit(f"expected {expected} firings of {count} events, Prefect acted on {acted[0]}")
    return {
        "automations": len(specs),
        "events": count,
        "firings": acted[0],
        "seconds": round(seconds, 3),
        "events_per_s": round(count / seconds, 1),
    }


async def bench_reactive(peer: Peer, count: int) -> dict[str, Any]:
    uploaded = ["s3.file.uploaded"]
    windowed = automation("windowed", expect=uploaded, match={"bucket": "bucket-0"}, threshold=10**9, within=3600)
    plain = automation("plain", expect=uploaded, match={"bucket": "bucket-0"})
    many = [automation(f"one-{i}", expect=uploaded, match={"bucket": f"bucket-{i}"}) for i in range(1000)]
    return {
        "windowed_not_firing": await timed_reactive(peer, [windowed], count, 0),
        "each_fires_one_action": await timed_reactive(peer, [plain], count, count),
        "each_fires_one_of_1000": await timed_reactive(peer, many, count, count),
    }


async def bench_find_interested(peer: Peer, sizes: list[int], least_seconds: float) -> dict[str, Any]:
    uploaded = ["s3.file.uploaded"]
    workloads = {
        "label_values": lambda i: automation(f"a{i}", expect=uploaded, match={"bucket": f"bucket-{i}"}),
        "label_globs": lambda i: automation(f"a{i}", expect=uploaded, match={"bucket": f"bucket-{i}*"}),
        "event_names": lambda i: automation(f"a{i}", expect=[f"s3.bucket-{i}.uploaded"]),
    }
    results: dict[str, Any] = {}
    for workload, make in workloads.items():
        for size in sizes:
            await peer.load_benchmark([make(i) for i in range(size)])
            named = workload == "event_names"
            events = []
            for i in range(min(size, 200)):
                bucket = f"bucket-{size - 1 - i}"
                events.append(event_at(i, bucket=bucket, name=f"s3.{bucket}.uploaded" if named else uploaded[0]))
            for event in events:
                own = event.resource["bucket"].replace("bucket-", "a")
                found = {trigger.automation.name for trigger in peer.triggers.find_interested_triggers(event)}
                if own not in found or (workload != "label_globs" and found != {own}):
                    raise SystemExit(f"{workload} at {size}: {own} expected, found {sorted(found)}")
            looked, begun = 0, time.perf_counter()
            while (seconds := time.perf_counter() - begun) < least_seconds:
                for event in events[:20]:
                    peer.triggers.find_interested_triggers(event)
                looked += len(events[:20])
            results.setdefault(workload, {})[str(size)] = {
                "events": looked,
                "seconds": round(seconds, 3),
                "events_per_s": round(looked / seconds, 1),
            }
    return results


async def run(options: argparse.Namespace, cases: list[dict[str, Any]]) -> str:
    """What to print, or to write where `--record` says."""
    peer = Peer()
    await peer.open()
    if options.bench == "reactive":
        return peer.report("reactive", await bench_reactive(peer, options.events))
    if options.bench == "find_interested":
        return peer.report("find_interested", await bench_find_interested(peer, options.sizes, options.seconds))
    answers = await answer_cases(peer, cases, variants=options.variants or bool(options.record))
    if not options.record:
        return "".join(compact(answer) + "\n" for answer in answers)
    return recording(peer.version, [case | answer for case, answer in zip(cases, answers, strict=True)])


def recording(version: str, cases: list[dict[str, Any]]) -> str:
    """One JSON document, a case a line, without random cases whose answer hangs on an arbitrary order."""
    arbitrary = {"order", "tie"}
    kept = [case for case in cases if case["class"] == "named" or not arbitrary & set(case["unstable"])]
    head = compact({"prefect": version, "python": platform.python_version(), "cases": []})
    return head[:-2] + "\n" + ",\n".join(compact(case) for case in kept) + "\n]}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Prefect's own answers to trigger cases, in virtual time.")
    parser.add_argument("file", nargs="?", help="cases, one JSON object a line; standard input when absent")
    parser.add_argument("--variants", action="store_true", help="report answers that are not well defined")
    parser.add_argument("--record", metavar="OUT", help="write cases and answers to OUT as one JSON document")
    parser.add_argument("--bench", choices=("reactive", "find_interested"))
    parser.add_argument("--events", type=int, default=500, help="events for --bench reactive")
    parser.add_argument(
        "--sizes",
        type=lambda text: [int(n) for n in text.split(",")],
        default=[10, 1000],
        help="numbers of automations for --bench find_interested",
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="least time for each --bench find_interested figure")
    options = parser.parse_args()
    if options.bench:
        cases = []
    elif options.file:
        with open(options.file, encoding="utf-8") as source:
            cases = list(read_cases(source))
    else:
        cases = list(read_cases(sys.stdin))
    with tempfile.TemporaryDirectory(prefix="prefect-peer-") as home:
        isolate(home)
        text = asyncio.run(run(options, cases))
    if options.record:
        with open(options.record, "w", encoding="utf-8") as record:
            record.write(text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
