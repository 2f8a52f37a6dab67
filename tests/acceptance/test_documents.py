"""The OpenAPI and AsyncAPI documents of a real server say what it really answers and sends."""

from __future__ import annotations

import asyncio
import base64
import re
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import nats
import orjson
import pytest
from jsonschema import Draft202012Validator

from tests.patience import limit
from whenthen.engine.bus.datadir import embedded_url

from .conftest import Serving, eventually, run_command

#: one event of these makes a commit of 1,300 messages, more than an atomic batch takes
MANY = 100
RULES = """
webhooks:
  - {name: open, verify: none, map: {event: hooked, resource: {id: $.body.id}, when: body.id != 'none'}}
automations:
  - name: ordered
    tags: [orders]
    expected_every: 1h
    trigger: {expect: order.created, for_each: id, match: {id: "order.*"}, when: event.payload.total > 1}
    actions:
      - {emit-event: order.checked, resource: {id: "{{ event.resource.id }}"}}
      - {run-deployment: load, parameters: {order: $.resource.id}}
  - name: counted
    trigger: {expect: order.*, for_each: id, threshold: 3, within: 60s}
    actions: do-nothing
  - name: unshipped
    trigger: {expect: order.shipped, after: order.created, posture: proactive, within: 500ms, for_each: id}
    actions: do-nothing
  - name: void
    trigger: {expect: void.called}
    actions:
      - call-webhook: http://127.0.0.1:9/nobody-listens
        retry: {attempts: 2, delay: 50ms}
work_pools:
  - {name: default, limit: 100}
limits:
  - {name: database, slots: 1}
  - {name: api, slots: 100, per_second: 100}
deployments:
  - name: load
    command: echo loading
    concurrency_limit: 2
    timeout: 60s
    working_dir: .
    parameters: {order: none}
    schedules: [{name: nightly, cron: "0 3 * * *", timezone: Europe/Berlin}]
  - {name: slow, command: sleep 600, concurrency: {limit: 3, key: $.parameters.customer}}
  - {name: counting, entrypoint: "flows.py:count"}
  - {name: telling, entrypoint: "flows.py:tell", task_run_events: true}
  - {name: lasting, entrypoint: "flows.py:last"}
"""
PASSING = (
    "automations: [{name: passing, trigger: {expect: passing.seen, threshold: 2, within: 1h}, actions: do-nothing}]"
)
FLOWS = """
def count():
    return {'rows': 3}

def tell():
    from whenthen import get_run_logger, task
    from whenthen.artifacts import create_markdown_artifact
    from whenthen.concurrency.sync import rate_limit
    from whenthen.events import emit_event

    @task
    def told():
        get_run_logger().info("told")

    emit_event("told.about", {"id": "it"}, payload={"n": 1})
    rate_limit("api")
    create_markdown_artifact("told", key="told")
    told()

def last():
    import time

    time.sleep(600)
"""
MANY_RULES = "automations:\n" + "".join(
    f"  - {{name: many-{number}, trigger: {{expect: many.things}}, actions: [{', '.join(['do-nothing'] * 12)}]}}\n"
    for number in range(MANY)
)
#: a window larger than a message of the embedded server takes tens of thousands of events; tests/integration/test_sizes.py has some
#: the record of the format is written before anybody can listen; tests/integration/test_formats.py has it. What can not be read
#: is not made here; tests/unit/engine/evaluation/test_set_aside.py has it
#: Hangs: tests/integration/test_hung_events.py
#: RefusedRequest: tests/integration/engine/senders/test_refused_requests.py; SourceGone: tests/integration/sources/test_source_reports.py
NOT_SENT = {
    "WindowPart",
    "Format",
    "UnreadableWindow",
    "Skip",
    "HungEvent",
    "HungAction",
    "RefusedRequest",
    "SourceGone",
}
#: of which an empty message says something, too
MAY_BE_EMPTY = ("Tick", "ActionTask", "DeadLetter", "Probe", "AsideMessage", "ReaderReport", "WebhookReport")
SUBJECTS = (
    "events.>",
    "ticks.>",
    "skips.>",
    "rules.*",
    "pauses.*",
    "rulesets.>",
    "decisions.*",
    "audit.*",
    "senders.>",
    "history.ask",
    "task-runs.>",
    "told-events.>",
    "artifacts.>",
    "engine.>",
    "runs.>",
    "logs.>",
    "$KV.>",
)


