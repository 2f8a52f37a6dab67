"""What must have happened, and how it is told. Pure: takes what was seen, gives a timeline's lines or what is missing.

Each chapter reads like the project's rules: what came in, which automation fired for it, what ran, what arrived outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from whenthen.cli.demo.payloads import UPLOAD_BYTES
from whenthen.cli.demo.receiver import Received, is_signed

__all__ = ["CHAPTERS", "INCIDENTS", "NOTIFICATIONS", "Chapter", "Line", "Missing", "Seen", "Sent"]

NOTIFICATIONS = "/notify"
INCIDENTS = "/incidents"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A request of the demo and its answer."""

    at: datetime
    path: str
    about: str
    status: int
    ids: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Everything that could be observed so far: the demo's own requests, the server's lists, and what arrived."""

    push: Sent
    forged: Sent
    upload: Sent
    again: Sent | None = None
    events: list[Json] = field(default_factory=list)
    firings: list[Json] = field(default_factory=list)
    runs: list[Json] = field(default_factory=list)
    logs: dict[str, list[str]] = field(default_factory=dict)  #: lines, by run
    deployments: list[Json] = field(default_factory=list)
    notifications: list[Received] = field(default_factory=list)
    incidents: list[Received] = field(default_factory=list)
    signing_secret: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the timeline."""

    at: datetime
    what: str
    about: str
    id: str = ""


class Missing(Exception):
    """A step was not observed. `automation` is whose decisions may say why."""

    def __init__(self, step: str, automation: str | None = None) -> None:
        super().__init__(step)
        self.automation = automation


@dataclass(frozen=True, slots=True)
class Chapter:
    """A part of the story. `tell` gives its lines in order, or raises `Missing`."""

    title: str
    tell: Callable[[Seen], list[Line]]


def _push(seen: Seen) -> list[Line]:
    lines = [_request(seen.push), *_event(seen, seen.push, "github.push")]
    firing = _firing(seen, "build-on-push", seen.push.ids[0])
    lines += [_fired(firing, at=lines[-1].at), *_run(seen, "build-shop", firing, log="built acme/shop at ")]
    if seen.forged.status != 403:
        raise Missing(f"a push with a forged signature is refused with 403 (answered {seen.forged.status})")
    lines.append(_request(seen.forged))
    if seen.again is None:
        raise Missing("the push is delivered a second time")
    if list(seen.again.duplicates) != list(seen.push.ids):
        raise Missing("the second delivery of the push is known to be the same event", "build-on-push")
    if len([run for run in seen.runs if run["deployment"] == "build-shop"]) != 1:
        raise Missing("two deliveries of one push give one run of build-shop", "build-on-push")
    return [*lines, _request(seen.again)]


def _upload(seen: Seen) -> list[Line]:
    lines = [_request(seen.upload), *_event(seen, seen.upload, "s3.file.uploaded")]
    rows = UPLOAD_BYTES // 40
    first = _firing(seen, "load-new-orders", seen.upload.ids[0])
    lines += [_fired(first, at=lines[-1].at), *_run(seen, "load-orders", first, log=f"loaded {rows} rows")]
    loaded = _run_of(seen, "load-orders", first)
    completed = [
        event
        for event in seen.events
        if event["event"] == "flow-run.Completed" and event["resource"]["id"] == f"whenthen.flow-run.{loaded['id']}"
    ]
    if not completed:
        raise Missing("the end of load-orders is an event, flow-run.Completed")
    second = _firing(seen, "report-after-load", completed[0]["id"])
    lines.append(_told(completed[0]))
    return [*lines, _fired(second), *_run(seen, "daily-report", second, log=f"report: {rows} new rows")]


def _failures(seen: Seen) -> list[Line]:
    failed = sorted(
        (run for run in seen.runs if run["deployment"] == "sync-partner" and run["state"] == "Failed"),
        key=lambda run: run["ended"],
    )
    if len(failed) < 3:
        raise Missing(f"three runs of sync-partner that its schedule started failed (so far {len(failed)})")
    lines = [
        Line(
            at=_time(run["ended"]),
            what="run sync-partner",
            about=f"Failed (exit code {run['exit_code']}), started by {run['triggered_by']}",
            id=run["id"],
        )
        for run in failed[:3]
    ]
    firing = _firing(seen, "pause-what-keeps-failing")
    if len(firing["events"]) != 3:
        raise Missing(f"it fired for three failures (it names {len(firing['events'])})", firing["automation"])
    lines.append(_fired(firing, note=" for the third failure"))
    found = next(item for item in seen.deployments if item["name"] == "sync-partner")
    if not all(schedule["paused"] for schedule in found["schedules"]):
        raise Missing("the schedule of sync-partner is paused", firing["automation"])
    paused = _outcome(seen, firing, "pause-deployment")
    lines.append(Line(at=_time(paused["occurred"]), what="schedule every-second", about="is paused", id=paused["id"]))
    return lines


