"""The server over TLS: a certificate of an authority of one's own, one that changed, and settings that do not fit."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from tests.patience import eventually
from tests.unit.engine.http.http_fakes import FakeApi, app_over
from whenthen.cli.client import Client, Unreachable
from whenthen.cli.main import app
from whenthen.engine.http import ConnectionGate, ConnectionLimits, HttpServer, ServerTls, listen
from whenthen.engine.http import serving as module
from whenthen.schemas.errors import SetupError

CERTIFICATES = Path(__file__).parent / "certificates"  # valid for a hundred years, for 127.0.0.1
CA = str(CERTIFICATES / "authority.pem")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    shutil.copy(CERTIFICATES / "server.pem", tmp_path / "server.pem")
    return tmp_path / "server.pem"


@pytest.fixture
def url(certificate: Path) -> Iterator[str]:
    """Of a server in a thread."""
    api = FakeApi()
    gate = ConnectionGate(ConnectionLimits(), metrics=api.registry)
    listening, url = listen("127.0.0.1", 0, secure=True)
    server = HttpServer(app_over(api, body_limit=100_000), drain_s=1, gate=gate, tls=ServerTls(certificate, None))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
    thread.start()
    eventually(lambda: server.started)
    yield url
    server.should_exit = True
    thread.join()


def test_a_client_that_knows_the_authority_is_answered(url: str) -> None:
    assert url.startswith("https://127.0.0.1:")
    with Client(url, ca=CA) as client:
        assert client.get("/healthz") == {"ok": True}


@pytest.mark.parametrize("way", ["option", "environment"])
def test_a_command_takes_the_authority_from_its_option_or_the_environment(url: str, way: str) -> None:
    given = ["--ca", CA] if way == "option" else []
    environment = {"WHENTHEN_CA": CA} if way == "environment" else {"WHENTHEN_CA": ""}
    done = CliRunner().invoke(app, ["runs", "--url", url, *given, "--json"], env=environment)
    assert done.exit_code == 0, done.output
    assert [run["id"] for run in orjson.loads(done.output)] == ["run-1"]


def test_a_client_that_does_not_know_the_authority_is_told_the_remedy(url: str) -> None:
    with (
        Client(url) as client,
        pytest.raises(Unreachable, match=r"is not trusted .* name its authority with --ca or WHENTHEN_CA"),
    ):
        client.get("/healthz")


@pytest.mark.parametrize("text", [None, "no certificate"])
def test_authorities_that_can_not_be_read_are_named(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "ca.pem").write_text(text)
    with pytest.raises(SetupError, match=r"WHENTHEN_CA\): .*ca\.pem: .*; name a file of PEM certificates"):
        Client("https://127.0.0.1:1", ca=str(tmp_path / "ca.pem"))


def test_the_answer_413_reaches_its_client_over_tls(url: str) -> None:
    context = ssl.create_default_context(cafile=CA)
    port = int(url.rpartition(":")[2])
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port), 20), server_hostname="127.0.0.1") as wire:
        wire.sendall(b"POST /api/events HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 5000000\r\n\r\n")
        wire.sendall(b" " * 1_000_000)
        assert wire.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_changed_certificate_is_read_again(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CERTIFICATE_EVERY_S", 0.0)
    tls = ServerTls(certificate, None)
    before = tls.context.cert_store_stats()
    certificate.write_text("half written")
    tls._look()  # stays with what it has
    shutil.copy(CERTIFICATES / "server.pem", certificate)
    os.utime(certificate, (1, 1))
    tls._look()
    assert tls._seen == tls._stamps()
    assert tls.context.cert_store_stats() == before


def test_files_that_are_no_certificate_are_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"tls_certificate: .*nowhere\.pem: No such file"):
        ServerTls(tmp_path / "nowhere.pem", None)
    (tmp_path / "empty.pem").write_text("")
    with pytest.raises(SetupError, match="tls_certificate: "):
        ServerTls(tmp_path / "empty.pem", None)
    with pytest.raises(SetupError, match="tls_certificate: "):
        ServerTls(CERTIFICATES / "server.pem", CERTIFICATES / "authority.pem")