class Recorder:
    """Everything that is sent on our subjects, heard by a client of its own."""

    def __init__(self, url: str) -> None:
        self.messages: list[tuple[str, bytes, Mapping[str, str]]] = []
        self._url = url
        self._listening = threading.Event()
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._listen()))

    def __enter__(self) -> Recorder:
        self._thread.start()
        assert self._listening.wait(limit(20))
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(limit(20))

    async def _listen(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        client = await nats.connect(self._url)

        async def receive(message: Any) -> None:
            self.messages.append((message.subject, message.data, message.headers or {}))

        for subject in SUBJECTS:
            await client.subscribe(subject, cb=receive)
        await client.flush()
        self._listening.set()
        await self._stop.wait()
        await client.close()


class Asked:
    """A client that remembers each answer with the operation of the document that it belongs to."""

    def __init__(self, client: httpx.Client) -> None:
        self._http = client
        self.headers = client.headers
        self.document: dict[str, Any] = self._http.get("/openapi.json").json()
        self.answers: dict[tuple[str, str], list[httpx.Response]] = defaultdict(list)

    def __call__(self, method: str, path: str, **request: Any) -> httpx.Response:
        return self._note(method, self._http.request(method, path, **request))

    def begin(self, path: str) -> httpx.Response:
        """The beginning of an answer that has no end."""
        with self._http.stream("GET", path) as answer:
            begun = next(answer.iter_bytes())
            head = httpx.Response(answer.status_code, headers=answer.headers, content=begun, request=answer.request)
        return self._note("GET", head)

    def _note(self, method: str, answer: httpx.Response) -> httpx.Response:
        steps = answer.request.url.raw_path.decode().partition("?")[0].split("/")
        for template in sorted(self.document["paths"], key=lambda text: text.count("{")):
            wanted = template.split("/")
            if len(steps) == len(wanted) and all(
                want == step or want.startswith("{") for want, step in zip(wanted, steps, strict=True)
            ):
                self.answers[(method.lower(), template)].append(answer)
                return answer
        raise AssertionError(f"{answer.request.url} is not in the document")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Asked, Recorder]]:
    """What a server answered and sent while everything that it can do was done once."""
    folder = tmp_path_factory.mktemp("documents")
    unfit = "map: {event: file.came, resource: {id: $.body.nobody}}"
    drops = (
        f"sources: [{{name: drops, read: {{type: folder, path: '{folder}', match: '*.csv'}}}}, "
        f"{{name: unfit, read: {{type: folder, path: '{folder}', match: '*.txt'}}, {unfit}}}]"
    )
    server = Serving(folder, {"rules.yaml": RULES, "many.yaml": MANY_RULES, "flows.py": FLOWS, "drops.yaml": drops})
    server.start()
    try:
        ask = Asked(server.client())
        with Recorder(embedded_url(server.data_dir)) as recorder:
            _do_everything(server, ask, recorder)
        yield ask, recorder
    finally:
        server.stop()


