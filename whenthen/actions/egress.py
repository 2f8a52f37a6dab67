"""Where requests of actions may connect to: a connection pool that checks the address it connects to, not the name.

A name is resolved here, each address is checked, and the connection goes to a checked address, so that a name which
answers differently the second time (DNS rebinding) changes nothing. Environment proxies are not used: behind a proxy
the address could not be checked. Who uses it: `webhooks`. Meaning: docs/actions.md, "Where requests may go".
"""

from __future__ import annotations

import asyncio
import ipaddress
import select
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import httpcore
import httpx

from whenthen.schemas.errors import ActionError

__all__ = ["AddressPolicy", "Resolve", "open_pool", "refusal", "resolve_host"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
SocketOption = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]
#: host, port -> addresses as text, in the order of preference
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

#: instance metadata services outside the link-local ranges
METADATA = {
    ipaddress.ip_address("fd00:ec2::254"): "AWS",
    ipaddress.ip_address("fd20:ce::254"): "Google Cloud",
    ipaddress.ip_address("100.100.100.200"): "Alibaba Cloud",
    ipaddress.ip_address("168.63.129.16"): "Azure",
    ipaddress.ip_address("192.0.0.192"): "Oracle Cloud",
}
#: RFC 6052: IPv4 inside IPv6 for translators
NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressPolicy:
    """Which addresses are refused beside link-local and metadata ones, which always are."""

    refuse_private: bool = False  #: loopback, private networks, carrier-grade NAT, and everything not global


def refusal(address: str, policy: AddressPolicy) -> str | None:
    """Why `address` must not be connected to, or None. IPv4 inside IPv6 counts as the IPv4 address."""
    outer = ipaddress.ip_address(address)
    for found in (outer, *_embedded(outer)):
        if found.is_link_local:
            return "link-local address"
        if found in METADATA:
            return f"metadata service of {METADATA[found]}"
        if found.is_multicast or found == ipaddress.IPv4Address("255.255.255.255"):
            return "multicast or broadcast address"
        if policy.refuse_private and not found.is_global and not (found is outer and list(_embedded(outer))):
            return "private address, and private addresses are refused by the settings"
    return None


def _embedded(address: Address) -> Iterable[ipaddress.IPv4Address]:
    if not isinstance(address, ipaddress.IPv6Address):
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address in NAT64 or (int(address) >> 32 == 0 and int(address) > 0xFFFF):  # the latter: `::a.b.c.d`, RFC 4291
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)


async def resolve_host(host: str, port: int) -> Sequence[str]:
    """Addresses of `host` as the system resolves it, each once."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


class _Stream(httpcore.AsyncNetworkStream):
    """A connection that is asked cheaply whether it is still open.

    The pool asks every idle connection before and after each request, and to find the socket took longer than to send
    the request.
    """

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner
        self._socket = inner.get_extra_info("socket")
        self._poll = None
        if hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(self._socket, select.POLLIN)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._inner.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable" and self._poll is not None:
            return self._socket.fileno() < 0 or bool(self._poll.poll(0))
        return self._inner.get_extra_info(info)


class _CheckedBackend(httpcore.AsyncNetworkBackend):
    def __init__(self, policy: AddressPolicy, resolve: Resolve) -> None:
        self._policy = policy
        self._resolve = resolve
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            addresses = await self._resolve(host, port)
        except (socket.gaierror, UnicodeError) as error:
            raise httpcore.ConnectError(f"the name {host} can not be resolved: {error}") from None
        failure: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        refused = ""
        for address in addresses:
            if why := refusal(address, self._policy):
                refused = f"{host} is {address}, a {why}"
                continue
            try:
                stream = await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
                return _Stream(stream)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        if failure is not None:
            raise failure
        if refused:
            raise ActionError(
                f"refused to connect: {refused}; actions never reach it", retryable=False, reason="refused_address"
            )
        raise httpcore.ConnectError(f"the name {host} has no address")

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[SocketOption] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise httpcore.UnsupportedProtocol("actions do not connect to Unix sockets")

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


def open_pool(
    policy: AddressPolicy | None = None,
    *,
    resolve: Resolve = resolve_host,
    max_connections: int = 100,
    keepalive: float = 15.0,
) -> httpcore.AsyncConnectionPool:
    """A pool for `Ports.http`; close it with `aclose()` or `async with`. `keepalive` is in seconds.

    Certificates are verified against certifi's roots, or `SSL_CERT_FILE` / `SSL_CERT_DIR` where these are set.
    """
    return httpcore.AsyncConnectionPool(
        ssl_context=httpx.create_ssl_context(),
        max_connections=max_connections,
        keepalive_expiry=keepalive,
        network_backend=_CheckedBackend(policy or AddressPolicy(), resolve),
    )
