"""The users of deploy/nats/users.conf: every role does its work with its own, and may do nothing that is another role's."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import nats
import nats.errors
import pytest

from tests import forks
from tests.integration.conftest import NatsServer, eventually
from tests.patience import limit
from tests.plain_http import plain_client
from tests.ports import free_port
from whenthen.actions import spec_digest
from whenthen.engine.bus.buckets import KvBucket
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.streams import ENGINE, EVENTS, SOURCES, StreamSettings, ensure_streams
from whenthen.engine.bus.subjects import HISTORY_QUESTIONS
from whenthen.engine.execution.spec_store import SpecStore
from whenthen.engine.flow_runs.flow_streams import ensure_flow_stores
from whenthen.engine.live import KINDS
from whenthen.engine.process.senders.reader_reports import ReaderReports
from whenthen.engine.sources import SourceWatch
from whenthen.engine.sources.forgotten_states import forget_states
from whenthen.engine.sources.source_state import SourceState
from whenthen.schemas.errors import BusUnavailable

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
TOKEN = "token-of-this-test-0123456789"
USERS = ("api", "evaluator", "executor", "scheduler", "worker", "source", "history", "server", "system")
RULES = """
sources:
  - {name: drops, read: {type: folder, path: FOLDER, stable: 0s, existing: report}}
deployments:
  - name: note
    command: [sh, -c, "echo done"]
automations:
  - name: a
    trigger: {expect: order.placed}
    actions: [{run-deployment: note}]