def _do_everything(server: Serving, ask: Asked, recorder: Recorder) -> None:
    order = {"event": "order.created", "resource": {"id": "order.1"}, "payload": {"total": 7}}
    event_id = ask("POST", "/api/events", json=[order, {**order, "payload": {"total": 0}}]).json()["ids"][0]
    cloud = {"specversion": "1.0", "type": "order.paid", "source": "shop", "id": "7", "data": {"a": [1, None]}}
    ask("POST", "/api/events", json=cloud, headers={"Content-Type": "application/cloudevents+json"})
    ask("POST", "/api/events", json={"event": "void.called", "resource": {"id": "void"}})
    ask("POST", "/api/events", json={"event": "many.things", "resource": {"id": "many"}})
    ask("POST", "/api/events", json={"event": 3})
    ask("POST", "/api/events", content=b"{", headers={"Content-Type": "text/csv"})
    ask("POST", "/hooks/open", json={"id": "x"})
    ask("POST", "/hooks/open", json={"id": "none"})
    ask("POST", "/hooks/nobody", json={})
    # a file that is there before the folder is looked at for the first time is none that came
    eventually(
        lambda: (
            {each["state"] for each in ask("GET", "/api/sources").json() if each["kind"] != "webhook"} == {"reading"}
        )
    )
    for name in ("drop.csv", "drop.txt"):  # in the folder that is read
        (server.rules.parent / name).write_text("a,b")
    for prefix in ("$KV.WT_sources.state.", "senders.aside."):
        eventually(lambda prefix=prefix: [subject for subject, *_ in recorder.messages if subject.startswith(prefix)])
    ask("POST", "/api/sources/resend")
    ask("POST", "/api/sources/try", json={"webhook": "open", "body": base64.b64encode(b'{"id": "x"}').decode()})
    ask("POST", "/api/sources/try", json={"webhook": "nobody"})
    ask("POST", "/api/sources/try", json={"webhook": "open", "body": "no base64"})
    ask("POST", "/hooks/open", content=b"{", headers={"Content-Type": "application/json"})
    for path in ("/healthz", "/readyz", "/metrics", "/asyncapi.json"):
        ask("GET", path)

    run = ask("POST", "/api/deployments/counting/run", json={"key": "once", "delay": 0.01}).json()["id"]
    eventually(lambda: ask("GET", f"/api/runs/{run}").json()["state"] == "Completed")
    telling = ask("POST", "/api/deployments/telling/run").json()["id"]
    eventually(lambda: ask("GET", f"/api/runs/{telling}").json()["state"] == "Completed")
    assert ask("GET", f"/api/runs/{telling}/task-runs").json()["task_runs"][0]["name"] == "told"
    assert ask("GET", f"/api/runs/{telling}/logs").json()["lines"][-1]["level"] == 20
    eventually(lambda: ask("GET", "/api/events?event=told.about").json())
    eventually(lambda: ask("GET", "/api/events?event=task-run.Completed").json())
    eventually(lambda: ask("GET", f"/api/artifacts?run={telling}").json())
    for path in ("/api/artifacts/told", "/api/artifacts/nobody", "/api/artifacts?key=A", "/api/limits"):
        ask("GET", path)
    for body in ({"value": {"a": 1}, "tags": ["t"]}, {"value": 1}, {"value": 2, "overwrite": True}, {"valu": 1}):
        ask("POST", "/api/variables/region", json=body)
    for path in ("/api/variables", "/api/variables/region", "/api/variables/nobody", "/api/variables/A"):
        ask("GET", path)
    ask("POST", "/api/variables/region/unset")
    ask("POST", "/api/variables/A/unset")
    lease = ask("POST", "/api/leases", json={"names": ["database"], "lease_s": 60}).json()["lease"]
    for body in ({"names": ["database"]}, {"names": ["nobody"]}, {"names": ["database"], "occupy": 2}, {}):
        ask("POST", "/api/leases", json=body)
    for verb in ("renew", "release", "renew", "release"):
        ask("POST", f"/api/leases/{lease}/{verb}")
    slow = ask("POST", "/api/deployments/slow/run").json()["id"]
    eventually(lambda: ask("GET", f"/api/runs/{slow}").json()["state"] == "Running")
    ask("POST", f"/api/runs/{slow}/cancel")
    eventually(lambda: ask("GET", f"/api/runs/{slow}").json()["state"] == "Cancelled")
    ask("POST", f"/api/runs/{telling}/retry")
    lasting = ask("POST", "/api/deployments/lasting/run").json()["id"]
    eventually(lambda: ask("GET", f"/api/runs/{lasting}").json()["state"] == "Running")
    ask("POST", f"/api/runs/{lasting}/pause")
    ask("POST", f"/api/runs/{lasting}/cancel")
    held = ask("POST", "/api/deployments/slow/run", json={"delay": 3600}).json()["id"]
    ask("POST", f"/api/runs/{held}/suspend", json={"for": "2h"})
    assert ask("GET", f"/api/runs/{held}").json()["pause"]["until"]
    ask("POST", f"/api/runs/{held}/suspend", json={"for": "soon"})
    ask("POST", f"/api/runs/{held}/pause")
    ask("POST", f"/api/runs/{held}/resume", json={"input": {"n": 1}})
    ask("POST", f"/api/runs/{held}/resume")
    ask("POST", f"/api/runs/{held}/resume")
    ask("POST", f"/api/runs/{held}/state", json={"state": "Done"})
    ask("POST", f"/api/runs/{held}/delete")
    ask("POST", f"/api/runs/{held}/state", json={"state": "Cancelled", "message": "no use"})
    assert ask("POST", f"/api/runs/{held}/delete").json()["state"] == "Cancelled"
    ask("POST", f"/api/runs/{'0' * 32}/retry")
    ask("POST", "/api/deployments/slow/run", json={"dely": 1})
    loaded = eventually(lambda: ask("GET", "/api/runs?deployment=load&state=completed").json())[0]
    eventually(lambda: ask("GET", f"/api/runs/{loaded['id']}/logs").json()["lines"])
    for verb in ("pause", "resume"):
        ask("POST", f"/api/deployments/load/{verb}", params={"schedule": "nightly"})
        ask("POST", f"/api/deployments/load/{verb}")
        ask("POST", f"/api/automations/ordered/{verb}")
    for path in (
        "/api/deployments",
        "/api/deployments/load",
        "/api/deployments/slow",
        "/api/deployments/counting",
        "/api/deployments/nobody",
    ):
        ask("GET", path)

    for method in ("GET", "POST"):
        ask(method, "/api/deployments/load/backfill?since=2d&until=0s")
        ask(method, "/api/deployments/load/backfill?since=9000d&until=0s")
        ask(method, "/api/deployments/nobody/backfill?since=2d&until=0s")
    for verb in ("pause", "resume"):
        ask("POST", f"/api/work-pools/default/{verb}")
    ask("POST", "/api/work-pools/nobody/pause")
    assert [pool["name"] for pool in ask("GET", "/api/work-pools").json()] == ["default"]
    eventually(lambda: ask("GET", "/api/workers").json())

    dead = eventually(lambda: ask("GET", "/api/actions?outcome=dead").json())[0]
    ask("POST", f"/api/actions/{dead['key']}/redrive")
    ask("POST", "/api/actions/nobody.0/redrive")
    eventually(lambda: ask("GET", "/api/actions?outcome=executed").json())
    eventually(lambda: len(ask("GET", "/api/firings?limit=1000").json()) >= MANY)
    for path in ("/api/actions", "/api/actions?outcome=waiting", "/api/actions?before=x", "/api/events?event=order.*"):
        ask("GET", path)
    ask("GET", f"/api/events/{event_id}")
    for path in (
        f"/api/firings/{dead['firing']}",
        f"/api/actions/{dead['key']}",
        f"/api/runs/{loaded['id']}/logs?tail=3",
    ):
        ask("GET", path)
    ask("GET", "/api/events?since=1h&label=id=order.1&sorce=x")
    for path in (
        "/api/automations",
        "/api/automations/ordered",
        "/api/automations/nobody",
        "/api/automations/counted/windows",
        "/api/sources",
        "/api/sources/refused?limit=5",
        "/api/status",
    ):
        ask("GET", path)
    for name in ("ordered", "nobody"):
        ask("GET", f"/api/automations/{name}/windows")
    eventually(lambda: len(ask("GET", "/api/automations/ordered/decisions").json()) >= 2)
    eventually(lambda: ask("GET", "/api/audit", params={"kind": "request-*"}).json())
    for wanted in (event_id, loaded["id"], dead["key"], "no such thing"):
        ask("GET", f"/api/trace/{wanted}")
    eventually(
        lambda: ask("GET", "/api/history/decisions", params={"automation": "ordered", "since": "1h"}).json()["items"]
    )
    for path in (
        "",
        "/events?name=order.*&label=id=order.1",
        "/events?id=a",
        "/firings/counts?by=automation",
        "/runs?since=x",
    ):
        ask("GET", f"/api/history{path}")
    ask("GET", "/api/record", params={"automation": "ordered", "event": event_id})
    ask("GET", "/api/record", params={"firing": "nothing"})
    ask("GET", "/api/record")
    for query in ({"event": event_id}, {"at": "2026-01-31T08:00:00Z", "key": "id=order.1"}, {"at": "x"}):
        ask("GET", "/api/why", params={"automation": "ordered", **query})
    ask("GET", "/api/why", params={"automation": "unshipped", "event": event_id})
    ask("POST", "/api/rules/reload")
    server.write("passing.yaml", PASSING)
    ask("POST", "/api/rules/reload")
    ask("POST", "/api/events", json={"event": "passing.seen", "resource": {"id": "p"}})
    eventually(lambda: ask("GET", "/api/automations/passing/decisions").json())
    server.write("passing.yaml", "automations: []")  # the file stays, so the automation goes at once
    ask("POST", "/api/rules/reload")
    ask("POST", "/api/events", json={"event": "order.created", "resource": {"id": "order.2"}, "payload": {"total": 0}})
    eventually(lambda: ask("GET", "/api/orphans").json())
    ask("POST", "/api/orphans/passing/forget")
    rules = {"files": [{"name": "rules.yaml", "text": RULES}, {"name": "many.yaml", "text": MANY_RULES}], "who": "ana"}
    ask("POST", "/api/rules/plan", json=rules)
    ask("POST", "/api/rules/plan", json={"files": [{"name": "../x.yaml", "text": ""}]})
    ask("POST", "/api/rules/apply", json={**rules, "expected": 1})
    ask("POST", "/api/rules/apply", json={})
    registered = {"rule": {"name": "etl/registered", "command": "true"}, "triggers": [{"expect": ["x"]}]}
    ask("POST", "/api/rules/deployments", json={"deployments": [registered], "script": "/srv/etl.py", "who": "ana"})
    ask("GET", "/api/deployments/etl%2Fregistered")
    ask("POST", "/api/rules/deployments", json={"deployments": [{"rule": {"name": "etl/registered"}}]})
    ask("POST", "/api/rules/deployments", json={"remove": ["etl/nobody"]})
    ask("POST", "/api/rules/deployments", json={"remove": ["etl/registered"], "preview": True})
    ask("POST", "/api/rules/deployments", json={"remove": ["etl/registered"]})
    ask("POST", "/api/rules/revisions/1/rollback", json={"who": "ana"})
    ask("POST", "/api/rules/revisions/999/rollback")
    ask("POST", "/api/rules/apply")
    ask("GET", "/api/rules/revisions")
    ask("GET", "/api/rules/revisions/1")
    ask("GET", "/api/rules/revisions/999")
    ask("GET", "/api/log?since=1h")
    ask("GET", "/api/log?since=yesterday")
    ask("GET", "/api/actions/dead/count")
    given_up = eventually(lambda: ask("GET", "/api/actions?outcome=dead").json())[0]
    ask("POST", f"/api/actions/{given_up['key']}/drop")
    server.write("bad.yaml", "automations: [{name: x}]")
    assert ask("POST", "/api/rules/reload").status_code == 400
    ask("GET", "/api/status")
    ask("GET", "/api/backup")
    assert ask.begin("/api/stream?of=events&name=order.*").content.startswith(b"retry: ")
    assert ask("GET", "/api/stream?of=audit&automation=ordered").status_code == 400

    token = {"name": "ci", "scopes": ["read", "emit"], "lasts": "1d"}
    value = ask("POST", "/api/tokens", json=token).json()["value"]
    ask("POST", "/api/tokens", json=token)
    ask("POST", "/api/tokens", json={"name": "ci", "scopes": ["root"]})
    ask("GET", "/api/tokens")
    ask("GET", "/api/session")
    ask("POST", "/api/rules/reload", headers={"Authorization": f"Bearer {value}"})
    address = ask("POST", "/api/login-addresses").json()["path"]
    for path in ("/login", address, address):
        ask("GET", path)
    ask("POST", "/login", json={"token": "wrong"})
    ask("POST", "/login", content=b"x")
    with_token = ask.headers.pop("authorization")
    proof = ask("POST", "/login", json={"token": value}).json()["csrf_token"]
    origin = {"Origin": server.url}
    ask("POST", "/logout", headers=origin)
    ask("POST", "/logout", headers={**origin, "X-CSRF-Token": proof})
    ask("POST", "/logout", headers=origin)
    ask.headers["authorization"] = with_token
    ask("POST", "/api/tokens/ci/revoke")
    ask("POST", "/api/tokens/ci/revoke")
    for prefix in ("$KV.WT_heartbeats.", "ticks."):
        eventually(lambda prefix=prefix: any(subject.startswith(prefix) for subject, _, _ in recorder.messages))


