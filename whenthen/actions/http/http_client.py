"""The HTTP client of actions: aiohttp, held to what docs/actions.md promises.

aiohttp parses, pools and proxies. Added here: the address policy (every resolved address is checked, the connection goes to a
checked one, and each socket is checked once more), a limit for connections that counts idle ones, and, in `client_connection`, a limit
for the bytes of an answer and care with kept connections.

Redirects, cookies, decompression, proxies of the environment and aiohttp's own repetition of requests are off.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import socket
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit
from weakref import WeakSet

import aiohttp
import httpx
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.http_exceptions import HttpProcessingError

from whenthen.actions.http.address_policy import AddressPolicy, Resolve, literal_address, refusal
from whenthen.actions.http.client_connection import EXCHANGE, MAX_ANSWER_BYTES, Connection, Exchange
from whenthen.actions.http.outgoing import (
    MAX_BODY_BYTES,
    Answer,
    ConnectionDefaults,
    Proxy,
    RequestFailed,
    TlsMaterial,
)
from whenthen.actions.http.tls_contexts import TlsContexts, explain_tls_error

__all__ = ["MAX_ANSWER_BYTES", "AiohttpClient"]

#: the parser's own limits, of one line and of the number of headers; `MAX_ANSWER_BYTES` is reached before the first
PARSER_BYTES = 2 * MAX_ANSWER_BYTES
MAX_HEADERS = 10_000
#: to wait for the reason of a connection's end
ENDING_S = 1.0
#: larger bodies are sent in parts, so that the event loop is not held up
WHOLE_BODY_BYTES = 256 * 1024
#: of a proxy's answers to CONNECT, those after which another attempt may work
PASSING_PROXY_STATUS = frozenset({408, 425, 429})

_NO_TIMEOUTS = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)
_NOT_IN_A_LINE = re.compile(r"[\r\n\0]")


class _Resolver(AbstractResolver):
    """Resolves names to the addresses that may be reached."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_UNSPEC) -> list[ResolveResult]:
        policy = EXCHANGE.get().policy
        try:
            addresses = await self._resolve(host, port)
        except (socket.gaierror, UnicodeError) as error:
            raise RequestFailed(f"the name {host} can not be resolved: {error}") from None
        refused = None
        found: list[ResolveResult] = []
        for address in addresses:
            if why := refusal(address, policy):
                refused = _refused(f"{host} is {address}, a {why}")
                continue
            kind = socket.AF_INET6 if ":" in address else socket.AF_INET
            found.append(
                {
                    "hostname": host,
                    "host": address,
                    "port": port,
                    "family": kind,
                    "proto": 0,
                    "flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                }
            )
        if not found:
            raise refused or RequestFailed(f"the name {host} has no address")
        return found

    async def close(self) -> None:
        pass


def _checked_socket(info: Any) -> socket.socket:
    """The last check, of the address itself, whatever led to it."""
    family, kind, protocol, _, address = info
    if why := refusal(str(address[0]), EXCHANGE.get().policy):
        raise OSError(f"refused to connect: {address[0]} is a {why}")
    return socket.socket(family, kind, protocol)


class AiohttpClient:
    """Implements `outgoing.HttpClient`; use `async with`.

    At most `max_connections` are open; more requests wait. A connection that nobody used for `keepalive_s` is closed.
    """

    def __init__(
        self,
        policy: AddressPolicy,
        defaults: ConnectionDefaults,
        resolve: Resolve,
        *,
        max_connections: int,
        keepalive_s: float,
    ) -> None:
        self.defaults = defaults
        self._policy = policy
        self._resolve = resolve
        self._max = max_connections
        self._keepalive_s = keepalive_s
        self._slots = asyncio.Semaphore(max_connections)
        self._opened: WeakSet[Connection] = WeakSet()
        self._contexts = TlsContexts()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> AiohttpClient:
        loop = asyncio.get_running_loop()
        connector = aiohttp.TCPConnector(
            resolver=_Resolver(self._resolve),
            use_dns_cache=False,
            socket_factory=_checked_socket,
            limit=0,  # of `_slots`
            keepalive_timeout=self._keepalive_s,
            timeout_ceil_threshold=float("inf"),
        )
        # aiohttp has no public way to name the class of its connections; tests notice when this one is gone
        connector._factory = lambda: Connection(loop, self._opened, self._max)  # type: ignore[assignment]
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=_NO_TIMEOUTS,
            trust_env=False,
            auto_decompress=False,
            middlewares=[_fail_once],
            skip_auto_headers=["Content-Type"],
            max_line_size=PARSER_BYTES,
            max_field_size=PARSER_BYTES,
            max_headers=MAX_HEADERS,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            for connection in list(self._opened):
                connection.end("the process is stopping")
            await self._session.close()

    async def check_host(self, host: str) -> None:
        """As `HttpClient.check_host`."""
        literal = literal_address(host)
        try:
            addresses = [literal] if literal is not None else await self._resolve(host.strip("[]"), 0)
        except (socket.gaierror, UnicodeError):
            return
        for address in addresses:
            if why := refusal(address, self._policy):
                raise _refused(f"{host} is {'' if host == address else address + ', '}a {why}")

    async def request(
        self,
        method: str,
        url: httpx.URL,
        headers: Mapping[str, str],
        body: bytes,
        *,
        proxy: Proxy | None = None,
        tls: TlsMaterial | None = None,
    ) -> Answer:
        """As `HttpClient.request`.

        A kept connection that ends before a byte of the answer comes was most likely closed by the other side while it
        was idle (RFC 9112, 9.5): the request is sent once more on a new one. It may arrive twice, as may every action;
        `headers` have the key by which the receiver can tell. In no other case is a request sent again.
        """
        target = _target(url, self._policy, through_proxy=proxy is not None)
        given = {"Host": url.netloc.decode(), **headers}
        for name, value in given.items():
            if _NOT_IN_A_LINE.search(name) or _NOT_IN_A_LINE.search(value):
                raise ValueError("a header has a line break or a zero byte in it")
        policy, proxy_url, proxy_headers = self._policy, None, None
        if proxy is not None:
            policy = AddressPolicy() if proxy.from_settings else self._policy
            proxy_url, credentials = _proxy_target(proxy.url, policy)
            if credentials and url.scheme == "https":
                proxy_headers = {"Proxy-Authorization": credentials}
            elif credentials:
                given["Proxy-Authorization"] = credentials
        origin = (target.scheme, target.raw_host or "", target.port or 0, str(proxy_url or ""))
        exchange = Exchange(origin, policy)
        options: dict[str, Any] = {"headers": given, "proxy": proxy_url, "proxy_headers": proxy_headers}
        if url.scheme == "https":
            options["ssl"] = await self._contexts.get(tls)
        async with self._slots:
            try:
                return await self._exchange(exchange, method, target, body, options)
            except _Unanswered as error:
                if not exchange.kept:
                    raise error.told from None
            for connection in list(self._opened):
                if connection.origin == origin and connection.idle:
                    connection.end()
            try:
                return await self._exchange(Exchange(origin, policy), method, target, body, options)
            except _Unanswered as error:
                raise error.told from None

    async def _exchange(
        self, exchange: Exchange, method: str, target: yarl.URL, body: bytes, options: dict[str, Any]
    ) -> Answer:
        assert self._session is not None
        token = EXCHANGE.set(exchange)
        response = None
        try:
            data = io.BytesIO(body) if len(body) > WHOLE_BODY_BYTES else body or None
            response = await self._session.request(method, target, data=data, allow_redirects=False, **options)
            found = bytearray()
            if response.status != 101:
                while len(found) < MAX_BODY_BYTES and (chunk := await response.content.readany()):
                    found += chunk
            if response.status == 407 and options["proxy"] is not None:
                raise _proxy_answered(407, options["proxy"])
            return Answer(response.status, response.headers, bytes(found[:MAX_BODY_BYTES]))
        except (aiohttp.ClientError, HttpProcessingError, _Interrupted, OSError) as error:
            if exchange.connection is not None and _may_hide_tls_error(error):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ENDING_S):
                        await exchange.connection.ended.wait()
            raise _explain(error, exchange, proxied=options["proxy"]) from None
        finally:
            if (response is None or not response.closed) and exchange.connection is not None:
                exchange.connection.end()
            if response is not None:
                response.close()
            EXCHANGE.reset(token)


