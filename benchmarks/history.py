"""The history in SQLite: how fast it is filled, and how soon it answers with a million events in it.

    python -m benchmarks.history [--events 1000000] [--database postgresql://...]

Messages as the streams have them (events with labels, the decisions on them, firings, outcomes) go through the projection in batches of
2,000, from their bytes to the committed transaction; reading them from NATS is not part of it. Rates are of processor time, as other
programs may share the machine. Then each filter that has an index is asked for the newest 50, for values that are frequent and for
such as are rare, and tallies for 30 days by hour.

Checked: as many rows are stored and counted as messages were given, each answer is what a filter asks for, and the promises hold: `RATE`
events and their decisions a second, `LIST_MS` and `TALLIES_MS` at the median of 20 questions.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from benchmarks._shared import machine
from whenthen.history import (
    Cursor,
    Database,
    HistoryQuery,
    HistoryReader,
    Message,
    Projection,
    Rows,
    message_rows,
    read_stats,
)
from whenthen.schemas.decision_records import DecisionBatch

__all__ = ["main"]

#: the goals
RATE = 3000
LIST_MS = 20.0
TALLIES_MS = 50.0

BATCH = 2000
AUTOMATIONS = 50
NAMES = 40
RESOURCES = 5000
RARE = 9973  #: one in so many events has the rare values
DAYS = 30
HOUR_US = 3_600_000_000
START_US = 1_800_000_000_000_000 // HOUR_US * HOUR_US
QUESTIONS = 20


def automation(number: int) -> str:
    return "rare" if number % RARE == 0 else f"automation-{number % AUTOMATIONS}"


def event(number: int) -> bytes:
    rare = number % RARE == 0
    return orjson.dumps(
        {
            "id": f"{number * 2654435761 % (1 << 32):08x}-{number:012x}",
            "event": "rare.event" if rare else f"shop.order.{number % NAMES}",
            "occurred": "2027-01-15T08:00:00.000000Z",
            "received": "2027-01-15T08:00:00.100000Z",
            "source": "api",
            "resource": {
                "id": f"order.{number % RESOURCES}",
                "region": "rare" if rare else ("eu", "us", "asia")[number % 3],
                "team": f"team-{number % 20}",
            },
            "related": [{"id": f"customer.{number % 1000}", "role": "customer"}],
            "payload": {"total": number % 500, "currency": "EUR", "lines": [{"sku": number % 97, "count": 2}] * 3},
        }
    )


def decisions(first: int, count: int) -> bytes:
    """A batch as a commit writes it: of each automation the last 20 that did not fire, and all that did."""
    names: dict[str, int] = {}
    counts: dict[tuple[int, str], int] = {}
    rows: list[list[Any]] = []
    for number in range(first, first + count):
        index = names.setdefault(automation(number), len(names))
        fired = number % 10 == 0
        reason = "fired" if fired else ("cooldown", "below_threshold", "condition_false")[number % 3]
        counts[index, reason] = counts.get((index, reason), 0) + 1
        rows.append(
            [
                index,
                "",
                reason,
                number,
                f"event-{number}",
                START_US,
                f"key-{number % 100}",
                "event.payload.total > 10",
                f"firing-{number}" if fired else None,
            ]
        )
    head = {"batch": f"{first:032x}", "prev": 0, "part": 0, "parts": 1, "shard": 0, "writer": "w", "rules": 1}
    every = [[index, reason, times] for (index, reason), times in counts.items()]
    return orjson.dumps(
        {**head, "after": first, "seq": first + count, "automations": [*names], "counts": every, "rows": rows}
    )


def firing(number: int) -> bytes:
    name = automation(number)
    return orjson.dumps(
        {
            "id": f"firing-{number}", "automation": name, "state": "Triggered", "at": "2027-01-15T08:00:00Z",
            "key": f"key-{number % 100}", "event": {"id": f"event-{number}"}, "by_seq": False, "seq": number,
            "refs": [[f"event-{number}", number, START_US]], "total": 1, "depth": 1, "automations": [name], "edge": None,
        }
    )  # fmt: skip


def outcome(number: int) -> bytes:
    state = "dead" if number % 1000 == 0 else "executed"
    return orjson.dumps(
        {
            "key": f"firing-{number}.0", "automation": automation(number), "firing": f"firing-{number}", "action": "call-webhook",
            "state": state, "attempt": 1, "at": "2027-01-15T08:00:00Z", "error": "", "result": {"status": 200}, "next_at": None,
        }
    )  # fmt: skip


def fill(database: Database, events: int, *, start_us: int = START_US) -> tuple[float, float]:
    """Write everything, as of `DAYS` days from `start_us` on; gives the processor seconds, and those on the clock, without the making of the
    messages."""
    projection = Projection(database)
    cursors = {
        name: projection.cursor(name, identity="i", last_seq=1 << 40) for name in ("EVENTS", "DECISIONS", "ENGINE")
    }
    step_us = DAYS * 24 * HOUR_US // events
    used = clock = 0.0
    for first in range(0, events, BATCH):
        numbers = range(first, min(first + BATCH, events))
        at_us = start_us + first * step_us
        inputs = {
            "EVENTS": [Message("events.x", n + 1, start_us + n * step_us, event(n)) for n in numbers],
            "ENGINE": [
                Message(f"engine.{kind}.a.{n}", 2 * n + index + 1, at_us, made(n))
                for n in numbers
                if n % 10 == 0
                for index, (kind, made) in enumerate((("firing", firing), ("outcome", outcome)))
            ],
        }
        decided = decisions(numbers[0], len(numbers))
        began, cpu = time.perf_counter(), time.process_time()
        for name, messages in inputs.items():
            cursors[name] = _write(projection, cursors[name], messages)
        old = cursors["DECISIONS"]
        rows = Rows()
        rows.add_decisions(DecisionBatch.decode(decided), pos=old.position(first + 1), at_us=at_us, row=0)
        cursors["DECISIONS"] = replace(old, taken=first + 1)
        projection.write([(old, cursors["DECISIONS"])], rows)
        used += time.process_time() - cpu
        clock += time.perf_counter() - began
    return used, clock


def _write(projection: Projection, old: Cursor, messages: list[Message]) -> Cursor:
    rows = Rows()
    for message in messages:
        message_rows(rows, message, pos=old.position(message.seq), at_us=message.time_us)
    new = replace(old, taken=messages[-1].seq, clock_us=messages[-1].time_us)
    projection.write([(old, new)], rows)
    return new


def questions(events: int) -> dict[str, tuple[HistoryQuery, Callable[[dict[str, Any]], bool]]]:
    """Lists that an index serves, and what each row of the answer must have."""
    some = random.Random(1).randrange(0, events // 10) * 10
    some_id = orjson.loads(event(some))["id"]
    late, early = START_US + 20 * 24 * HOUR_US, START_US + 3 * 24 * HOUR_US

    def query(kind: str, **more: Any) -> HistoryQuery:
        return HistoryQuery(kind=kind, **more)

    return {
        "events": (query("events"), lambda row: True),
        "events since": (query("events", since_us=late), lambda row: row["at_us"] >= late),
        "events until": (query("events", until_us=early), lambda row: row["at_us"] < early),
        "events name": (query("events", equal={"name": "shop.order.7"}), lambda row: row["name"] == "shop.order.7"),
        "events rare name": (query("events", equal={"name": "rare.*"}), lambda row: row["name"] == "rare.event"),
        "events glob": (query("events", equal={"name": "shop.*"}), lambda row: row["name"].startswith("shop.")),
        "events label": (query("events", labels={"region": "eu"}), lambda row: row["resource"]["region"] == "eu"),
        "events rare label": (query("events", labels={"region": "rare"}), lambda row: row["resource"]["region"] == "rare"),
        "events resource": (query("events", labels={"id": "order.77"}), lambda row: row["resource"]["id"] == "order.77"),
        "events related": (query("events", related="customer.5"), lambda row: row["related"][0]["id"] == "customer.5"),
        "events id": (query("events", id_prefix=some_id[:12]), lambda row: row["id"] == some_id),
        "events label until": (
            query("events", labels={"team": "team-3"}, until_us=early),
            lambda row: row["resource"]["team"] == "team-3" and row["at_us"] < early,
        ),
        "decisions": (query("decisions"), lambda row: True),
        "decisions automation": (
            query("decisions", equal={"automation": "automation-7"}), lambda row: row["automation"] == "automation-7",
        ),
        "decisions automation, reason": (
            query("decisions", equal={"automation": "rare", "reason": "cooldown"}),
            lambda row: (row["automation"], row["reason"]) == ("rare", "cooldown"),
        ),
        "decisions reason": (query("decisions", equal={"reason": "fired"}), lambda row: row["reason"] == "fired"),
        "decisions event": (query("decisions", equal={"event": f"event-{some}"}), lambda row: row["seq"] == some),
        "decisions firing": (query("decisions", equal={"firing": f"firing-{some}"}), lambda row: row["seq"] == some),
        "firings automation": (query("firings", equal={"automation": "rare"}), lambda row: row["automation"] == "rare"),
        "firings key": (query("firings", equal={"key": "key-50"}), lambda row: row["key"] == "key-50"),
        "firings event": (query("firings", equal={"event": f"event-{some}"}), lambda row: row["id"] == f"firing-{some}"),
        "firings id": (query("firings", id_prefix=f"firing-{some}"), lambda row: row["id"].startswith(f"firing-{some}")),
        "actions state": (query("actions", equal={"state": "dead"}), lambda row: row["state"] == "dead"),
        "actions automation, state": (
            query("actions", equal={"automation": "automation-0", "state": "dead"}),
            lambda row: (row["automation"], row["state"]) == ("automation-0", "dead"),
        ),
        "actions firing": (query("actions", equal={"firing": f"firing-{some}"}), lambda row: row["firing"] == f"firing-{some}"),
        "actions since": (query("actions", since_us=late), lambda row: row["at_us"] >= late),
    }  # fmt: skip


def wrong_tallies(reader: HistoryReader, events: int, month: dict[str, int]) -> list[str]:
    """What is counted otherwise than the decisions were made; the time of a decision is that of its batch."""
    step_us = DAYS * 24 * HOUR_US // events
    expected: Counter[tuple[int, str]] = Counter()
    cooled: Counter[tuple[int, str]] = Counter()
    for number in range(events):
        at_us = START_US + number // BATCH * BATCH * step_us
        place = at_us // (24 * HOUR_US) * 24 * HOUR_US, automation(number)
        expected[place] += 1
        cooled[place] += number % 10 != 0 and number % 3 == 0
    wrong = []
    for equal, counts in (({}, expected), ({"reason": "cooldown"}, +cooled)):
        found = reader.counts("decisions", by="automation", equal=equal, step_hours=24, **month)
        if {(start, value): count for start, value, count in found} != counts:
            wrong.append(f"decisions by automation and day, {equal}: not what was decided")
    return wrong


def measure(ask: Callable[[], Any]) -> float:
    """Milliseconds of processor time, the median."""
    ask()
    times = []
    for _ in range(QUESTIONS):
        began = time.process_time()
        ask()
        times.append(1000 * (time.process_time() - began))
    return round(statistics.median(times), 2)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=None, help="for the database; a temporary one when left out")
    options = parser.parse_args()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        database = Database(Path(folder) / "history.db")
        used, clock = fill(database, options.events)
        stats = read_stats(database)
        reader = HistoryReader(database)
        for table, rows in (
            ("events", options.events),
            ("decisions", options.events),
            ("firings", -(-options.events // 10)),
        ):
            if stats.tables[table].rows != rows:
                wrong.append(f"{table}: {stats.tables[table].rows} rows instead of {rows}")
        month = {"since_us": START_US, "until_us": START_US + DAYS * 24 * HOUR_US}
        for kind in ("events", "decisions"):
            counted = sum(count for _, _, count in reader.counts(kind, **month))
            if counted != options.events:
                wrong.append(f"{kind}: {counted} counted instead of {options.events}")
        lists = {}
        for name, (query, holds) in questions(options.events).items():
            page = reader.page(query)
            if not page.rows or not page.whole or not all(map(holds, page.rows)):
                wrong.append(f"{name}: {len(page.rows)} rows, not all of them what was asked for")
            lists[name] = measure(lambda query=query: reader.page(query))  # type: ignore[misc]
        tallies = {
            "events": measure(lambda: reader.counts("events", **month)),
            "decisions by reason": measure(lambda: reader.counts("decisions", by="reason", **month)),
            "one automation by reason": measure(
                lambda: reader.counts("decisions", by="reason", equal={"automation": "automation-7"}, **month)
            ),
            "each automation by day": measure(
                lambda: reader.counts("decisions", by="automation", step_hours=24, **month)
            ),
            "each automation by day, of one reason": measure(
                lambda: reader.counts(
                    "decisions", by="automation", equal={"reason": "cooldown"}, step_hours=24, **month
                )
            ),
        }
        wrong += wrong_tallies(reader, options.events, month)
        scan = reader.page(HistoryQuery(kind="events", text="no such text"))
        scan_ms = measure(lambda: reader.page(HistoryQuery(kind="events", text="no such text")))
        database.close()
    rate = round(options.events / used)
    if rate < RATE:
        wrong.append(f"{rate} events a second of processor time, less than {RATE}")
    wrong += [f"{name}: {ms} ms, more than {LIST_MS}" for name, ms in lists.items() if ms > LIST_MS]
    wrong += [f"tallies, {name}: {ms} ms, more than {TALLIES_MS}" for name, ms in tallies.items() if ms > TALLIES_MS]
    print(
        json.dumps(
            {
                "machine": machine(),
                "events": options.events,
                "events_per_cpu_second": rate,
                "events_per_second": round(options.events / clock),
                "database_mb": round(stats.bytes / 1e6),
                "list_ms": lists,
                "tallies_ms": tallies,
                "scan": {"rows": scan.scanned, "ms": scan_ms},
                "wrong": wrong,
            }
        )
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