def _outside(seen: Seen) -> list[Line]:
    firing = _firing(seen, "pause-what-keeps-failing")
    note = next((item for item in seen.notifications if "sync-partner is paused" in str(item.document)), None)
    if note is None:
        raise Missing("the notification arrives", firing["automation"])
    call = next((item for item in seen.incidents if item.headers.get("idempotency-key") == f"{firing['id']}.2"), None)
    if call is None:
        raise Missing("the outgoing webhook arrives with the action's idempotency key", firing["automation"])
    if not is_signed(call, seen.signing_secret):
        raise Missing("the outgoing webhook is signed with the secret of its rule", firing["automation"])
    return [
        Line(at=note.at, what=f"POST {NOTIFICATIONS}", about=f"“{note.document['title']}”: {note.document['message']}"),
        Line(
            at=call.at,
            what=f"POST {INCIDENTS}",
            about=f"“{call.document['title']}”, signature verified",
            id=call.headers["idempotency-key"],
        ),
    ]


CHAPTERS = (
    Chapter("A push is built, and only once", _push),
    Chapter("An uploaded file is loaded, and its load starts a report", _upload),
    Chapter("The third failing run pauses the schedule", _failures),
    Chapter("People and other systems are told", _outside),
)


def _request(sent: Sent) -> Line:
    same = ", the same event" if sent.duplicates else ""
    return Line(at=sent.at, what=f"POST {sent.path}", about=f"{sent.about}: {sent.status}{same}")


def _event(seen: Seen, sent: Sent, name: str) -> Iterable[Line]:
    if sent.status != 202 or not sent.ids:
        raise Missing(f"{sent.path} answers 202 with the event's id (answered {sent.status})")
    found = next((event for event in seen.events if event["id"] == sent.ids[0]), None)
    if found is None or found["event"] != name:
        raise Missing(f"the event {name} {sent.ids[0]} is stored")
    return [_told(found, at=_time(found["received"]))]


def _told(event: Json, at: datetime | None = None) -> Line:
    about = f"of {event['resource'].get('name', event['resource']['id'])}"
    if event["event"].startswith(("github.", "s3.")):
        about = f"of {event['resource']['id']}"
    return Line(at=at or _time(event["occurred"]), what=f"event {event['event']}", about=about, id=event["id"])


def _firing(seen: Seen, automation: str, event_id: str | None = None) -> Json:
    for firing in seen.firings:
        if firing["automation"] == automation and (event_id is None or firing["event"] == event_id):
            return firing
    raise Missing(f"{automation} fires" + (f" for event {event_id}" if event_id else ""), automation)


def _fired(firing: Json, *, at: datetime | None = None, note: str = "") -> Line:
    moment = _time(firing["at"])
    return Line(
        at=max(moment, at) if at else moment, what=f"rule {firing['automation']}", about=f"fires{note}", id=firing["id"]
    )


def _run_of(seen: Seen, deployment: str, firing: Json) -> Json:
    for run in seen.runs:
        if run["deployment"] == deployment and run["key"].startswith(f"{firing['id']}."):
            return run
    raise Missing(f"{firing['automation']} starts a run of {deployment}", firing["automation"])


def _run(seen: Seen, deployment: str, firing: Json, *, log: str) -> list[Line]:
    run = _run_of(seen, deployment, firing)
    if run["state"] != "Completed":
        raise Missing(f"run {run['id']} of {deployment} completes (it is {run['state']}: {run['message']})")
    told = [line for line in seen.logs.get(run["id"], ()) if log in line]
    if not told:
        raise Missing(f"the log of run {run['id']} of {deployment} says “{log}”")
    ended = _time(run["ended"])
    took = (ended - _time(run["started"])).total_seconds()
    what = f"run {deployment}"
    return [
        Line(at=_time(run["started"]), what=what, about="starts in a worker", id=run["id"]),
        Line(at=ended, what=what, about=f"Completed after {took:.2f} s: “{told[0]}”", id=run["id"]),
    ]


def _outcome(seen: Seen, firing: Json, action: str) -> Json:
    executed = [event for event in seen.events if event["event"] == "automation.action.executed"]
    for event in executed:
        payload = event["payload"]
        if payload["action"] == action and payload["key"].startswith(f"{firing['id']}."):
            return event
    raise Missing(f"{firing['automation']} reports that {action} was executed", firing["automation"])


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