class _Interrupted(Exception):
    """Stands for its cause. aiohttp sends a request again after some errors; after this one it does not."""


class _Unanswered(Exception):
    """The connection ended before the first byte of an answer."""

    def __init__(self, told: RequestFailed) -> None:
        self.told = told


async def _fail_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _Interrupted from error


def _target(url: httpx.URL, policy: AddressPolicy, *, through_proxy: bool) -> yarl.URL:
    """What aiohttp is given: the URL as it was checked, an address in its usual form."""
    host = url.raw_host.decode()
    address = literal_address(host)
    if address is not None:
        if why := refusal(address, policy):
            raise _refused(f"{host} is {'' if host == address else address + ', '}a {why}")
    elif through_proxy and "%" in host:
        raise _refused(f"{host} is not a host name, and a proxy may read it in its own way")
    netloc = url.netloc.decode()
    if address is not None and address != host:
        port = "" if url.port is None else f":{url.port}"
        netloc = (f"[{address}]" if ":" in address else address) + port
    return yarl.URL(f"{url.scheme}://{netloc}{url.raw_path.decode('ascii')}", encoded=True)


def _proxy_target(text: str, policy: AddressPolicy) -> tuple[yarl.URL, str | None]:
    """The proxy without its credentials, and these as a header.

    Raises:
        RequestFailed: it is no proxy, or must not be reached. Quotes nothing of what may be a secret.
    """
    try:
        split = urlsplit(text)
        host, port = split.hostname, split.port
    except ValueError:
        host = port = None
    if not host or port is None or split.scheme != "http" or split.path.strip("/") or split.query or split.fragment:
        raise RequestFailed(
            "the proxy is not http://host:port or http://user:password@host:port", reason="proxy", retryable=False
        )
    address = literal_address(host)
    if address is not None and (why := refusal(address, policy)):
        raise _refused(f"the proxy is {address}, a {why}")
    host = address or host
    credentials = None
    if split.username is not None:
        credentials = aiohttp.encode_basic_auth(unquote(split.username), unquote(split.password or ""), "utf-8")
    return yarl.URL(f"http://{f'[{host}]' if ':' in host else host}:{port}/", encoded=True), credentials


