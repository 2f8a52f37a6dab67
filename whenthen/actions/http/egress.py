"""Where requests of actions may connect to: a connection pool that checks the address it connects to, not the name.

A name is resolved here, each address is checked, and the connection goes to a checked address, so that a name which
answers differently the second time (DNS rebinding) changes nothing. Environment proxies are not used: behind a proxy
the address could not be checked. Who uses it: `webhooks`. Meaning: docs/actions.md, "Where requests may go".
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

import httpx

from whenthen.actions.http.connections import Answer, Broken, Connection, Headers, Unanswered, encode_request
from whenthen.schemas import ActionError

__all__ = ["AddressPolicy", "Pool", "Resolve", "open_pool", "refusal", "resolve_host"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
#: TLS, host, port
Origin = tuple[bool, str, int]
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
#: IPv4 in the last 32 bits of IPv6, for translators: RFC 6052, RFC 8215, RFC 2765
TRANSLATED = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "::ffff:0:0:0/96")))
CONNECT_S = 5.0  #: for an address after which there is another one to try


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
    if any(address in net for net in TRANSLATED) or (
        int(address) >> 32 == 0 and int(address) > 0xFFFF
    ):  # the latter: `::a.b.c.d`, RFC 4291
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)


async def resolve_host(host: str, port: int) -> Sequence[str]:
    """Addresses of `host` as the system resolves it, each once."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


class Pool:
    """Connections to many hosts, kept for the next request. For `Ports.http`; close it, or use `async with`.

    At most `max_connections` are open; more requests wait. Nothing is waited for with a limit of its own: whoever calls
    gives the request as a whole a time.
    """

    def __init__(
        self, policy: AddressPolicy, resolve: Resolve, tls: ssl.SSLContext, *, max_connections: int, keepalive_s: float
    ) -> None:
        self._policy = policy
        self._resolve = resolve
        self._tls = tls
        self._max = max_connections
        self._keepalive_s = keepalive_s
        self._slots = asyncio.Semaphore(max_connections)
        self._open: set[Connection] = set()
        self._connecting = 0
        self._idle: dict[Origin, list[Connection]] = {}  #: the last one used comes last
        self._sweeper: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Pool:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection; requests that are under way fail."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        self._idle.clear()
        for connection in list(self._open):
            connection.close()
        self._open.clear()

    async def request(self, method: str, url: httpx.URL, headers: Headers, body: bytes) -> Answer:
        """Send one request and give its answer, whatever its status.

        A kept connection that ends before a byte of the answer comes was most likely closed by the other side while it
        was idle: the request is sent once more on a new one. It may arrive twice, as may every action; `headers` have the
        key by which the receiver can tell.

        Raises:
            ActionError: the host's addresses must not be reached.
            Broken: no connection, or no complete answer.
        """
        request = encode_request(method, url.raw_path, [(b"host", url.netloc), *headers], body)
        origin = url.scheme == "https", url.raw_host.decode(), url.port or (443 if url.scheme == "https" else 80)
        async with self._slots:
            connection = self._take(origin)
            if connection is not None:
                try:
                    return await self._exchange(origin, connection, request)
                except Unanswered:
                    pass
            return await self._exchange(origin, await self._connect(origin), request)

    async def _exchange(self, origin: Origin, connection: Connection, request: bytes) -> Answer:
        try:
            answer = await connection.exchange(request)
        except BaseException:
            connection.close()
            raise
        finally:
            if connection.usable:
                self._keep(origin, connection)
            else:
                self._open.discard(connection)
        return answer

    def _take(self, origin: Origin) -> Connection | None:
        idle = self._idle.get(origin)
        oldest = asyncio.get_running_loop().time() - self._keepalive_s
        found = None
        while idle and found is None:
            found = idle.pop()
            if not found.usable or found.idle_since < oldest:
                self._forget(found)
                found = None
        if idle is not None and not idle:
            del self._idle[origin]
        return found

    def _keep(self, origin: Origin, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle.setdefault(origin, []).append(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(self._keepalive_s, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close what nobody used for `keepalive_s`."""
        oldest = loop.time() - self._keepalive_s
        for origin, idle in list(self._idle.items()):
            left = [connection for connection in idle if connection.usable and connection.idle_since >= oldest]
            for connection in set(idle).difference(left):
                self._forget(connection)
            if left:
                self._idle[origin] = left
            else:
                del self._idle[origin]
        self._sweeper = loop.call_later(self._keepalive_s, self._sweep, loop) if self._idle else None

    def _forget(self, connection: Connection) -> None:
        connection.close()
        self._open.discard(connection)

    def _make_room(self) -> None:
        """Close the connection that was idle longest when as many are open as may be."""
        if len(self._open) + self._connecting < self._max:
            return
        origin, idle = min(self._idle.items(), key=lambda item: item[1][0].idle_since)
        self._forget(idle.pop(0))
        if not idle:
            del self._idle[origin]

    async def _connect(self, origin: Origin) -> Connection:
        """A new connection to the first address that may be reached and answers."""
        secure, host, port = origin
        try:
            addresses = await self._resolve(host, port)
        except (socket.gaierror, UnicodeError) as error:
            raise Broken(f"the name {host} can not be resolved: {error}") from None
        failure = refused = ""
        for number, address in enumerate(addresses, 1):
            if why := refusal(address, self._policy):
                refused = f"{host} is {address}, a {why}"
                continue
            self._make_room()
            self._connecting += 1
            try:
                async with asyncio.timeout(CONNECT_S if number < len(addresses) else None):
                    _, connection = await asyncio.get_running_loop().create_connection(
                        Connection,
                        address,
                        port,
                        ssl=self._tls if secure else None,
                        server_hostname=host if secure else None,
                    )
            except ssl.SSLError as error:
                raise Broken(f"no trusted TLS connection: {error}") from None
            except OSError as error:
                failure = (os.strerror(error.errno) if error.errno else str(error)) or type(error).__name__
                continue
            finally:
                self._connecting -= 1
            self._open.add(connection)
            return connection
        if failure:
            raise Broken(f"can not connect: {failure}")
        if refused:
            raise ActionError(
                f"refused to connect: {refused}; actions never reach it", retryable=False, reason="refused_address"
            )
        raise Broken(f"the name {host} has no address")


def open_pool(
    policy: AddressPolicy | None = None,
    *,
    resolve: Resolve = resolve_host,
    max_connections: int = 100,
    keepalive_s: float = 15.0,
) -> Pool:
    """A pool for `Ports.http`.

    Certificates are verified against certifi's roots, or `SSL_CERT_FILE` / `SSL_CERT_DIR` where these are set.
    """
    tls = httpx.create_ssl_context()
    tls.set_alpn_protocols(["http/1.1"])
    return Pool(policy or AddressPolicy(), resolve, tls, max_connections=max_connections, keepalive_s=keepalive_s)
