"""The face of the HTTP client of actions: what a request is given, what comes back, how it can fail.

`call_webhook` speaks to this protocol, `http_client` implements it. The implementation is imported when a client is opened,
so that checking rules does not load an HTTP library. Meaning: docs/actions.md, "call-webhook".
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

import httpx

from whenthen.actions.http.address_policy import AddressPolicy, Resolve, resolve_host
from whenthen.schemas.actions import Tls

__all__ = [
    "DIRECT",
    "MAX_BODY_BYTES",
    "Answer",
    "ConnectionDefaults",
    "HttpClient",
    "Proxy",
    "RequestFailed",
    "TlsMaterial",
    "open_http_client",
]

#: of an answer's body; the rest is not read, and the connection is closed
MAX_BODY_BYTES = 64 * 1024
#: a proxy's name for "no proxy, whatever the settings say"
DIRECT = "none"


class RequestFailed(Exception):
    """There is no answer. `reason` and `retryable` are those of the action's error."""

    def __init__(self, message: str, *, reason: str = "connection", retryable: bool = True) -> None:
        super().__init__(message)
        self.reason = reason
        self.retryable = retryable


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]  #: names are found in any case; of several of one name the first
    body: bytes  #: the first `MAX_BODY_BYTES`


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionDefaults:
    """What counts for actions that do not say otherwise. References, not values."""

    proxy: str | None = None  #: `http://host:port` or a reference
    tls: Tls | None = None


@dataclass(frozen=True, slots=True)
class Proxy:
    url: str  #: `http://user:password@host:port`, the credentials percent-encoded or missing
    from_settings: bool  #: then it may be at a private address even where these are refused


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsMaterial:
    """The values of a `Tls`, as PEM."""

    ca: str | None
    certificate: str | None = field(repr=False)  #: may have the key in it
    key: str | None = field(repr=False)


class HttpClient(Protocol):
    """Sends requests; shared by all actions."""

    @property
    def defaults(self) -> ConnectionDefaults: ...

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
        """Send one request and give its answer, whatever its status.

        Nothing is waited for with a limit of its own: whoever calls gives the request as a whole a time.

        Raises:
            RequestFailed: the address must not be reached, there is no connection, or no complete answer.
        """

    async def check_host(self, host: str) -> None:
        """Return when everything that `host`, a name or an address, leads to now may be reached, or when it leads nowhere.

        For what is sent by another library, which resolves the name once more by itself.

        Raises:
            RequestFailed: an address must not be reached.
        """


def open_http_client(
    policy: AddressPolicy | None = None,
    *,
    defaults: ConnectionDefaults | None = None,
    resolve: Resolve = resolve_host,
    max_connections: int = 100,
    keepalive_s: float = 15.0,
) -> AbstractAsyncContextManager[HttpClient]:
    """A client for `Ports.http`.

    Certificates are verified against certifi's roots, or `SSL_CERT_FILE` / `SSL_CERT_DIR` where these are set, unless a
    request names authorities of its own. No other setting is taken from the environment.
    """
    from whenthen.actions.http.http_client import AiohttpClient

    return AiohttpClient(
        policy or AddressPolicy(),
        defaults or ConnectionDefaults(),
        resolve,
        max_connections=max_connections,
        keepalive_s=keepalive_s,
    )
