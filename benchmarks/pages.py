"""Pages of a system with 10,000 automations and a million events in its history: how soon each is answered, and how large it is.

    python -m benchmarks.pages [--events 1000000] [--automations 10000]

The history is filled by the projection (`benchmarks.history`) with `FILLED` events and what came of them, and these are copied within the
database until they are as many as asked for; then a `whenthen serve` is started on it and on rules that many, some events come
in, and each page is asked for over one connection. Milliseconds are of the clock, from the first byte of the request to the last of the
answer, the median of `QUESTIONS`, after one that does not count. `cpu_ms` is the processor time that the server took for each, which does not
depend on what else the machine does.

Checked: each page is answered 200 and has in it what it was asked for, and the promises hold: `PAGE_MS` and `PAGE_BYTES`, for every page.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from benchmarks import history
from benchmarks._many import multiply
from benchmarks._shared import ServerProcess, folder, machine, wait_for
from whenthen.history import Database, read_stats

__all__ = ["main"]

#: the goals
PAGE_MS = 100.0
PAGE_BYTES = 200_000

QUESTIONS = 15
FILLED = 20_000  #: events that the projection writes; others are copies of them
TOKEN = "token-of-this-benchmark"
LARGE = "<b>&" * 25_000  #: in the payload of an event


def rules(automations: int) -> str:
    lines = ["automations:"]
    lines += [
        f"  - {{name: automation-{number}, description: Does {number}, tags: [t{number % 7}], "
        f"trigger: {{expect: shop.order.{number}, when: event.payload.total > 10}}, actions: [do-nothing]}}"
        for number in range(automations)
    ]
    lines += [
        "deployments:",
        "  - {name: works, command: echo works}",
        "webhooks:",
        "  - {name: shop, verify: none, map: {event: shop.order.7, resource: {id: $.body.id}, payload: $.body}}",
    ]
    return "\n".join(lines)


class Browser:
    """One connection to a server, with its token."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)

    def ask(self, path: str, body: Any = None) -> tuple[int, bytes, float]:
        """Status, body and milliseconds."""
        data = None if body is None else json.dumps(body)
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", "Accept": "text/html"}
        began = time.perf_counter()
        self._connection.request("GET" if body is None else "POST", path, data, headers)
        answer = self._connection.getresponse()
        read = answer.read()
        return answer.status, read, 1000 * (time.perf_counter() - began)

    def read(self, path: str, body: Any = None) -> Any:
        status, data, _ = self.ask(path, body)
        if status >= 300:
            raise SystemExit(f"{path} was answered {status}: {data[:300]!r}")
        return json.loads(data)


def places(browser: Browser) -> Mapping[str, tuple[str, str]]:
    """Address of each page, and what it must have in it."""
    old = browser.read("/api/events?event=shop.order.8&limit=1")[0]["id"]
    large = browser.read("/api/events?event=shop.order.7&source=webhook:shop&limit=1")[0]["id"]
    firing = browser.read("/api/firings?automation=automation-7&limit=1")[0]["id"]
    run = browser.read("/api/runs?limit=1")[0]["id"]
    one = quote(old)
    return {
        "automations": ("/automations", "automation-0"),
        "automations, page 3": ("/automations?page=3", "201 to 300"),
        "automations, text": ("/automations?text=does+99", "automation-99"),
        "automations, state and tag": ("/automations?state=active&tag=t3", "#t3"),
        "automation": ("/automation?name=automation-7", "shop.order.7"),
        "automation, reason": ("/automation?name=automation-7&reason=cooldown", "cooldown"),
        "events": ("/events", "shop.order"),
        "events, name": ("/events?name=shop.order.8", "shop.order.8"),
        "events, glob": ("/events?name=shop.*", "shop.order"),
        "events, resource": ("/events?resource=order.77", "order.77"),
        "events, since": ("/events?since=20d&until=10d", "shop.order"),
        "event": (f"/event?id={one}", old[:12]),
        "event, large": (f"/event?id={quote(large)}", "more characters"),
        "why": ("/why", "Begin with one of the last events"),
        "why, automation": ("/why?automation=automation-7", "last decisions of"),
        "why, event": (f"/why?event={quote(large)}", "Who decided what"),
        "why, both": (f"/why?automation=automation-8&event={quote(large)}", "It did not fire"),
        "trace": ("/trace", "Begin with one of the last events"),
        "trace, event": (f"/trace?id={quote(large)}", "asked for"),
        "firings": ("/firings", "automation-"),
        "firings, automation": ("/firings?automation=automation-7", "automation-7"),
        "firing": (f"/firing?id={quote(firing)}", "fired"),
        "actions": ("/actions", "automation-"),
        "actions, outcome": ("/actions?outcome=executed", "executed"),
        "dead letters": ("/actions?outcome=dead", "Dead letters"),
        "runs": ("/runs", "works"),
        "run": (f"/run?id={quote(run)}", "works"),
        "sources": ("/sources", "/hooks/shop"),
        "try": ("/try?automation=automation-7", "automation-7"),
        "system": ("/system", "EVENTS"),
        "not there": ("/automation?name=automation-99999", "did you mean"),
    }


def cpu_s(pid: int) -> float:
    """Processor time that a process has taken."""
    words = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--automations", type=int, default=10_000)
    options = parser.parse_args()
    wrong: list[str] = []
    found: dict[str, dict[str, float]] = {}
    with folder() as place:
        (place / "data").mkdir()
        database = Database(place / "data" / "history.db")
        times = max(1, options.events // FILLED)
        start_us = time.time_ns() // 1000 - history.DAYS * 24 * history.HOUR_US
        history.fill(database, options.events // times, start_us=start_us)
        multiply(database, times)
        events = read_stats(database).tables["events"].rows
        database.close()
        settings = {"WHENTHEN_API_TOKEN": TOKEN, "WHENTHEN_OPEN_LOOPBACK": "false", "WHENTHEN_HISTORY_EVENTS": "60d"}
        with ServerProcess(place, rules(options.automations), environment=settings) as server:
            browser = Browser(server.url)
            for number in range(20):
                browser.read("/hooks/shop", {"id": f"order.{number}", "total": number, "note": LARGE})
            browser.read("/api/deployments/works/run", {})
            wait_for(lambda: bool(browser.read("/api/firings?automation=automation-7&since=1h")), "a firing")
            wait_for(lambda: browser.read("/api/runs?limit=1")[0]["state"] == "Completed", "a run that has ended")
            wait_for(
                lambda: (browser.read("/api/status")["history"] or {}).get("messages") == 0,
                "the history to be up to date",
            )
            for name, (path, text) in places(browser).items():
                status, body, _ = browser.ask(path)
                if status != (404 if name == "not there" else 200) or text not in body.decode():
                    wrong.append(
                        f"{name}: answered {status}, and {text!r} is {'' if text in body.decode() else 'not '}in it"
                    )
                began = cpu_s(server.pid)
                ms = statistics.median(browser.ask(path)[2] for _ in range(QUESTIONS))
                cpu_ms = 1000 * (cpu_s(server.pid) - began) / QUESTIONS
                found[name] = {"ms": round(ms, 1), "cpu_ms": round(cpu_ms, 1), "bytes": len(body)}
    wrong += [f"{name}: {page['ms']} ms, more than {PAGE_MS}" for name, page in found.items() if page["ms"] > PAGE_MS]
    wrong += [f"{name}: {page['bytes']} bytes" for name, page in found.items() if page["bytes"] > PAGE_BYTES]
    document = {"machine": machine(), "events": events, "automations": options.automations, "pages": found}
    print(json.dumps({**document, "wrong": wrong}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