def test_every_answer_of_every_route_is_of_the_published_schema(told: tuple[Asked, Recorder]) -> None:
    ask, _ = told
    operations = {(method, path) for path, found in ask.document["paths"].items() for method in found}
    assert set(ask.answers) == operations, "each route is asked"
    for (method, path), answers in ask.answers.items():
        succeeded = False
        for answer in answers:
            where = f"{method} {path}: {answer.status_code} {answer.text[:300]}"
            described = ask.document["paths"][path][method]["responses"].get(str(answer.status_code))
            assert described is not None, where
            content = described.get("content", {})
            succeeded |= answer.is_success
            if "application/json" in content:
                schema = {**content["application/json"]["schema"], "components": ask.document["components"]}
                errors = [error.message for error in Draft202012Validator(schema).iter_errors(answer.json())]
                assert errors == [], where
        assert succeeded, f"{method} {path} was never answered with success"


def test_an_answer_has_each_key_that_its_model_does_not_call_absent(told: tuple[Asked, Recorder]) -> None:
    ask, _ = told
    (run,) = ask("GET", "/api/runs?limit=1").json()
    assert set(run) == set(ask.document["components"]["schemas"]["FlowRunDetail"]["properties"])
    detail = ask("GET", "/api/automations/ordered").json()
    assert set(detail) == set(ask.document["components"]["schemas"]["AutomationDetail"]["properties"])
    assert detail["trigger"]["for_each"] == ["id"]
    assert "expected_every" not in ask("GET", "/api/automations/counted").json()
    assert "entrypoint" not in ask("GET", "/api/deployments/load").json()
    assert ask("GET", "/api/deployments/counting").json()["parameter_schema"]["properties"] == {}
    assert "lineage" not in ask("GET", "/api/events?event=order.created").json()[0]
    assert ask("GET", "/api/events?event=order.checked").json()[0]["lineage"]["automations"] == ["ordered"]