"""
WRITES = {
    "worker": [
        "rulesets.revision.2",
        "rules.2",
        "engine.action.a.b.0",
        "engine.shard.0.offset",
        "engine.outcome.a.b.0",
        "events.stolen",
        "ticks.0",
        "$KV.WT_specs.x",
        "$KV.WT_leases.shard.0",
        "$KV.WT_state.x",
        "$JS.API.STREAM.MSG.GET.ENGINE",
        "$JS.API.STREAM.MSG.GET.EVENTS",
        "$JS.API.DIRECT.GET.KV_WT_specs",
        "$JS.API.CONSUMER.CREATE.ENGINE.mine",
        "$JS.API.CONSUMER.MSG.NEXT.ENGINE.actions",
        "$JS.ACK.ENGINE.actions.1.1.1.1.0",
        "$JS.API.STREAM.CREATE.MINE",
        "$JS.API.STREAM.DELETE.RUNS",
        "_INBOX_executor.x.y",
    ],
    "executor": [
        "rulesets.revision.2",
        "rules.2",
        "engine.action.a.b.0",
        "engine.shard.0.offset",
        "$KV.WT_specs.x",
        "$KV.WT_leases.shard.0",
        "logs.x",
    ],
    "scheduler": [
        "rulesets.revision.2",
        "rules.2",
        "engine.action.a.b.0",
        "engine.dead.a.b.0",
        "$KV.WT_specs.x",
        "$JS.API.DIRECT.GET.KV_WT_specs",
    ],
    "source": [
        "rulesets.revision.2",
        "engine.action.a.b.0",
        "engine.outcome.a.b.0",
        "runs.default.x.y",
        "engine.dead.a.b.0",
        "decisions.0",
        "pauses.x",
        "logs.x",
        "$KV.WT_leases.shard.0",
        "$KV.WT_state.x",
        "$KV.WT_specs.x",
        "$KV.WT_runs.x",
        "$JS.API.STREAM.CREATE.MINE",
        "$JS.API.STREAM.DELETE.EVENTS",
        "$JS.API.STREAM.MSG.DELETE.EVENTS",
        "$JS.API.STREAM.PURGE.SENDERS",
        "$JS.API.CONSUMER.CREATE.EVENTS.mine",
        "$JS.API.CONSUMER.CREATE.RUNS.mine",
        "$JS.API.DIRECT.GET.KV_WT_specs",
    ],
    "history": [
        "events.a",
        "engine.outcome.a.b.0",
        "audit.x",
        "decisions.0",
        "senders.reader.x",
        "runs.default.x.y",
        "rulesets.revision.2",
        "pauses.x",
        "$KV.WT_runs.x",
        "$KV.WT_state.x",
        "$KV.WT_sources.x",
        "$KV.WT_leases.shard.0",
        "$JS.API.STREAM.CREATE.MINE",
        "$JS.API.STREAM.DELETE.EVENTS",
        "$JS.API.STREAM.PURGE.EVENTS",
        "$JS.API.STREAM.MSG.DELETE.AUDIT",
        "$JS.API.DIRECT.GET.SENDERS",
    ],
    "evaluator": ["runs.default.x.y", "engine.outcome.a.b.0", "$KV.WT_runs.x", "$JS.API.STREAM.CREATE.MINE"],
    "api": ["ticks.0", "engine.shard.0.offset", "engine.firing.a.b", "$KV.WT_leases.shard.0"],
    "server": [],
}
#: what opens the API, and who may read or write it
SECRETS = (
    "$KV.WT_tokens.tokens",
    "$KV.WT_sessions.x",
    "$JS.API.STREAM.MSG.GET.KV_WT_tokens",
    "$JS.API.STREAM.MSG.GET.KV_WT_sessions",
    "$JS.API.DIRECT.GET.KV_WT_tokens",
    "$JS.API.DIRECT.GET.KV_WT_tokens.$KV.WT_tokens.tokens",
    "$JS.API.CONSUMER.CREATE.KV_WT_tokens.mine",
    "$JS.API.STREAM.PURGE.KV_WT_tokens",
    "$JS.API.STREAM.SNAPSHOT.KV_WT_tokens",
)
KEEPING = {"api", "server"}
#: who asks the history, and who may answer
ASKING, ANSWERING = {"api", "server"}, {"history", "server"}
READS = (">", "_INBOX.>", "_INBOX_server.>", "events.>", "engine.>", "$JS.API.>", "$KV.>")


def url(server: NatsServer, user: str) -> str:
    return f"nats://{user}:of-{user}@127.0.0.1:{server.port}"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NatsServer]:
    for user in USERS:
        monkeypatch.setenv(f"NATS_{user.upper()}_PASSWORD", f'"of-{user}"')
    server = NatsServer(tmp_path / "nats", extra='include "users.conf"')
    shutil.copy(ROOT / "deploy" / "nats" / "users.conf", tmp_path / "nats")
    server.start()
    yield server
    server.stop()


def process(folder: Path, server: NatsServer, role: str, port: int, name: str = "") -> forks.Forked:
    name = name or role
    words = ["serve", str(folder / "rules"), "--role", role]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WHENTHEN_", "NATS_"))}
    with (folder / f"{name}.log").open("wb") as log:
        return forks.start(
            [*words, "--port", str(port), "--data-dir", str(folder / name)],
            env={**kept, "WHENTHEN_NATS_URL": url(server, role), "WHENTHEN_API_TOKEN": TOKEN},
            cwd=folder,
            stdout=log,
            stderr=log,
        )


@pytest.mark.takes(15)
def test_one_process_of_each_role_takes_an_event_to_a_run_that_completes(tmp_path: Path, server: NatsServer) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "rules.yaml").write_text(RULES.replace("FOLDER", str(tmp_path / "rules")))
    port = free_port()
    roles = ("api", "evaluator", "executor", "scheduler", "worker", "source", "history")
    with (
        ExitStack() as started,
        plain_client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {TOKEN}"}) as client,
    ):
        for role in roles:
            one = process(tmp_path, server, role, port)
            started.callback(one.wait)
            started.callback(one.terminate)
            if role == "api":  # which makes the streams
                asyncio.run(eventually(lambda: answers(client, "/readyz"), within_s=60))
        event = {"event": "order.placed", "resource": {"id": "order.1"}, "payload": {}}
        assert client.post("/api/events", json=event).status_code == 202
        asyncio.run(eventually(lambda: completed(client), within_s=90))
        asyncio.run(eventually(lambda: stored(client, "file.created"), within_s=30))
        asyncio.run(
            eventually(lambda: client.get("/api/history/runs", timeout=limit(10)).json().get("items"), within_s=60)
        )
        asyncio.run(eventually(lambda: caught_up(client), within_s=60))
        made = client.post("/api/tokens", json={"name": "ci", "scopes": ["read"]}).json()
        ci = {"Authorization": f"Bearer {made['value']}"}
        assert client.post("/login", json={"token": made["value"]}).status_code == 200
        assert client.get("/api/status", headers=ci).status_code == 200
        assert client.post("/api/tokens/ci/revoke").status_code == 200
        assert client.get("/api/status", headers=ci).status_code == 401
        begun = streamed(client, "").partition("id: ")[2].split()[0]
        told = streamed(client, re.sub(r"-\d+", "-0", begun), *KINDS)  # from the beginning of each stream
        assert [kind for kind in KINDS if f"event: {kind}\n" not in told] == []
        assert client.get("/api/status").json()["nats"] == f"nats://127.0.0.1:{server.port}"
    said = "".join((tmp_path / f"{role}.log").read_text() for role in roles)
    assert "permissions violation" not in said.lower()
    assert "of-worker" not in said


@pytest.mark.takes(30)
def test_sources_are_read_shared_out_and_taken_over_by_the_role_source_alone(
    tmp_path: Path, server: NatsServer
) -> None:
    theirs = NatsServer(tmp_path / "theirs")
    theirs.start()
    (tmp_path / "rules").mkdir()
    (drops := tmp_path / "drops").mkdir()
    (tmp_path / "rules" / "rules.yaml").write_text(f"""
