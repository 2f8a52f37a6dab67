"""`get_client` and `run_deployment` against a real server: runs and deployments over its HTTP API, and what is said when it refuses."""

from __future__ import annotations

import asyncio
import http.server
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid4

import pytest

import whenthen
from tests.integration.served import TOKEN, Served, serving
from tests.patience import eventually, limit
from whenthen import flow, get_client
from whenthen.client.orchestration import SyncPrefectClient
from whenthen.deployments import arun_deployment, run_deployment
from whenthen.exceptions import (
    ConfigurationError,
    FlowRunWaitTimeout,
    NeedsServer,
    NotSupported,
    ObjectNotFound,
    ServerError,
)
from whenthen.flow_runs import wait_for_flow_run
from whenthen.flows.services import orchestration_client
from whenthen.flows.services.server_requests import ServerAddress
from whenthen.flows.serving.registering import Registering
from whenthen.states import Cancelling, Completed, Scheduled

if TYPE_CHECKING:
    from whenthen.flows.deploying.deployment_values import RunnerDeployment

pytestmark = [pytest.mark.requires("nats-server"), pytest.mark.takes(10)]

RULES = """
deployments:
  - {name: add, entrypoint: "jobs.py:add", tags: [sums], parameters: {b: 1}}
  - {name: fail, command: "python -c 'raise SystemExit(3)'"}
  - {name: sums/add, entrypoint: "jobs.py:add", parameters: {b: 100}, schedules: [{cron: "0 6 * * *"}]}
  - {name: wait, command: sleep 600, schedules: [{cron: "0 6 * * *"}]}
"""
JOBS = """
from whenthen import flow, task

@task
def plus(a, b):
    return a + b

@flow(log_prints=True)
def add(a: int, b: int) -> int:
    print("adding")
    return plus.submit(a, b).result()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("server"), {"rules.yaml": RULES, "jobs.py": JOBS}) as served:
        yield served


@pytest.fixture
def client(server: Served, monkeypatch: pytest.MonkeyPatch) -> SyncPrefectClient:
    monkeypatch.setenv("WHENTHEN_URL", server.url)
    monkeypatch.setenv("WHENTHEN_API_TOKEN", TOKEN)
    return get_client(sync_client=True)


def test_a_script_of_another_version_hears_of_both_when_it_is_refused(
    server: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registering = Registering(ServerAddress(server.url, TOKEN))
    rule = {"name": "sums/later", "entrypoint": "jobs.py:add", "of_a_later_version": 1}

    class Later:
        full_name = "sums/later"

        def as_request(self) -> dict[str, Any]:
            return {"rule": rule, "triggers": []}

    later = cast("RunnerDeployment", Later())
    with pytest.raises(ServerError, match=r"of_a_later_version: .*unknown field") as refused:
        registering.register([later], served=False)
    assert "install one version" not in str(refused.value)  # it is the same
    monkeypatch.setattr(whenthen, "__version__", "9.9")
    with pytest.raises(ServerError, match=r"of_a_later_version: .*this script's is 9\.9: install one version for both"):
        registering.register([later], served=False)

    def answer(path: str, body: Any) -> Any:  # of a later server
        change = {"change": "moved", "kind": "deployment", "name": "sums/later", "detail": "elsewhere", "more": 1}
        return {"number": 1, "changes": [change], "unchanged": [], "notes": [], "more": 1}

    monkeypatch.setattr(registering.server, "post", answer)
    registering.register([later], served=False)
    assert "* deployment sums/later: elsewhere" in capsys.readouterr().out


def test_a_run_of_a_deployment_is_started_and_waited_for(client: SyncPrefectClient) -> None:
    run = run_deployment("add/add", parameters={"a": 2}, timeout=limit(60), poll_interval=0.05)
    assert (run.state.name, run.state_type.value, run.state.result()) == ("Completed", "COMPLETED", 3)
    assert (run.deployment_id, run.parameters, run.tags, run.run_count) == ("add", {"a": 2, "b": 1}, ["sums"], 1)
    assert run.start_time <= run.end_time
    assert run.total_run_time >= timedelta()
    with client:
        assert client.read_flow_run(run.id).id == run.id
        assert client.read_flow_run(str(run.id)).end_time == run.end_time
        eventually(lambda: "adding" in str(client.read_flow_run_logs(run.id)), within_s=10)
        assert run.id in [one.id for one in client.read_flow_runs(limit=5)]
        assert client.read_flow_runs(limit=1, offset=1000 - 1) == []
    failed = run_deployment("fail", timeout=limit(60), poll_interval=0.05)
    assert (failed.state.name, failed.state.message is not None) == ("Failed", True)


def test_a_deployment_of_a_flow_is_another_one_than_the_flowless_of_its_name(client: SyncPrefectClient) -> None:
    run = run_deployment("sums/add", parameters={"a": 2}, timeout=limit(60), poll_interval=0.05)
    assert (run.deployment_id, run.state.result()) == ("sums/add", 102)
    client.pause_deployment("sums/add")
    assert (client.read_deployment("sums/add").paused, client.read_deployment("wait").paused) == (True, False)
    client.resume_deployment("sums/add")
    assert not client.read_deployment("sums/add").paused


def test_an_async_flow_starts_runs_beside_each_other(client: SyncPrefectClient) -> None:
    @flow
    async def parent() -> list[int]:
        runs = await asyncio.gather(
            *(run_deployment("add", parameters={"a": n}, poll_interval=0.05) for n in range(3)),
            arun_deployment("add", parameters={"a": 3}, poll_interval=0.05),
        )
        return [await run.state.result() for run in runs]

    assert asyncio.run(parent()) == [1, 2, 3, 4]


def test_the_async_client_does_what_the_sync_one_does(client: SyncPrefectClient) -> None:
    async def main() -> None:
        async with get_client() as async_client:
            found = await async_client.read_deployment_by_name("load/wait")
            assert await async_client.api_healthcheck() is None
            assert (found, found.paused) == (client.read_deployment("wait"), False)
            await async_client.pause_deployment(found.id)
            assert (await async_client.read_deployment(found.id)).paused is True
            await async_client.resume_deployment(found.id)
            assert [one.name for one in await async_client.read_deployments()] == [*("add", "fail", "sums/add", "wait")]
            assert [one.name for one in await async_client.read_deployments(limit=1, offset=1)] == ["fail"]
            run = await async_client.create_flow_run_from_deployment(
                found.id, state=Scheduled(scheduled_time=datetime.now(UTC) + timedelta(hours=1)), idempotency_key="one"
            )
            same = await async_client.create_flow_run_from_deployment(found.id, idempotency_key="one")
            assert (run.id, run.state.is_scheduled()) == (same.id, True)
            assert run.expected_start_time is not None
            assert timedelta(minutes=59) < run.expected_start_time - datetime.now(UTC) <= timedelta(hours=1)
            assert (await async_client.read_flow_runs(limit=1))[0].id == run.id
            assert await async_client.read_flow_run_logs(run.id) == []
            with pytest.raises(FlowRunWaitTimeout, match="has not ended within 0 seconds"):
                await wait_for_flow_run(run.id, timeout=0)
            await async_client.set_flow_run_state(run.id, Cancelling())
            assert (await wait_for_flow_run(run.id, timeout=60, poll_interval=1)).state.is_cancelled()

    asyncio.run(main())


def test_a_list_goes_on_over_pages(client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch) -> None:
    started = [client.create_flow_run_from_deployment("add", parameters={"a": n}).id for n in range(7)]
    monkeypatch.setattr(orchestration_client, "MAX_PAGE", 3)
    assert {run.id for run in client.read_flow_runs(limit=7)} == set(started)
    assert len(client.read_flow_runs(limit=4, offset=2)) == 4
    assert client.read_flow_runs(limit=5, offset=100_000) == []


def test_what_the_server_does_not_have_is_said(client: SyncPrefectClient) -> None:
    for unknown in (
        lambda: run_deployment("nope", timeout=0),
        lambda: client.read_deployment_by_name("a/nope"),
        lambda: client.read_flow_run(uuid4()),
    ):
        with pytest.raises(ObjectNotFound):
            unknown()
    for call, said in (
        (lambda: run_deployment("add", tags=["x"]), r"run_deployment\(tags=...\) is not supported \(\['x'\]\)"),
        (lambda: run_deployment("add", flow_run_name="x"), "leave it out"),
        (lambda: run_deployment("add", job_variables={"env": {}}), "docs/deployments.md"),
        (lambda: client.create_flow_run_from_deployment("add", work_queue_name="q"), "work_pool of its own"),
        (lambda: client.read_flow_runs(flow_filter=object()), "filters"),
        (lambda: client.set_flow_run_state(uuid4(), Completed()), "Cancelling and Cancelled"),
        (lambda: client.create_flow_run(flow), "call the flow"),
        (lambda: client.read_work_pools, r"get_client\(\).read_work_pools is not supported; the client has .*hello"),
        (lambda: get_client().read_work_pools, "read_work_pools"),
    ):
        with pytest.raises(NotSupported, match=said):
            call()
    for call, said in (
        (lambda: client.read_flow_run("x"), "flow_run_id is the id of a run, a UUID or its text; found 'x'"),
        (lambda: client.read_deployment("a/"), "is no name of a deployment"),
        (lambda: client.create_flow_run_from_deployment("add", state=Completed()), "begins as Scheduled"),
        (lambda: client.create_flow_run_from_deployment("add", parameters={"a": object()}), "parameters of a run are JSON"),
        (lambda: run_deployment("add", timeout=-1), "seconds from 0"),
    ):  # fmt: skip
        with pytest.raises(ConfigurationError, match=said):
            call()
    with pytest.raises(ServerError, match=r"400: key: text of 1 to 512"):
        client.create_flow_run_from_deployment("add", idempotency_key="")


def test_a_name_is_one_part_of_the_path(client: SyncPrefectClient) -> None:
    for name in ("..", "add?x=1", "add#x", "%2e%2e", "a b"):
        with pytest.raises((ObjectNotFound, ServerError)):
            client.read_deployment(name)


def test_a_wrong_token_is_said(client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WHENTHEN_API_TOKEN", "wrong")
    with pytest.raises(ServerError, match=r"401: .*; set WHENTHEN_API_TOKEN to the server's API token"):
        get_client(sync_client=True).hello()
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    monkeypatch.setenv("WHENTHEN_API_TOKEN", f"file:{tmp_path / 'token'}")
    assert get_client(sync_client=True).api_healthcheck() is None
    monkeypatch.setenv("MY_TOKEN", TOKEN)
    monkeypatch.setenv("WHENTHEN_API_TOKEN", "env:MY_TOKEN")
    assert get_client(sync_client=True).api_healthcheck() is None
    for written in ("env:NOWHERE", "file:/nowhere"):
        monkeypatch.setenv("WHENTHEN_API_TOKEN", written)
        with pytest.raises(ConfigurationError, match=f"WHENTHEN_API_TOKEN: {written}"):
            get_client()


def test_without_an_address_or_a_server_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WHENTHEN_URL", raising=False)
    for call in (get_client, lambda: run_deployment("add")):
        with pytest.raises(NeedsServer, match="set WHENTHEN_URL to the address of one"):
            call()
    monkeypatch.setenv("WHENTHEN_URL", "ftp://x")
    with pytest.raises(ConfigurationError, match="WHENTHEN_URL='ftp://x' is not an address"):
        get_client()
    monkeypatch.setenv("WHENTHEN_URL", "127.0.0.1:1")
    trouble = get_client(sync_client=True).api_healthcheck()
    assert isinstance(trouble, ServerError)
    assert "no server answers at http://127.0.0.1:1" in str(trouble)


def test_another_program_behind_the_address_gets_no_second_request(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Any]] = []

    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization")))
            moved = self.path == "/api/status"
            self.send_response(302 if moved else 200)
            if moved:
                self.send_header("Location", "/elsewhere")
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *args: Any) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        monkeypatch.setenv("WHENTHEN_URL", f"http://127.0.0.1:{other.server_port}")
        monkeypatch.setenv("WHENTHEN_API_TOKEN", TOKEN)
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        client = get_client(sync_client=True)
        with pytest.raises(ServerError, match="302: <html>"):
            client.hello()
        with pytest.raises(ServerError, match="the answer is no JSON; is another program behind this address"):
            client.read_flow_run(UUID(int=1))
        other.shutdown()
        thread.join()
    assert [path for path, _ in asked] == ["/api/status", f"/api/runs/{UUID(int=1).hex}"]