def test_every_message_that_was_sent_is_of_the_published_schema(told: tuple[Asked, Recorder]) -> None:
    ask, recorder = told
    document = ask("GET", "/asyncapi.json").json()
    components = document["components"]
    patterns = {name: _pattern(channel["address"]) for name, channel in document["channels"].items()}
    validators = {
        name: Draft202012Validator({**components["messages"][f"{name}:Message"]["payload"], "components": components})
        for name in patterns
    }
    seen: dict[str, int] = defaultdict(int)
    for subject, data, headers in recorder.messages:
        (name,) = [name for name, pattern in patterns.items() if pattern.fullmatch(subject)] or [None]
        assert name is not None, f"no channel for {subject}"
        if not data and ("KV-Operation" in headers or name in MAY_BE_EMPTY):
            seen[name] += name in ("Tick", "Probe")
            continue
        payload = _decode(data, components["messages"][f"{name}:Message"]["contentType"])
        errors = [error.message for error in validators[name].iter_errors(payload)]
        assert errors == [], f"{subject}: {data[:300]!r}"
        seen[name] += 1
    assert {name for name in patterns if not seen[name]} <= NOT_SENT, "each kind of message was sent"


def test_the_command_prints_the_document_that_the_server_serves(told: tuple[Asked, Recorder]) -> None:
    ask, _ = told
    printed = run_command("asyncapi")
    assert printed.returncode == 0, printed.stderr
    assert orjson.loads(printed.stdout) == ask("GET", "/asyncapi.json").json()


def _pattern(address: str) -> re.Pattern[str]:
    """What fits an address; an event's name has several tokens."""
    parts = re.split(r"\{(\w+)\}", address)
    text = "".join(
        re.escape(part) if place % 2 == 0 else (".+" if part == "event" else "[^.]+")
        for place, part in enumerate(parts)
    )
    return re.compile(text)


def _decode(data: bytes, content_type: str) -> Any:
    if content_type == "application/json":
        return orjson.loads(data)
    if content_type == "application/vnd.whenthen.line":
        return orjson.loads(data.partition(b"\n")[0])
    return data.decode("latin-1" if content_type == "application/octet-stream" else "utf-8")