def _refused(what: str) -> RequestFailed:
    return RequestFailed(
        f"refused to connect: {what}; actions never reach it", reason="refused_address", retryable=False
    )


def _explain(error: BaseException, exchange: Exchange, *, proxied: yarl.URL | None) -> RequestFailed | _Unanswered:
    """What went wrong, in our words; of the receiver's bytes nothing is quoted."""
    connection = exchange.connection
    if isinstance(error, _Interrupted):
        error = error.__cause__ or error
    if connection is not None and connection.failure is not None:
        return RequestFailed(connection.failure)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return _proxy_answered(error.status, proxied)
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return RequestFailed(
            f"can not connect to the proxy {_place(proxied)}: {_os_error(error.os_error)}", reason="proxy"
        )
    told = _tls_error(error) or _tls_error(connection.ended_by if connection is not None else None)
    if told is not None:
        return explain_tls_error(told)
    if isinstance(error, aiohttp.ClientConnectorError):
        return RequestFailed(f"can not connect: {_os_error(error.os_error)}")
    garbage = connection.garbage if connection is not None else None
    if garbage is not None or isinstance(error, aiohttp.ClientResponseError):
        # the first line is the parser's; the others quote the receiver
        lines = str(garbage.message if garbage is not None else "").strip().splitlines()
        why = lines[0].partition(" when reading")[0].rstrip(":") if lines else "it can not be read"
        return RequestFailed(f"the answer is not HTTP/1.1: {why}")
    began = connection is not None and connection.received > 0
    where = "in the middle of the answer" if began else "without an answer"
    # by its number: aiohttp's own text may have the URL in it
    why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else ""
    text = f"the connection was closed {where}" + (f": {why}" if why else "")
    if not began and exchange.origin[0] == "https" and not exchange.kept:
        text += "; a receiver that demands a client certificate (`tls`) may do so before it says why"
    failed = RequestFailed(text)
    return failed if began or connection is None else _Unanswered(failed)


def _may_hide_tls_error(error: BaseException) -> bool:
    """Whether a write failed because the connection had ended; what ended it is told a moment later."""
    return isinstance(error.__cause__, aiohttp.ClientOSError) and isinstance(
        error.__cause__.__cause__, aiohttp.ClientConnectionResetError
    )


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """The TLS error that `error` is, wraps or came from."""
    while error is not None:
        inner = getattr(error, "certificate_error", None) or getattr(error, "os_error", None)
        for one in (inner, error):
            if isinstance(one, ssl.SSLError) and not isinstance(one, aiohttp.ClientError):
                return one
        error = error.__cause__
    return None


def _proxy_answered(status: int, proxy: yarl.URL | None) -> RequestFailed:
    remedy = {
        403: "; it does not let requests through to this host and port; ask its operator",
        407: "; it wants a user and a password: put http://user:password@host:port into an environment variable or a file, "
        "and name that as the proxy",
    }.get(status, "")
    passing = status >= 500 or status in PASSING_PROXY_STATUS
    return RequestFailed(f"the proxy {_place(proxy)} answered {status}{remedy}", reason="proxy", retryable=passing)


def _place(proxy: yarl.URL | None) -> str:
    return "" if proxy is None else f"{proxy.host_subcomponent}:{proxy.port}"


def _os_error(error: OSError) -> str:
    return (os.strerror(error.errno) if error.errno else str(error)) or type(error).__name__
