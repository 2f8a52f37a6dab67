"""Certificates of receivers and of ours, against real TLS servers.

In `certificates/`: `authority.pem` signed `signed.pem` (receiver.example.com), `expired.pem` (the same name, until 2025) and
`client.pem` (with `client.key`, and `locked.key` with a passphrase); `stranger.pem` is a client of another authority;
`receiver.pem` is self-signed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from http_peers import CERTIFICATES, OK, demanding_clients, home, listening, server_tls

from whenthen.actions import (
    ConnectionDefaults,
    compile_action,
    open_http_client,
    read_action,
)
from whenthen.schemas.actions import Tls
from whenthen.schemas.errors import ActionError, InvalidTemplate

pytestmark = pytest.mark.anyio
AUTHORITY = f"file:{CERTIFICATES}/authority.pem"
CLIENT = {"certificate": f"file:{CERTIFICATES}/client.pem", "key": f"file:{CERTIFICATES}/client.key"}


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


Calling = Callable[..., Awaitable[Any]]


@pytest.fixture
async def call(world: Any) -> AsyncIterator[Calling]:
    """Call a receiver on this machine under the name receiver.example.com, with an action's `tls`."""
    async with open_http_client(resolve=home) as client:

        async def perform(port: int, tls: dict[str, str] | None = None, *, host: str = "receiver.example.com") -> Any:
            ports = dataclasses.replace(world.ports, http=client)
            action: dict[str, Any] = {"call-webhook": f"https://{host}:{port}/", **({"tls": tls} if tls else {})}
            return await world.perform(action, ports=ports)

        yield perform


async def test_own_authorities_take_the_place_of_the_public_ones(
    call: Calling, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(OK, tls=server_tls("signed.pem")) as peer:
        with pytest.raises(
            ActionError, match=r"no trusted TLS connection: unable to get .*issuer.*tls: \{ca"
        ) as caught:
            await call(peer.port)
        assert caught.value.retryable
        assert caught.value.reason == "connection"
        for _ in range(2):
            assert (await call(peer.port, {"ca": AUTHORITY})).details["status"] == 200
        assert peer.connections == 1
    async with listening(OK, tls=server_tls("receiver.pem")) as peer:
        monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATES / "receiver.pem"))
        with pytest.raises(ActionError, match="no trusted TLS connection"):
            await call(peer.port, {"ca": AUTHORITY})
        assert peer.requests == []


async def test_a_connection_made_with_other_authorities_is_not_used(call: Calling) -> None:
    async with listening(OK, tls=server_tls("signed.pem")) as peer:
        await call(peer.port, {"ca": AUTHORITY})
        with pytest.raises(ActionError, match="no trusted TLS connection"):
            await call(peer.port)
        with pytest.raises(ActionError, match="no trusted TLS connection"):
            await call(peer.port, {"ca": f"file:{CERTIFICATES}/receiver.pem"})
    assert len(peer.requests) == 1


async def test_a_self_signed_certificate_is_trusted_only_when_it_is_named(call: Calling) -> None:
    async with listening(OK, tls=server_tls("receiver.pem")) as peer:
        with pytest.raises(ActionError, match=r"no trusted TLS connection: self.signed certificate; if you trust it"):
            await call(peer.port)
        assert (await call(peer.port, {"ca": f"file:{CERTIFICATES}/receiver.pem"})).details["status"] == 200


async def test_an_expired_certificate_is_told(call: Calling) -> None:
    async with listening(OK, tls=server_tls("expired.pem")) as peer:
        with pytest.raises(ActionError, match="certificate has expired; the receiver has to renew it") as caught:
            await call(peer.port, {"ca": AUTHORITY})
    assert caught.value.reason == "connection"
    assert caught.value.retryable
    assert peer.requests == []


async def test_a_certificate_of_another_host_is_told(call: Calling) -> None:
    async with listening(OK, tls=server_tls("signed.pem")) as peer:
        with pytest.raises(ActionError, match=r"not valid for 'other\.example\.com'; the host of the URL must be"):
            await call(peer.port, {"ca": AUTHORITY}, host="other.example.com")
        with pytest.raises(ActionError, match=r"not valid for '127\.0\.0\.1'"):
            await call(peer.port, {"ca": AUTHORITY}, host="127.0.0.1")
    assert peer.requests == []


async def test_a_receiver_without_tls_is_told(call: Calling) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 This is plain HTTP\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        with pytest.raises(ActionError, match="no TLS connection") as caught:
            await call(server.sockets[0].getsockname()[1], {"ca": AUTHORITY})
    assert caught.value.reason == "connection"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_certificate_is_shown_to_who_demands_one(call: Calling, version: ssl.TLSVersion) -> None:
    async with demanding_clients(version) as peer:
        for _ in range(2):
            assert (await call(peer.port, {"ca": AUTHORITY, **CLIENT})).details["status"] == 200
        with pytest.raises(ActionError, match="demands a client certificate") as caught:
            await call(peer.port, {"ca": AUTHORITY})
        if version is ssl.TLSVersion.TLSv1_3:  # in 1.2 the alert is the one of every failed handshake
            assert caught.value.reason == "tls"
            assert not caught.value.retryable
    assert peer.requests == 2


