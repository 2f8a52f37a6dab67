"""The embedded nats-server: it comes up, is restarted when it dies, goes with its parent, and owns its directory."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import eventually
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.datadir import DataDir, Login
from whenthen.engine.bus.embedded import EmbeddedServer, EmbeddedSettings, embedded_server
from whenthen.engine.bus.streams import EVENTS, StreamSettings, check_server, ensure_streams
from whenthen.schemas.errors import SetupError

pytestmark = pytest.mark.anyio

PARENT = """
import asyncio, sys, pathlib
from whenthen.engine.bus.embedded import EmbeddedServer
async def main():
    server = EmbeddedServer(pathlib.Path(sys.argv[1]))
    await server.start()
    print(server.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""

HOLDER = """
import sys, pathlib
from whenthen.engine.bus.datadir import DataDir
directory = DataDir(pathlib.Path(sys.argv[1]))
directory.acquire()
print("locked", flush=True)
sys.stdin.read()
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_it_serves_jetstream_on_loopback_and_keeps_its_store(tmp_path: Path) -> None:
    for _ in range(2):
        server = EmbeddedServer(tmp_path)
        await server.start()
        bus = Bus(server.client_url)
        await bus.connect()
        await check_server(bus.nc)
        await ensure_streams(bus.js, StreamSettings())
        ack = await bus.store("events.a", b"{}")
        await bus.close()
        pid = server.pid
        await server.stop()
        assert pid is not None
        assert not alive(pid)
    assert ack.seq == 2


async def test_a_child_that_is_killed_is_started_again_on_the_same_port(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = EmbeddedServer(tmp_path)
    await server.start()
    bus = Bus(server.client_url)
    await bus.connect()
    await ensure_streams(bus.js, StreamSettings())
    await bus.store("events.a", b"{}")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    await eventually(lambda: server.restarts == 1 and bus.connected)
    assert "died with code -9; starting it again" in caplog.text
    assert (await bus.js.stream_info(EVENTS)).state.messages == 1
    await bus.close()
    await server.stop()


async def test_it_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert alive(pid)
    parent.kill()
    await parent.communicate()
    await eventually(lambda: not alive(pid))


async def test_a_server_left_behind_is_ended_before_the_store_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = EmbeddedServer(tmp_path)
    await first.start()
    left_behind = first.pid
    second = EmbeddedServer(tmp_path)
    assert first._supervisor is not None
    first._supervisor.cancel()
    await second.start()
    assert left_behind is not None
    assert not alive(left_behind)
    assert second.pid != left_behind
    await second.stop()


async def test_a_taken_port_is_a_setup_error(tmp_path: Path) -> None:
    first = EmbeddedServer(tmp_path / "a")
    await first.start()
    with pytest.raises(SetupError, match="ended at once"):
        await EmbeddedServer(tmp_path / "b", EmbeddedSettings(port=first.port)).start()
    await first.stop()


def test_a_second_process_on_the_same_directory_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    mine = DataDir(tmp_path)
    with pytest.raises(SetupError, match=f"process {holder.pid}"):
        mine.acquire()
    holder.kill()
    holder.communicate()
    mine.acquire()
    with pytest.raises(SetupError, match=f"process {os.getpid()}"):
        DataDir(tmp_path).acquire()
    mine.release()


async def test_restarts_that_do_not_help_come_at_ever_longer_intervals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleep = asyncio.sleep
    pauses: list[float] = []

    async def spy(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(min(seconds, 0.02))

    async def unhealthy(url: str, login: Login) -> str:
        return "a stream could not be recovered"

    server = EmbeddedServer(tmp_path)
    monkeypatch.setattr(embedded_server, "HEALTH_EVERY_S", 0.01)
    monkeypatch.setattr(embedded_server, "health_error", unhealthy)
    monkeypatch.setattr(asyncio, "sleep", spy)
    await server.start()
    try:
        await eventually(lambda: server.restarts >= 6, within_s=60)
    finally:
        await server.stop()
    assert {0.01, 0.02, 0.04, 0.08, 0.16} <= set(pauses)