sources:
  - {{name: drops, read: {{type: folder, path: '{drops}', stable: 0s}}}}
  - name: orders
    read: {{type: nats, url: '{theirs.url}', stream: ORDERS, existing: report}}
    map: {{event: order.placed, resource: {{id: "order.{{{{ body.n }}}}"}}}}
""")
    port = free_port()
    with (
        ExitStack() as started,
        plain_client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {TOKEN}"}) as client,
    ):
        started.callback(theirs.stop)

        def start(role: str, name: str) -> forks.Forked:
            one = process(tmp_path, server, role, port, name)
            started.callback(one.wait)
            started.callback(one.terminate)
            return one

        def get(path: str) -> Any:
            return client.get(path, timeout=limit(10)).raise_for_status().json()

        def sources() -> list[tuple[str, str, int]]:
            """Each with its state and how many processes read it."""
            return sorted(
                (each["name"], each["state"], sum(reader["state"] == "reading" for reader in each["readers"]))
                for each in get("/api/sources")
            )

        def events(name: str) -> list[str]:
            return sorted(each["resource"]["id"] for each in get(f"/api/events?event={name}"))

        def refused() -> list[str]:
            return [each["source"] for each in get("/api/sources/refused")]

        start("api", "api")
        asyncio.run(eventually(lambda: answers(client, "/readyz"), within_s=60))
        start("history", "history")
        asyncio.run(publish(theirs, b'{"n": 1}', b"poison"))
        first = start("source", "source-1")
        one_reads = [("drops", "reading", 1), ("orders", "reading", 1)]
        asyncio.run(eventually(lambda: sources() == one_reads, within_s=60))
        start("source", "source-2")
        both_read = [("drops", "reading", 1), ("orders", "reading", 2)]
        asyncio.run(eventually(lambda: sources() == both_read, within_s=60))
        (drops / "one").write_text("x")
        asyncio.run(eventually(lambda: len(events("file.created")) == 1, within_s=60))
        asyncio.run(eventually(lambda: events("order.placed") == ["order.1"], within_s=60))
        asyncio.run(eventually(lambda: refused() == ["source:orders"], within_s=60))
        first.terminate()  # which has the lease of the folder
        first.wait()
        asyncio.run(eventually(lambda: sources() == one_reads, within_s=60))
        (drops / "two").write_text("x")
        asyncio.run(publish(theirs, b'{"n": 2}'))
        asyncio.run(eventually(lambda: len(events("file.created")) == 2, within_s=60))
        asyncio.run(eventually(lambda: events("order.placed") == ["order.1", "order.2"], within_s=60))
        asyncio.run(eventually(lambda: caught_up(client), within_s=60))
    said = "".join((tmp_path / f"{name}.log").read_text() for name in ("api", "history", "source-1", "source-2"))
    assert "permissions violation" not in said.lower()


async def publish(server: NatsServer, *bodies: bytes) -> None:
    """Into a stream of the user's."""
    client = await nats.connect(server.url)
    js = client.jetstream()
    await js.add_stream(name="ORDERS", subjects=["orders"])
    for body in bodies:
        await js.publish("orders", body)
    await client.close()


async def test_the_role_source_forgets_what_left_the_rules_with_its_own_user(server: NatsServer) -> None:
    bus = await prepared(server)
    source = Bus(url(server, "source"))
    await source.connect()
    bucket = KvBucket(source.client, SOURCES)
    await SourceState(bucket, "drops").save("files", [["a", 1]])
    for _ in range(2):  # what is marked now goes the next time
        gone = await forget_states(bucket, (), kept_for=timedelta(0))
    assert gone == ["state.drops"]
    reports = ReaderReports(source, member="one", host="here", redact=str)
    await reports.store({"drops": SourceWatch()})
    assert await ReaderReports(source, member="two", host="here", redact=str).others() == [{"drops": "starting"}]
    await reports.leave()
    for one in (source, bus):
        await one.close()