async def test_a_client_certificate_that_is_not_taken_is_told(call: Calling) -> None:
    async with demanding_clients() as peer:
        with pytest.raises(ActionError, match="does not take the client certificate") as caught:
            await call(peer.port, {"ca": AUTHORITY, "certificate": f"file:{CERTIFICATES}/stranger.pem"})
    assert caught.value.reason == "tls"
    assert not caught.value.retryable
    assert peer.requests == 0


@pytest.mark.parametrize(
    ("tls", "message"),
    [
        ({"ca": f"file:{CERTIFICATES}/client.key"}, r"tls\.ca: has no certificates in it"),
        ({"ca": f"file:{CERTIFICATES}/missing.pem"}, r"missing\.pem: can not be read: No such file"),
        (
            {"certificate": f"file:{CERTIFICATES}/client.pem"},
            r"tls\.certificate, tls\.key: not a certificate with its key",
        ),
        ({**CLIENT, "key": f"file:{CERTIFICATES}/locked.key"}, r"the key without a passphrase"),
        ({**CLIENT, "key": f"file:{CERTIFICATES}/signed.pem"}, r"tls\.key: belongs to another certificate"),
        ({**CLIENT, "key": "env:NOT_SET"}, r"env:NOT_SET: the environment variable is not set"),
    ],
)
async def test_material_that_can_not_be_used_is_named_and_not_shown(
    call: Calling, tls: dict[str, str], message: str
) -> None:
    with pytest.raises(ActionError, match=message) as caught:
        await call(1, tls)
    assert not caught.value.retryable
    assert "BEGIN" not in str(caught.value)
    for name in ("client.key", "locked.key"):
        assert (CERTIFICATES / name).read_text().splitlines()[1] not in str(caught.value)


async def test_material_may_be_in_the_environment_and_counts_anew_when_it_changes(
    call: Calling, world: Any, tmp_path: Path
) -> None:
    world.environ["CLIENT"] = (CERTIFICATES / "client.pem").read_text() + (CERTIFICATES / "client.key").read_text()
    authority = tmp_path / "ca.pem"
    authority.write_text((CERTIFICATES / "receiver.pem").read_text())
    tls = {"ca": f"file:{authority}", "certificate": "env:CLIENT"}
    async with listening(OK, tls=server_tls("signed.pem", demand_clients_of="authority.pem")) as peer:
        with pytest.raises(ActionError, match="no trusted TLS connection"):
            await call(peer.port, tls)
        authority.write_text((CERTIFICATES / "authority.pem").read_text())
        assert (await call(peer.port, tls)).details["status"] == 200


async def test_keys_are_redacted_and_certificates_are_not(call: Calling, world: Any) -> None:
    async with listening(OK, tls=server_tls("signed.pem", demand_clients_of="authority.pem")) as peer:
        await call(peer.port, {"ca": AUTHORITY, **CLIENT})
    key = (CERTIFICATES / "client.key").read_text().splitlines()[1]
    certificate = (CERTIFICATES / "client.pem").read_text().splitlines()[1]
    assert world.ports.redactor.text(f"{key} {certificate}") == f"*** {certificate}"


async def test_the_settings_count_for_every_action_and_an_actions_own_tls_instead_of_them(world: Any) -> None:
    defaults = ConnectionDefaults(tls=Tls(ca=AUTHORITY, **CLIENT))
    async with (
        open_http_client(defaults=defaults, resolve=home) as client,
        demanding_clients() as peer,
    ):
        ports = dataclasses.replace(world.ports, http=client)
        action = {"call-webhook": f"https://receiver.example.com:{peer.port}/"}
        assert (await world.perform(action, ports=ports)).details["status"] == 200
        with pytest.raises(ActionError, match="demands a client certificate"):
            await world.perform({**action, "tls": {"ca": AUTHORITY}}, ports=ports)


@pytest.mark.parametrize(
    ("tls", "message"),
    [
        ({}, "is empty; name `ca`"),
        ({"key": "env:KEY"}, "a key without a certificate"),
        ({"ca": "-----BEGIN CERTIFICATE-----"}, "a secret is a reference"),
        ({"insecure": True}, "Extra inputs"),
    ],
)
def test_a_wrong_tls_is_refused_at_load(tls: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_action({"call-webhook": "https://a/", "tls": tls})


def test_tls_for_a_url_without_it_is_refused_at_load() -> None:
    with pytest.raises(InvalidTemplate, match="tls: the url is http://"):
        compile_action(read_action({"call-webhook": "http://a/", "tls": {"ca": AUTHORITY}}))
