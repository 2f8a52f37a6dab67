"""Every role is probed and scraped: processes without the API have an address of their own for it."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.conftest import NatsServer
from tests.patience import until
from tests.plain_http import plain_async_client
from whenthen.engine.process.roles import Role
from whenthen.engine.process.server import Server
from whenthen.engine.process.settings import load_settings
from whenthen.engine.process.wiring import monitoring_server
from whenthen.schemas.errors import SetupError

pytestmark = pytest.mark.anyio

RULES = """
automations: [{name: one, expected_every: 1h, trigger: {expect: x}, actions: do-nothing}]
deployments: [{name: job, command: "true"}]
"""
#: a metric that tells of the work of each role, and of that of no other
TELLING = {
    Role.API: 'whenthen_events_refused_total{reason="invalid_event",source="api"} 0.0',
    Role.EVALUATOR: 'whenthen_automation_silent_seconds{automation="one"}',
    Role.EXECUTOR: 'whenthen_actions_total{automation="one",outcome="dead",type="do-nothing"} 0.0',
}


def server_of(folder: Path, nats: str, role: Role, **options: Any) -> Server:
    settings = load_settings({"data_dir": folder / role, "port": 0, "nats_url": nats, "shards": 2, **options})
    return Server(settings, folder / "rules.yaml", roles={role})


async def test_each_role_alone_is_scraped_and_probed(tmp_path: Path, nats_server: NatsServer) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    async with AsyncExitStack() as running:
        client = await running.enter_async_context(plain_async_client())
        addresses = {}
        for role in (Role.API, *(role for role in Role if role is not Role.API)):  # which makes the streams
            options = {} if role is Role.API else {"monitoring_port": 0}
            server = await running.enter_async_context(server_of(tmp_path, nats_server.url, role, **options))
            assert (server.monitoring_address == "") == (role is Role.API)
            addresses[role] = server.monitoring_address or server.address
        assert len(set(addresses.values())) == len(Role)
        for role, address in addresses.items():
            assert (await client.get(f"{address}/healthz")).json() == {"ok": True}
            assert (await client.get(f"{address}/readyz")).status_code == 200, role
            text = (await client.get(f"{address}/metrics")).text
            assert "whenthen_bus_connected 1.0" in text
            assert {one for one, line in TELLING.items() if line in text} == {role} & {*TELLING}
        nats_server.kill()

        async def all_say_what_is_missing() -> bool:
            found = [(await client.get(f"{address}/readyz")) for address in addresses.values()]
            return all(each.status_code == 503 and "NATS" in str(each.json()["missing"]) for each in found)

        await until(all_say_what_is_missing)
        for address in addresses.values():
            assert (await client.get(f"{address}/healthz")).status_code == 200
            assert "whenthen_bus_connected 0.0" in (await client.get(f"{address}/metrics")).text
        nats_server.start()

        async def ready() -> bool:
            return all([(await client.get(f"{address}/readyz")).status_code == 200 for address in addresses.values()])

        await until(ready, within_s=60)


async def test_a_process_with_the_api_serves_its_metrics_elsewhere_too_when_it_is_told_to(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    settings = load_settings({"data_dir": tmp_path / "data", "port": 0, "monitoring_port": 0})
    async with Server(settings, tmp_path / "rules.yaml") as server, plain_async_client() as client:
        assert server.monitoring_address != server.address
        for address in (server.address, server.monitoring_address):
            assert "whenthen_bus_connected" in (await client.get(f"{address}/metrics")).text
        assert (await client.get(f"{server.monitoring_address}/api/status")).status_code == 404


async def test_a_process_that_waits_for_nats_is_probed_meanwhile(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        server = server_of(tmp_path, f"nats://127.0.0.1:{nobody.getsockname()[1]}", Role.WORKER, monitoring_port=0)
        (tmp_path / "rules.yaml").write_text(RULES)
        starting = asyncio.create_task(server.__aenter__())
        try:
            async with plain_async_client() as client:

                async def asked() -> bool:
                    try:
                        found = await client.get(f"{server.monitoring_address}/readyz")
                    except (httpx.TransportError, httpx.UnsupportedProtocol):
                        return False
                    return found.json()["missing"] == ["starting"]

                await until(asked)
        finally:
            starting.cancel()
            with pytest.raises((asyncio.CancelledError, SetupError)):
                await starting


async def test_a_port_that_is_taken_is_replaced_unless_it_was_named(
    tmp_path: Path, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setattr(monitoring_server, "DEFAULT_PORT", port)
        async with server_of(tmp_path, nats_server.url, Role.API), plain_async_client() as client:
            async with server_of(tmp_path, nats_server.url, Role.SCHEDULER) as server:
                assert server.monitoring_port not in (0, port)
                assert (await client.get(f"{server.monitoring_address}/readyz")).status_code == 200
            assert f"as port {port} is taken" in caplog.text
            with pytest.raises(SetupError, match="WHENTHEN_MONITORING_PORT"):
                await server_of(tmp_path, nats_server.url, Role.SCHEDULER, monitoring_port=port).__aenter__()


async def test_a_start_ends_no_silence(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    settings = load_settings({"data_dir": tmp_path / "data", "port": 0, "open_loopback": True})
    silent = 'whenthen_automation_silent_seconds{automation="one"} '

    async with (
        Server(settings, tmp_path / "rules.yaml") as server,
        plain_async_client(base_url=server.address) as client,
    ):
        (await client.post("/api/events", json={"event": "x", "resource": {"id": "y"}})).raise_for_status()

        async def fired() -> bool:
            return 'whenthen_automation_fired_total{automation="one"} 1.0' in (await client.get("/metrics")).text

        await until(fired)
    began = time.time()
    async with (
        Server(settings, tmp_path / "rules.yaml") as server,
        plain_async_client(base_url=server.address) as client,
    ):
        (line,) = (line for line in (await client.get("/metrics")).text.splitlines() if line.startswith(silent))
        assert float(line.removeprefix(silent)) > time.time() - began
