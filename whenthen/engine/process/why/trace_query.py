"""What led to what: from any id back to the request that began it, and forward to the last run and its events.

An event names the firing that it comes from (`lineage`), a firing its events, an action its firing, a run its action; so back is a look-up
at each step. Forward, the events that come of a firing lie behind it in the log, which is read from there, once, as causes come before
what they cause. Everything is bounded, and an answer that was cut says so.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

import orjson

from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.protocol import Delivery
from whenthen.engine.bus.stream_pages import StoredMessage, newest
from whenthen.engine.bus.streams import ENGINE, EVENTS
from whenthen.engine.bus.subjects import short_token
from whenthen.engine.decisions import DecisionReader
from whenthen.engine.http import why_models
from whenthen.engine.process.id_prefixes import IdPrefixes
from whenthen.engine.process.queries.event_queries import EventQueries
from whenthen.engine.process.queries.firing_queries import find_firing
from whenthen.engine.process.queries.stored_events import event_fields
from whenthen.runs import BuiltInOrchestrator
from whenthen.schemas.decision_records import DecisionRow
from whenthen.schemas.errors import NotFound
from whenthen.schemas.firings import Reason
from whenthen.schemas.times import format_us

__all__ = ["TraceQuery"]

Kind = Literal["event", "decision", "firing", "action", "run"]
Fields = dict[str, Any]

MOST_ITEMS = 1000
MOST_SCANNED = 50_000  #: events behind a cause that are looked through for what it caused
MOST_BACK = 100  #: steps towards the first cause
MOST_REFS = 20  #: contributing events of a firing
MOST_OTHERS = 20  #: automations in which an event may have counted for a firing that another event made
AT_ONCE = 20
_KEY = re.compile(r"([0-9a-f]{32})\.([0-9]{1,6})")
_HEX = re.compile(r"[0-9a-f]{32}")
#: the event counts for a later firing
_COUNTS = frozenset(
    {Reason.BELOW_THRESHOLD, Reason.COLLECTING, Reason.OPENED, Reason.WAITING_FOR_SIBLING, Reason.FIRED}
)


class TraceQuery:
    """Answers `GET /api/trace/<id>`."""

    def __init__(
        self, bus: Bus, orchestrator: BuiltInOrchestrator, ids: IdPrefixes, events: EventQueries, *, shards: int
    ) -> None:
        self._bus = bus
        self._orchestrator = orchestrator
        self._ids = ids
        self._events = events
        self._shards = shards

    async def trace(self, wanted: str) -> why_models.TraceReport:
        """What is known around an id: of an event, a firing, an action (`<firing>.<index>`), a run, or a trace.

        Raises:
            NotFound: nothing that is kept has it.
            BusUnavailable: NATS does not answer.
        """
        return await _Walk(self._bus, self._orchestrator, self._ids, self._events, self._shards).of(wanted)


class _Walk:
    """One answer."""

    def __init__(
        self, bus: Bus, orchestrator: BuiltInOrchestrator, ids: IdPrefixes, events: EventQueries, shards: int
    ) -> None:
        self._bus = bus
        self._orchestrator = orchestrator
        self._ids = ids
        self._events = events
        self._shards = shards
        self._record = DecisionReader(bus)
        self._items: dict[str, why_models.TraceItem] = {}
        self._links: dict[tuple[str, str], None] = {}
        self._firings: set[str] = set()  #: whose events are looked for
        self._first = 0  #: position from which they are
        self._cut = False
        self._left_out: Counter[str] = Counter()  #: that are known of, by what they are
        self._notes: list[str] = []
        self._trace: str | None = None

    async def of(self, wanted: str) -> why_models.TraceReport:
        start = await self._start(wanted)
        if self._firings:
            await self._scan()
        if self._left_out:
            kinds = " and ".join(f"{count:,} {what}" for what, count in sorted(self._left_out.items()))
            self._notes.append(f"{len(self._items):,} things are shown; left out are {kinds}, and what came of them")
        items = sorted(self._items.values(), key=lambda item: item.at or "")
        return why_models.TraceReport(
            id=start,
            trace=self._trace,
            items=items,
            links=[why_models.TraceLink(source=source, target=target) for source, target in self._links],
            cut=self._cut,
            notes=self._notes,
        )

    async def _start(self, wanted: str) -> str:
        """Find what has the id, and go back and forward from it; gives its name."""
        wanted = await self._ids.firing_action_or_run(wanted) or wanted
        if (key := _KEY.fullmatch(wanted)) is not None:
            firing = await self._firing(key[1])
            if firing is not None:
                await self._back_from_firing(firing)
                await self._actions(firing, only=int(key[2]))
                return f"action:{wanted}"
        elif _HEX.fullmatch(wanted):
            if (firing := await self._firing(wanted)) is not None:
                await self._back_from_firing(firing)
                await self._actions(firing)
                return f"firing:{wanted}"
            if await self._back_from_run(wanted):
                return f"run:{wanted}"
            if await self._of_trace(wanted):
                return f"trace:{wanted}"
        try:
            event = await self._events.kept_event(wanted)
        except NotFound:
            raise NotFound(
                f"nothing that is kept has the id {wanted[:200]!r}: no event (of the last 50,000, or in the history), firing, action, run or trace"
            ) from None
        name = await self._back_from_event(event)
        await self._forward(event)
        return name

    # -- back

    async def _back_from_event(self, event: Fields) -> str:
        """Add an event and what led to it."""
        name = self._add_event(event)
        for _ in range(MOST_BACK):
            lineage = event.get("lineage")
            firing_id = lineage.get("firing") if isinstance(lineage, dict) else None
            if not isinstance(firing_id, str):
                run_id = _run_of(event)
                if run_id is not None and await self._run(run_id) is not None:  # that somebody or a schedule started
                    self._link(f"run:{run_id}", f"event:{event['id']}")
                return name
            firing = await self._firing(firing_id)
            if firing is None:
                self._notes.append(f"firing {firing_id} led to it, which is not kept any more (retain_firings)")
                return name
            await self._add_way(event, firing)
            before = await self._cause(firing)
            if before is None:
                return name
            event = before
        self._notes.append(f"there are more than {MOST_BACK} steps before")
        return name

    async def _add_way(self, event: Fields, firing: Fields) -> None:
        """Add the firing that led to an event, and the action and run between, as far as the event names them."""
        source = self._add_firing(firing)
        target = f"event:{event['id']}"
        payload = event.get("payload")
        payload = payload if isinstance(payload, dict) else {}
        key = payload.get("key")
        if not isinstance(key, str) and str(event["id"]).startswith("emitted-"):
            key = str(event["id"]).removeprefix("emitted-")
        run_id = _run_of(event)
        if run_id is not None and (run := await self._run(run_id)) is not None:
            key = run.key
            self._link(f"run:{run_id}", target)
            target = f"run:{run_id}"
        if isinstance(key, str) and (found := _KEY.fullmatch(key)) is not None and found[1] == firing["id"]:
            await self._actions(firing, only=int(found[2]), forward=False)
            self._link(f"action:{key}", target)
        else:
            self._link(source, target)

    async def _back_from_firing(self, firing: Fields) -> None:
        self._add_firing(firing)
        cause = await self._cause(firing)
        if cause is not None:
            await self._back_from_event(cause)

    async def _back_from_run(self, run_id: str) -> bool:
        run = await self._run(run_id)
        if run is None:
            return False
        if (found := _KEY.fullmatch(run.key)) is not None:
            firing = await self._firing(found[1])
            if firing is not None:
                await self._back_from_firing(firing)
                await self._actions(firing, only=int(found[2]))
            else:
                self._notes.append(f"firing {found[1]} started it, which is not kept any more (retain_firings)")
                await self._forward_from_run(run_id)
        else:
            await self._forward_from_run(run_id)
        return True

    async def _cause(self, firing: Fields) -> Fields | None:
        """Add the events of a firing; gives the one that triggered it."""
        name = f"firing:{firing['id']}"
        refs = firing["refs"]
        if len(refs) > MOST_REFS:
            self._notes.append(
                f"firing {firing['id']} has {firing.get('total', len(refs))} events, of which {MOST_REFS} are shown"
            )
        trigger: Fields | None = None
        positions = [(str(ref[0]), int(ref[1])) for ref in refs[-MOST_REFS:]]
        if firing["seq"] and all(seq != firing["seq"] for _, seq in positions):
            positions.append(("", int(firing["seq"])))
        for event_id, seq in positions:
            event = await self._event_at(seq) if seq else None
            if event is None:
                if event_id:
                    self._notes.append(f"event {event_id} counted for it and is not kept any more (retain_events)")
                continue
            self._link(self._add_event(event), name)
            if seq == firing["seq"] or trigger is None:
                trigger = event
        return trigger

    # -- forward

    async def _forward_from_run(self, run_id: str) -> None:
        """Add the events of a run that no firing is known to have started, and what came of each."""

        def pick(message: StoredMessage) -> Fields | None:
            event = event_fields(message)
            return {**event, "seq": message.seq} if _run_of(event) == run_id else None

        events = await newest(self._bus.client, EVENTS, "events.>", limit=MOST_REFS, pick=pick)
        if events.next is not None:
            self._cut = True
            self._notes.append(f"the newest {MOST_REFS} events of run {run_id} were looked for, among the last events")
        for event in reversed(events):
            self._link(f"run:{run_id}", self._add_event(event))
            await self._forward(event)

    async def _of_trace(self, trace: str) -> bool:
        """Everything of a W3C trace: the events that bear it, and what came of each."""

        def pick(message: StoredMessage) -> Fields | None:
            event = event_fields(message)
            found = event.get("trace")
            return {**event, "seq": message.seq} if isinstance(found, dict) and found.get("id") == trace else None

        events = await newest(self._bus.client, EVENTS, "events.>", limit=AT_ONCE, pick=pick)
        for event in reversed(events):
            await self._back_from_event(event)
            await self._forward(event)
        if events and events.next is not None:
            self._cut = True
            self._notes.append(f"the newest {AT_ONCE} events of the trace were looked for, among the last events")
        return bool(events)

    async def _forward(self, event: Fields) -> None:
        """Add what was decided for an event, and the firings that it counted for."""
        name, seq = f"event:{event['id']}", int(event["seq"])
        self._first = min(self._first or seq, seq)
        rows: list[DecisionRow] = []
        for shard in range(self._shards):
            recorded = await self._record.at(shard, None, seq)
            rows += recorded.rows
        others = 0
        for start in range(0, len(rows), AT_ONCE):
            if self._full():
                self._left_out["decisions"] += len(rows) - start
                return
            part = rows[start : start + AT_ONCE]
            fired = [row.firing for row in part]
            found = await asyncio.gather(*(self._firing(each) for each in fired if each))
            firings = {firing["id"]: firing for firing in found if firing is not None}
            for row in part:
                if row.firing is not None and row.firing in firings:
                    self._link(name, self._add_firing(firings[row.firing]))
                    continue
                decision = f"decision:{row.automation}@{seq}{row.path}"
                self._link(name, decision)
                self._add("decision", decision, row.automation, row.reason, row.at_us, row.detail)
                if row.reason in _COUNTS and row.firing is None:
                    others += 1
                    if others > MOST_OTHERS:
                        continue
                    for firing in await self._firings_with(row.automation, str(event["id"])):
                        firings[firing["id"]] = firing
                        self._link(decision, self._add_firing(firing))
            await asyncio.gather(*(self._actions(firing) for firing in firings.values()))
        if others > MOST_OTHERS:
            self._cut = True
            self._notes.append(
                f"event {event['id']} may have counted for later firings of {others} automations, of which {MOST_OTHERS} were looked up"
            )

    async def _firings_with(self, automation: str, event_id: str) -> list[Fields]:
        """Firings of an automation for which an event counted, among the last 1,000."""

        def pick(message: StoredMessage) -> Fields | None:
            if not message.data:
                return None
            firing: Fields = orjson.loads(message.data)
            return firing if any(ref[0] == event_id for ref in firing["refs"]) else None

        return await newest(self._bus.client, ENGINE, f"engine.firing.{short_token(automation)}.*", limit=5, pick=pick)

    async def _actions(self, firing: Fields, *, only: int | None = None, forward: bool = True) -> None:
        """Add the actions of a firing and the runs that they started. With `forward` their events are looked for, too."""
        token = short_token(firing["id"])
        source = f"firing:{firing['id']}"
        found: dict[str, tuple[str, str, str | None, str]] = {}
        runs: dict[str, str] = {}  #: by key of the action that started one

        def receive(message: Delivery) -> None:
            if not message.data:
                return
            kind = message.headers["Nats-Subject"].split(".")[1]
            fields: Fields = orjson.loads(message.data)
            if kind == "outcome":
                detail = fields.get("error") or ""
                result = fields.get("result")
                if isinstance(result, dict) and isinstance(run_id := result.get("flow_run"), str):
                    runs[fields["key"]] = run_id
                found[fields["key"]] = fields["action"], fields["state"], fields["at"], detail
            elif kind == "dead":
                task = fields["task"]
                found[task["key"]] = _type(task), "dead", fields["at"], fields["error"]
            else:
                found.setdefault(fields["key"], (_type(fields), "waiting", firing["at"], ""))

        for kind in ("action", "outcome", "dead"):
            request = {"seq": 1, "next_by_subj": f"engine.{kind}.*.{token}.*", "batch": 1000}
            await self._bus.client.read_stored(ENGINE, request, receive)
        for key, (action, state, at, detail) in sorted(found.items()):
            if only is not None and key != f"{firing['id']}.{only}":
                continue
            if self._full():
                self._left_out["actions"] += 1
                continue
            self._add("action", f"action:{key}", action, str(state), at, detail)
            self._link(source, f"action:{key}")
            if key in runs and (run := await self._run(runs[key])) is not None:
                self._link(f"action:{key}", f"run:{run.id}")
        if forward:
            self._firings.add(firing["id"])
            self._first = min(self._first or firing["seq"] or 1, firing["seq"] or 1)

    async def _scan(self) -> None:
        """Read the log for events that came of the firings, and what came of these, in one go."""
        seq, scanned = self._first, 0
        more = True
        while more and not self._full():
            page: list[tuple[int, bytes]] = []

            def receive(message: Delivery, page: list[tuple[int, bytes]] = page) -> None:
                page.append((int(message.headers["Nats-Sequence"]), message.data))

            request = {"seq": seq + 1, "next_by_subj": "events.>", "batch": 1000, "max_bytes": 8 << 20}
            more = await self._bus.client.read_stored(EVENTS, request, receive)
            for seq, data in page:
                scanned += 1
                if b'"lineage"' not in data:
                    continue
                event = event_fields(StoredMessage("", seq, "", data))
                lineage = event.get("lineage")
                firing_id = lineage.get("firing") if isinstance(lineage, dict) else None
                if firing_id in self._firings and f"event:{event.get('id')}" not in self._items:
                    event["seq"] = seq
                    self._add_event(event)
                    firing = await self._firing(str(firing_id))
                    if firing is not None:
                        await self._add_way(event, firing)
                    await self._forward(event)
                    if self._full():
                        self._notes.append(f"events behind position {seq} were not looked through for what came of it")
                        return
            if scanned >= MOST_SCANNED and more:
                self._cut = True
                self._notes.append(f"{MOST_SCANNED} events behind it were looked through; there are more")
                return

    # -- look-ups

    async def _event_at(self, seq: int) -> Fields | None:
        event = await self._bus.event_at(seq)
        return None if event is None else {**event.data, "seq": seq}

    async def _firing(self, firing_id: str) -> Fields | None:
        return await find_firing(self._bus.client, firing_id)

    async def _run(self, run_id: str) -> Any:
        """A run by its id, added; None when it is not kept."""
        try:
            run = (await self._orchestrator.get_flow_run(run_id)).run
        except NotFound:
            return None
        self._add("run", f"run:{run.id}", run.deployment, run.state.value, run.created, run.message)
        return run

    # -- the answer

    def _full(self) -> bool:
        full = len(self._items) >= MOST_ITEMS
        self._cut |= full
        return full

    def _add_event(self, event: Fields) -> str:
        name = f"event:{event['id']}"
        source = event.get("source")
        self._add("event", name, str(event.get("event")), "", event.get("received"), f"from {source}" if source else "")
        trace = event.get("trace")
        if self._trace is None and isinstance(trace, dict):
            self._trace = trace.get("id")
        return name

    def _add_firing(self, firing: Fields) -> str:
        name = f"firing:{firing['id']}"
        key = ", ".join(f"{each}={value}" for each, value in firing["key"].items())
        self._add("firing", name, firing["automation"], firing["state"], firing["at"], key)
        return name

    def _add(self, kind: Kind, name: str, what: str, state: str, at: str | int | None, detail: str) -> None:
        if name in self._items:
            return
        if len(self._items) >= MOST_ITEMS:
            self._cut = True
            self._left_out[f"{kind}s"] += 1
            return
        self._items[name] = why_models.TraceItem(
            kind=kind,
            id=name.partition(":")[2],
            name=what,
            state=state,
            at=format_us(at) if isinstance(at, int) else at,
            detail=detail[:500],
        )

    def _link(self, source: str, target: str) -> None:
        if len(self._links) < 2 * MOST_ITEMS:
            self._links[source, target] = None
        else:
            self._cut = True


def _run_of(event: Fields) -> str | None:
    """The run that an event of the engine is about."""
    payload = event.get("payload")
    run_id = payload.get("id") if isinstance(payload, dict) else None
    return run_id if isinstance(run_id, str) and str(event.get("event", "")).startswith("flow-run.") else None


def _type(task: Mapping[str, Any]) -> str:
    return str(task["action"]["type"] if "action" in task else task["type"])
