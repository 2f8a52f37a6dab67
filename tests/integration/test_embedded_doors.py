"""The embedded nats-server admits only who has its login, and tells the runs nothing of it. See docs/scaling.md, "Who is admitted to NATS"."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import nats.errors
import pytest

from tests.integration.conftest import NatsServer
from tests.patience import limit
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.datadir import SYSTEM_FILE, Login, embedded_url, find_login, keep_login, read_login
from whenthen.engine.bus.embedded import EmbeddedServer
from whenthen.engine.bus.embedded.server_health import HEALTH_SUBJECT, health_error
from whenthen.engine.bus.streams import EVENTS, StreamSettings, ensure_streams
from whenthen.schemas.errors import SetupError

pytestmark = pytest.mark.anyio

NOBODY = 65534
#: speaks the protocol without a login, as nobody or as the same user: what the server says to each request
STRANGER = r"""
import json, os, socket, sys
port, uid, folder, fields = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
"".encode("idna")  # its module is read while that is still allowed
if uid:
    os.setgroups([]); os.setgid(uid); os.setuid(uid)
said = {}
for name in ("credentials", "system-credentials", "nats-server.conf"):
    try:
        open(os.path.join(folder, name)).read()
        said[name] = "read"
    except OSError as error:
        said[name] = type(error).__name__
for name, words in {
    "publish": "PUB events.stolen 2\r\n{}\r\n",
    "subscribe": "SUB > 1\r\n",
    "system": "SUB $SYS.> 1\r\nPUB $SYS.REQ.SERVER.PING.VARZ 0\r\n\r\n",
    "jetstream": "SUB _INBOX.x 1\r\nPUB $JS.API.STREAM.NAMES _INBOX.x 0\r\n\r\n",
}.items():
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(f"CONNECT {json.dumps({'verbose': False, 'pedantic': False, **fields})}\r\n{words}PING\r\n".encode())
        text = b""
        while piece := connection.recv(4096):
            text += piece
            if b"PONG\r\n" in text:
                break
        said[name] = text.decode().partition("\r\n")[2].strip()
