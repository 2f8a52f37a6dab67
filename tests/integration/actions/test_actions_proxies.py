"""call-webhook through a proxy that an action or the settings name."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from http_peers import CERTIFICATES, OK, demanding_clients, eventually, home, listening, proxying, server_tls

from whenthen.actions import (
    AddressPolicy,
    ConnectionDefaults,
    open_http_client,
    read_action,
)
from whenthen.schemas.errors import ActionError

pytestmark = pytest.mark.anyio
TLS = {"ca": f"file:{CERTIFICATES}/authority.pem"}


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


async def never(host: str, port: int) -> list[str]:
    raise AssertionError(f"{host} was resolved here")


Calling = Callable[..., Awaitable[Any]]


@pytest.fixture
async def call(world: Any) -> AsyncIterator[Calling]:
    """Perform a call-webhook through a client that resolves no names."""
    async with open_http_client(resolve=never) as client:

        async def perform(url: str, **action: Any) -> Any:
            return await world.perform(
                {"call-webhook": url, **action}, ports=dataclasses.replace(world.ports, http=client)
            )

        yield perform


async def test_a_plain_request_goes_to_the_proxy_with_its_whole_url(call: Calling) -> None:
    async with listening(OK) as peer, proxying() as proxy:
        result = await call(f"http://receiver.example.com:{peer.port}/a?b=c", proxy=proxy.url)
    assert result.details == {"status": 200, "host": "receiver.example.com"}
    assert proxy.heads[0].startswith(f"POST http://receiver.example.com:{peer.port}/a?b=c HTTP/1.1\r\n")
    assert f"host: receiver.example.com:{peer.port}\r\n" in proxy.heads[0].lower()


async def test_a_request_over_tls_goes_through_a_tunnel_that_is_kept(call: Calling) -> None:
    async with listening(OK, tls=server_tls("signed.pem")) as peer, proxying() as proxy:
        for _ in range(2):
            url = f"https://receiver.example.com:{peer.port}/secret-path"
            assert (await call(url, proxy=proxy.url, tls=TLS, headers={"X-Key": "a"})).details["status"] == 200
        (head,) = proxy.heads
        assert head.startswith(f"CONNECT receiver.example.com:{peer.port} HTTP/1.1\r\n")
        assert "secret-path" not in head
        assert "x-key" not in head.lower()
        assert len(peer.requests) == 2
        assert b"proxy" not in peer.requests[0].lower()


async def test_certificates_are_verified_through_a_tunnel(call: Calling) -> None:
    async with listening(OK, tls=server_tls("signed.pem")) as peer, proxying() as proxy:
        with pytest.raises(ActionError, match="no trusted TLS connection") as caught:
            await call(f"https://receiver.example.com:{peer.port}/", proxy=proxy.url)
        assert caught.value.reason == "connection"
        with pytest.raises(ActionError, match=r"not valid for 'other\.example\.com'"):
            await call(f"https://other.example.com:{peer.port}/", proxy=proxy.url, tls=TLS)
    assert peer.requests == []


async def test_a_client_certificate_is_shown_through_a_tunnel(call: Calling) -> None:
    tls = {**TLS, "certificate": f"file:{CERTIFICATES}/client.pem", "key": f"file:{CERTIFICATES}/client.key"}
    async with demanding_clients() as peer, proxying() as proxy:
        url = f"https://receiver.example.com:{peer.port}/"
        assert (await call(url, proxy=proxy.url, tls=tls)).details["status"] == 200
        with pytest.raises(ActionError, match="demands a client certificate") as caught:
            await call(url, proxy=proxy.url, tls=TLS)
        assert caught.value.reason == "tls"


async def test_a_proxy_that_is_not_there_is_told_and_tried_again(call: Calling, free_port: int) -> None:
    for scheme in ("http", "https"):
        with pytest.raises(ActionError, match=f"can not connect to the proxy 127.0.0.1:{free_port}: ") as caught:
            await call(f"{scheme}://receiver.example.com/secret-path", proxy=f"http://127.0.0.1:{free_port}")
        assert caught.value.reason == "proxy"
        assert caught.value.retryable
        assert "secret-path" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "message", "retryable"),
    [
        (b"403 Forbidden", "answered 403; it does not let requests through", False),
        (b"407 Proxy Authentication Required", "answered 407; it wants a user and a password", False),
        (b"404 Not Found", "answered 404", False),
        (b"429 Too Many Requests", "answered 429", True),
        (b"502 Bad Gateway", "answered 502", True),
        (b"503 Service Unavailable", "answered 503", True),
    ],
)
async def test_a_proxy_that_refuses_a_tunnel_is_told(
    call: Calling, status: bytes, message: str, retryable: bool
) -> None:
    body = b"<html>a page of the proxy</html>"
    answer = b"HTTP/1.1 " + status + b"\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    async with proxying(status=answer) as proxy:
        with pytest.raises(ActionError, match=f"the proxy 127.0.0.1:{proxy.port} {message}") as caught:
            await call("https://receiver.example.com/", proxy=proxy.url)
    assert caught.value.reason == "proxy"
    assert caught.value.retryable is retryable
    assert len(proxy.heads) == 1


async def test_a_proxy_that_refuses_a_plain_request_is_told(call: Calling) -> None:
    async with proxying(status=b"HTTP/1.1 407 Who are you\r\ncontent-length: 0\r\n\r\n") as proxy:
        with pytest.raises(ActionError, match="it wants a user and a password") as caught:
            await call("http://receiver.example.com/", proxy=proxy.url)
    assert caught.value.reason == "proxy"
    assert not caught.value.retryable
    async with proxying(status=b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n") as proxy:
        with pytest.raises(ActionError, match="answered 403") as caught:
            await call("http://receiver.example.com/", proxy=proxy.url)
    assert caught.value.reason == "http_status"


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_hangs_is_given_up_after_the_timeout_and_its_connection_closed(
    call: Calling, scheme: str
) -> None:
    async with proxying(hold=True) as proxy:
        with pytest.raises(ActionError, match="not done within 1s") as caught:
            await call(f"{scheme}://receiver.example.com/", proxy=proxy.url, timeout="1s")
        assert caught.value.reason == "timeout"
        assert caught.value.retryable
        await eventually(lambda: proxy.closed == proxy.connections)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "is not HTTP"),
        (b"", "closed without an answer"),
        (b"HTTP/1.1 200 Connection", "closed in the middle of the answer"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 3_000_000, "no end within|is not HTTP"),
    ],
)
async def test_a_proxy_that_talks_nonsense_is_told(call: Calling, answer: bytes, message: str) -> None:
    async with proxying(status=answer) as proxy:
        with pytest.raises(ActionError, match=message) as caught:
            await call("https://receiver.example.com/", proxy=proxy.url)
    assert caught.value.retryable
    assert len(proxy.heads) == 1


async def test_credentials_are_in_a_secret_and_reach_the_proxy_alone(call: Calling, world: Any) -> None:
    basic = base64.b64encode("us er:p@ss:wörd".encode()).decode()
    async with (
        listening(OK) as plain,
        listening(OK, tls=server_tls("signed.pem")) as secure,
        proxying() as proxy,
        proxying(status=b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n") as refusing,
    ):
        world.environ["PROXY"] = f"http://us%20er:p%40ss%3Aw%C3%B6rd@127.0.0.1:{proxy.port}"
        await call(f"http://receiver.example.com:{plain.port}/", proxy="env:PROXY")
        await call(f"https://receiver.example.com:{secure.port}/", proxy="env:PROXY", tls=TLS)
        for head in proxy.heads:
            assert f"proxy-authorization: basic {basic}".lower() in head.lower()
        assert b"proxy-authorization" not in secure.requests[0].lower()
        world.environ["PROXY"] = f"http://us%20er:p%40ss%3Aw%C3%B6rd@127.0.0.1:{refusing.port}"
        with pytest.raises(ActionError, match="answered 403") as caught:
            await call("https://receiver.example.com/", proxy="env:PROXY")
    assert "p%40ss" not in str(caught.value)
    assert basic not in str(caught.value)


@pytest.mark.parametrize(
    "value", ["https://proxy:3128", "proxy:3128", "http://proxy", "http://proxy:x", "socks5://p:1", "\n"]
)
async def test_a_secret_that_is_no_proxy_is_told_and_not_shown(call: Calling, world: Any, value: str) -> None:
    world.environ["PROXY"] = value
    with pytest.raises(ActionError, match=r"the proxy is not http://host:port|is empty") as caught:
        await call("https://receiver.example.com/", proxy="env:PROXY")
    assert not caught.value.retryable
    assert value not in str(caught.value)


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "[fe80::1]",
        "[fe80::1%25eth0]",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[fd00:ec2::254%25eth0]",
        "2852039166",
        "0xa9fea9fe",
        "169.254.43518",
        "169.254.169.254.",
        "%31%36%39.254.169.254",
    ],
)
async def test_a_literal_address_is_checked_behind_a_proxy_too(call: Calling, host: str) -> None:
    async with proxying() as proxy:
        for scheme in ("http", "https"):
            with pytest.raises(ActionError, match="refused to connect") as caught:
                await call(f"{scheme}://{host}/latest/meta-data", proxy=proxy.url)
            assert caught.value.reason == "refused_address"
            assert not caught.value.retryable
    assert proxy.connections == 0


async def test_a_proxy_at_an_address_that_is_refused_is_not_used(call: Calling, world: Any) -> None:
    with pytest.raises(ActionError, match=r"the proxy is 169\.254\.169\.254, a link-local address") as caught:
        await call("http://receiver.example.com/", proxy="http://169.254.169.254:80")
    assert caught.value.reason == "refused_address"

    async def linked(host: str, port: int) -> list[str]:
        assert host == "proxy.example.com"
        return ["169.254.169.254"]

    async with open_http_client(resolve=linked) as client:
        ports = dataclasses.replace(world.ports, http=client)
        with pytest.raises(ActionError, match=r"proxy\.example\.com is 169\.254\.169\.254, a link-local"):
            await world.perform(
                {"call-webhook": "https://receiver.example.com/", "proxy": "http://proxy.example.com:3128"}, ports=ports
            )


async def test_only_the_proxy_of_the_settings_may_be_private_where_private_is_refused(world: Any) -> None:
    strict = AddressPolicy(refuse_private=True)
    async with listening(OK) as peer, proxying() as proxy:
        action = {"call-webhook": f"http://receiver.example.com:{peer.port}/"}
        async with open_http_client(strict, defaults=ConnectionDefaults(proxy=proxy.url), resolve=never) as client:
            ports = dataclasses.replace(world.ports, http=client)
            assert (await world.perform(action, ports=ports)).details["status"] == 200
            for refused in (
                {"call-webhook": peer.url},
                {**action, "proxy": proxy.url},
                {**action, "proxy": "http://127.1:1"},
            ):
                with pytest.raises(ActionError, match="refused by the settings"):
                    await world.perform(refused, ports=ports)
        assert proxy.connections == 1


async def test_an_action_goes_around_the_proxy_of_the_settings(world: Any, free_port: int) -> None:
    defaults = ConnectionDefaults(proxy=f"http://127.0.0.1:{free_port}")
    async with open_http_client(defaults=defaults, resolve=home) as client, listening(OK) as peer, proxying() as proxy:
        ports = dataclasses.replace(world.ports, http=client)
        action = {"call-webhook": f"http://receiver.example.com:{peer.port}/"}
        with pytest.raises(ActionError, match="can not connect to the proxy"):
            await world.perform(action, ports=ports)
        await world.perform({**action, "proxy": "none"}, ports=ports)
        assert proxy.connections == 0
        await world.perform({**action, "proxy": proxy.url}, ports=ports)
        assert proxy.connections == 1
        assert peer.connections == 2


@pytest.mark.parametrize(
    "proxy",
    [
        "https://proxy:3128",
        "proxy:3128",
        "http://proxy",
        "http://user:hush@proxy:3128",
        "http://proxy:3128/path",
        "http://p:99999999",
        "",
    ],
)
def test_a_wrong_proxy_is_refused_at_load(proxy: str) -> None:
    with pytest.raises(ValueError, match="is no proxy; write http://host:port") as caught:
        read_action({"call-webhook": "https://a/", "proxy": proxy})
    assert "hush" not in str(caught.value.errors(include_input=False)[0]["msg"])  # type: ignore[attr-defined]