def answers(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path, timeout=limit(10)).is_success
    except httpx.TransportError:
        return False


def streamed(client: httpx.Client, last_id: str, *kinds: str) -> str:
    """What is shown behind `last_id`, until each of these kinds was, or nothing more comes."""
    text = ""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    with client.stream("GET", "/api/stream", headers=headers, timeout=limit(30)) as answer:
        for chunk in answer.iter_bytes():
            text += chunk.decode()
            if ": heartbeat" in text or ("\n\n" in text and all(f"event: {kind}\n" in text for kind in kinds)):
                break
    return text


def completed(client: httpx.Client) -> bool:
    answer = client.get("/api/runs")
    return answer.is_success and [run["state"] for run in answer.json()] == ["Completed"]


def stored(client: httpx.Client, event: str) -> bool:
    answer = client.get(f"/api/events?event={event}")
    return answer.is_success and bool(answer.json())


def caught_up(client: httpx.Client) -> bool:
    answer = client.get("/api/status")
    behind = answer.json()["history"] if answer.is_success else None
    return behind is not None and behind["messages"] == 0


async def prepared(server: NatsServer) -> Bus:
    bus = Bus(url(server, "server"))
    await bus.connect()
    await ensure_streams(bus.js, StreamSettings())
    await ensure_flow_stores(bus.js)
    return bus


@pytest.mark.parametrize("user", WRITES)
async def test_a_role_is_refused_what_is_not_its_own(server: NatsServer, user: str) -> None:
    bus = await prepared(server)
    refused: list[str] = []

    async def note(error: Exception) -> None:
        refused.append(str(error).lower())

    client = await nats.connect(url(server, user), error_cb=note)
    reads = [subject for subject in READS if not subject.startswith(f"_INBOX_{user}.")]
    writes = [*WRITES[user], *([] if user in ASKING else [HISTORY_QUESTIONS]), *(() if user in KEEPING else SECRETS)]
    reads += [] if user in ANSWERING else [HISTORY_QUESTIONS]
    for subject in writes:
        await client.publish(subject, b"{}")
    for subject in reads:
        await client.subscribe(subject)
    await client.flush()
    wanted = {f'publish to "{subject.lower()}"' for subject in writes}
    wanted |= {f'subscription to "{subject.lower()}"' for subject in reads}
    await eventually(lambda: wanted <= set(_said(refused)))
    await client.close()
    for stream in (ENGINE, EVENTS, "KV_WT_specs", "KV_WT_tokens", "KV_WT_sessions"):
        assert (await bus.js.stream_info(stream)).state.messages == 0
    await bus.close()


async def test_a_stream_that_a_role_may_not_change_is_named_with_what_to_start_first(server: NatsServer) -> None:
    bus = await prepared(server)
    settings = StreamSettings(decisions_max_bytes=StreamSettings().decisions_max_bytes * 2)  # as a later version has it
    worker = Bus(url(server, "worker"))
    await worker.connect()
    with pytest.raises(BusUnavailable, match=r"stream DECISIONS is to be changed .* start one with the role `api`"):
        await ensure_streams(worker.js, settings)
    await ensure_streams(bus.js, settings)
    await ensure_streams(worker.js, settings)
    await worker.close()
    await bus.close()


def _said(refused: list[str]) -> list[str]:
    return [
        found[1]
        for error in refused
        if (found := re.search(r'violation for ((?:publish|subscription) to ".*?")', error))
    ]


async def test_an_executor_reads_specifications_that_the_evaluator_published(server: NatsServer) -> None:
    bus = await prepared(server)
    evaluator, executor = Bus(url(server, "evaluator")), Bus(url(server, "executor"))
    await evaluator.connect()
    await executor.connect()
    spec = b'{"type":"do-nothing"}'
    await SpecStore(evaluator.client).publish({spec_digest(spec): spec})
    assert await SpecStore(executor.client).find(spec_digest(spec)) == spec
    for one in (evaluator, executor, bus):
        await one.close()


async def test_nobody_is_admitted_without_a_password(server: NatsServer) -> None:
    async def ignore(error: Exception) -> None:
        return None

    for written in (server.url, f"nats://worker:x@127.0.0.1:{server.port}"):
        with pytest.raises(nats.errors.Error):
            await nats.connect(written, allow_reconnect=False, error_cb=ignore)
