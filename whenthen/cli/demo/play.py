"""Sets the stage, sends the requests, watches until everything was seen, tells it, and cleans up."""

from __future__ import annotations

import base64
import contextlib
import secrets
import signal
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from whenthen.cli.client import Client, quoted
from whenthen.cli.demo.payloads import Delivery, push, upload
from whenthen.cli.demo.receiver import Receiver
from whenthen.cli.demo.stage import Stage, copy_project
from whenthen.cli.demo.story import CHAPTERS, INCIDENTS, NOTIFICATIONS, Line, Missing, Seen, Sent
from whenthen.cli.output import stdout

__all__ = ["play"]

WITHIN_S = 60.0  #: from the first request until everything was seen
LOOK_EVERY_S = 0.15
ID_CHARS = 20  #: of an id in the timeline
LOG_TAIL = 40  #: lines of the server's log that are shown when something is missing


def play(keep: Path | None, *, stay: bool = False) -> bool:
    """Whether every step was observed. With `stay` the server goes on until it is interrupted. Whatever happens, the server is stopped and, without `keep`, nothing is left."""
    signal.signal(signal.SIGTERM, _interrupt)
    began = time.monotonic()
    out = stdout()
    with tempfile.TemporaryDirectory(prefix="whenthen-demo-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            folder = keep.resolve()
        rules = copy_project(folder)
        with Receiver() as receiver:
            used = _secrets(receiver)
            stage = Stage(folder, rules, secrets=used)
            with stage, Client(stage.url, token=stage.token) as client:
                out.print("[bold]whenthen demo[/]: a push, an upload, and a schedule that keeps failing")
                out.print(f"  server {stage.url} (process {stage.pid}), rules in {escape(str(rules))}\n")
                seen = _watch(client, receiver, used)
                missing = _tell(out, seen)
                if stay:
                    _stay(out, client, stage.token)
                if missing is not None:
                    _explain(out, client, missing)
        missing = missing or _check_ending(stage, used)
        if missing is not None:
            out.print(f"[bold red]not observed:[/] {escape(str(missing))}")
            out.print("\n".join(["the server's log ends with:", *stage.log().splitlines()[-LOG_TAIL:]]), markup=False)
            return False
        out.print(
            f"[bold green]Every step was observed[/] in {time.monotonic() - began:.1f} s; the server drained and ended with 0."
        )
        if keep is not None:
            out.print(
                f"The project is in {escape(str(rules))}; `whenthen test {escape(str(rules))}` runs its own tests."
            )
    return True


def _stay(out: Console, client: Client, token: str) -> None:
    """Say where the pages are, and wait for an interruption."""
    made = client.post("/api/login-addresses")
    out.print("[bold]Look at it[/]: this address logs a browser in, once:")
    out.print(f"  {client.url}{made['path']}", soft_wrap=True, markup=False, highlight=False)
    out.print(f"  (later: {client.url} with the token {token})", soft_wrap=True, markup=False, highlight=False)
    out.print("In another terminal, `whenthen` commands reach it after:")
    out.print(
        f"  export WHENTHEN_URL={client.url} WHENTHEN_API_TOKEN={token}", soft_wrap=True, markup=False, highlight=False
    )
    out.print("Ctrl-C stops the server and removes its data.")
    with contextlib.suppress(KeyboardInterrupt):
        sys.stdout.flush()  # whoever reads it may interrupt at once
        signal.pause()
    out.print()


def _secrets(receiver: Receiver) -> dict[str, str]:
    """The environment that the project's rules refer to."""
    return {
        "DEMO_GITHUB_SECRET": secrets.token_hex(20),
        "DEMO_STORAGE_TOKEN": secrets.token_hex(20),
        "DEMO_INCIDENT_SECRET": "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode(),
        "DEMO_NOTIFY_URL": f"json://{receiver.address}{NOTIFICATIONS}",
        "DEMO_INCIDENT_URL": f"http://{receiver.address}{INCIDENTS}",
    }


def _watch(client: Client, receiver: Receiver, used: dict[str, str]) -> Seen:
    """Send the requests, and look until every chapter can be told or the time is up."""
    now = datetime.now(UTC)
    pushed = push(used["DEMO_GITHUB_SECRET"], now)
    forged = replace(push("not the secret", now), about="somebody forges a push")
    with httpx.Client(base_url=client.url, timeout=10, trust_env=False) as http:
        seen = Seen(
            push=_send(http, pushed),
            forged=_send(http, forged),
            upload=_send(http, upload(used["DEMO_STORAGE_TOKEN"], now)),
            signing_secret=used["DEMO_INCIDENT_SECRET"],
        )
        until = time.monotonic() + WITHIN_S
        while True:
            seen = _look(client, receiver, seen)
            if seen.again is None and any(run["state"] == "Completed" for run in seen.runs):
                again = replace(pushed, about="GitHub delivers the push again")
                seen = replace(seen, again=_send(http, again))
            if _first_missing(seen) is None or time.monotonic() > until:
                return seen
            time.sleep(LOOK_EVERY_S)


def _send(http: httpx.Client, delivery: Delivery) -> Sent:
    at = datetime.now(UTC)
    response = http.post(delivery.path, content=delivery.body, headers=delivery.headers)
    answer: dict[str, Any] = response.json()
    return Sent(
        at=at,
        path=delivery.path,
        about=delivery.about,
        status=response.status_code,
        ids=tuple(answer.get("ids", ())),
        duplicates=tuple(answer.get("duplicates", ())),
    )


def _look(client: Client, receiver: Receiver, seen: Seen) -> Seen:
    runs = client.get("/api/runs", limit=100)
    logs = dict(seen.logs)
    for run in runs:
        if run["state"] == "Completed" and not logs.get(run["id"]):
            found = client.get(f"/api/runs/{quoted(run['id'])}/logs")
            logs[run["id"]] = [line["text"] for line in found["lines"]]
    return replace(
        seen,
        runs=runs,
        logs=logs,
        events=client.get("/api/events", limit=500),
        firings=client.get("/api/firings", limit=100),
        deployments=client.get("/api/deployments"),
        notifications=receiver.received(NOTIFICATIONS),
        incidents=receiver.received(INCIDENTS),
    )


def _first_missing(seen: Seen) -> Missing | None:
    for chapter in CHAPTERS:
        try:
            chapter.tell(seen)
        except Missing as missing:
            return missing
    return None


def _tell(out: Console, seen: Seen) -> Missing | None:
    """Print what was seen, chapter by chapter; what is missing first, if anything is."""
    start = seen.push.at
    for number, chapter in enumerate(CHAPTERS, 1):
        try:
            lines = chapter.tell(seen)
        except Missing as missing:
            out.print(f"[bold red]{number}  {escape(chapter.title)}[/]")
            return missing
        out.print(f"[bold]{number}  {escape(chapter.title)}[/]")
        out.print(_timeline(lines, start))
        out.print()
    return None


def _timeline(lines: list[Line], start: datetime) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(justify="right", style="dim", min_width=8)
    table.add_column(min_width=29, no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(style="dim", no_wrap=True)
    for line in sorted(lines, key=lambda line: line.at):
        offset = (line.at - start).total_seconds()
        shown = line.id if len(line.id) <= ID_CHARS else line.id[: ID_CHARS - 1] + "…"
        table.add_row(f"{offset:.3f} s", escape(line.what), escape(line.about), escape(shown))
    return table


def _explain(out: Console, client: Client, missing: Missing) -> None:
    """The last decisions of the automation in question, or of all."""
    names = [missing.automation] if missing.automation else [item["name"] for item in client.get("/api/automations")]
    for name in names:
        out.print(f"decisions of {escape(name)}, newest first:")
        for item in client.get(f"/api/automations/{quoted(name)}/decisions", limit=10):
            out.print(escape(f"  {item['at']}  {item['reason']}  {item['event'] or ''}  {item['detail']}"))
    out.print()


def _check_ending(stage: Stage, used: dict[str, str]) -> Missing | None:
    if stage.exit_code != 0:
        return Missing(f"the server drains and ends with 0 when it is told to stop (it ended with {stage.exit_code})")
    log = stage.log()
    told = [name for name in ("DEMO_GITHUB_SECRET", "DEMO_STORAGE_TOKEN", "DEMO_INCIDENT_SECRET") if used[name] in log]
    return Missing(f"no secret is in the server's log ({', '.join(told)} is)") if told else None


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Leave through the `with` blocks, which stop the server."""
    sys.stdout.flush()
    raise SystemExit(128 + signal.SIGTERM)