print(json.dumps(said))
"""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    server = EmbeddedServer(tmp_path)
    await server.start()
    yield server
    await server.stop()


async def stranger(server: EmbeddedServer, uid: int, **fields: str) -> dict[str, str]:
    words = [sys.executable, "-c", STRANGER, str(server.port), str(uid), str(server.directory), json.dumps(fields)]
    process = await asyncio.create_subprocess_exec(*words, stdout=subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0
    said: dict[str, str] = json.loads(out)
    return said


def refused(said: dict[str, str]) -> bool:
    return all(
        said[name] == "-ERR 'Authorization Violation'" for name in ("publish", "subscribe", "system", "jetstream")
    )


@pytest.mark.requires("another user")
async def test_another_user_reads_no_login_and_is_refused_everything(server: EmbeddedServer) -> None:
    said = await stranger(server, NOBODY)
    assert [said[name] for name in ("credentials", "system-credentials", "nats-server.conf")] == ["PermissionError"] * 3
    assert refused(said)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"user": "whenthen", "pass": ""},
        {"user": "whenthen", "pass": "whenthen"},
        {"user": "system", "pass": "x"},
        {"auth_token": "x"},
    ],
    ids=["none", "empty", "guessed", "system", "token"],
)
async def test_who_gives_no_login_or_a_wrong_one_is_refused_everything(
    server: EmbeddedServer, fields: dict[str, str]
) -> None:
    assert refused(await stranger(server, 0, **fields))
    bus = Bus(server.client_url)
    await bus.connect()
    await ensure_streams(bus.js, StreamSettings())
    assert (await bus.js.stream_info(EVENTS)).state.messages == 0
    await bus.close()


async def test_the_engine_is_not_let_into_the_system_account(server: EmbeddedServer) -> None:
    client = await nats.connect(server.client_url)
    with pytest.raises((nats.errors.NoRespondersError, nats.errors.TimeoutError)):
        await client.request(HEALTH_SUBJECT, timeout=1)
    await client.close()


async def test_a_client_without_the_login_is_told_what_to_name(server: EmbeddedServer) -> None:
    with pytest.raises(SetupError, match=r"Authorization Violation.*nats_credentials"):
        await Bus(server.url).connect(timeout_s=limit(0.4))


async def test_its_files_are_the_owners_alone(server: EmbeddedServer) -> None:
    assert stat.S_IMODE(server.directory.stat().st_mode) == 0o700
    for name in ("credentials", "system-credentials", "nats-server.conf"):
        assert stat.S_IMODE((server.directory / name).stat().st_mode) == 0o600


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_the_child_inherits_no_environment_and_its_command_line_names_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GH_SECRET", "ghsecret-0123456789")
    server = EmbeddedServer(tmp_path)
    await server.start()
    try:
        assert _proc(server, "environ") == b""
        words = _proc(server, "cmdline")
        assert read_login(server.directory / "credentials").password.encode() not in words
    finally:
        await server.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_it_listens_on_one_port_only(server: EmbeddedServer) -> None:
    assert _listening(server) == [server.port]


def _proc(server: EmbeddedServer, name: str) -> bytes:
    return Path(f"/proc/{server.pid}/{name}").read_bytes()


def _listening(server: EmbeddedServer) -> list[int]:
    inodes = set()
    for entry in Path(f"/proc/{server.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            inodes.add(os.readlink(entry).removeprefix("socket:[").rstrip("]"))
    return [
        int(fields[1].rpartition(":")[2], 16)
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{server.pid}/net/{table}").read_text().splitlines()[1:]
        if (fields := line.split())[3] == "0A" and fields[9] in inodes
    ]


async def test_its_health_is_asked_over_the_system_account(server: EmbeddedServer) -> None:
    login = read_login(server.directory / SYSTEM_FILE)
    assert await health_error(server.url, login) == ""
    await server.stop()
    assert await health_error(server.url, login) is None


async def test_logins_last_from_start_to_start_and_a_worker_finds_them_by_the_port(tmp_path: Path) -> None:
    logins = []
    for _ in range(2):
        server = EmbeddedServer(tmp_path)
        await server.start()
        login = find_login(tmp_path, server.port)
        assert find_login(tmp_path, server.port + 1) is None
        assert f":{login.password}@" in embedded_url(tmp_path)
        logins.append(login)
        await server.stop()
    assert logins[0] == logins[1]
    assert logins[0].password not in repr(logins[0])


async def test_a_data_directory_without_logins_is_given_them_and_keeps_its_streams(tmp_path: Path) -> None:
    old = NatsServer(tmp_path / "nats")  # its store is in the account of everybody, as the store of earlier versions
    old.start()
    bus = Bus(old.url)
    await bus.connect()
    await ensure_streams(bus.js, StreamSettings())
    await bus.store("events.a", b"{}")
    await bus.close()
    old.stop()
    server = EmbeddedServer(tmp_path)
    await server.start()
    bus = Bus(server.client_url)
    await bus.connect()
    assert (await bus.js.stream_info(EVENTS)).state.messages == 1
    await bus.close()
    await server.stop()


def test_a_login_that_others_could_read_or_that_is_damaged_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    first = keep_login(path, "whenthen")
    assert keep_login(path, "whenthen") == first
    path.chmod(0o644)
    second = keep_login(path, "whenthen")
    assert second.password != first.password
    for text in (
        "",
        "{",
        "[]",
        '{"user": "whenthen", "password": "short"}',
        '{"user": "x", "password": "' + "y" * 40 + '"}',
    ):
        path.write_text(text)
        made = keep_login(path, "whenthen")
        assert len(made.password) >= 40
        assert read_login(path) == made
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("untouched")
    path.unlink()
    path.symlink_to(elsewhere)
    keep_login(path, "whenthen")
    assert elsewhere.read_text() == "untouched"
    assert not path.is_symlink()


def test_the_login_of_a_url_is_kept_out_of_what_is_shown() -> None:
    bus = Bus(["nats://a%3Ab:p%40ss@one:4222", "nats://two:4222"])
    assert bus.servers == bus.addresses == ["nats://one:4222", "nats://two:4222"]
    assert Bus("nats://tok@one").addresses == ["nats://one"]
    assert "p@ss" not in repr(Login("a", "p@ss"))
