"""Does a request come from a page of somebody else? Host, Origin and Sec-Fetch-Site, compared with what this server is called.

Called by `app` for everything but `/hooks`. A browser sends requests of any page to a server on loopback; the token keeps them
out of `/api`, and this keeps them out where there is no token, and keeps a name that an attacker points at this machine (DNS
rebinding) from reading answers. Clients that are not browsers send only Host.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from whenthen.engine.http.answers import HttpError, Scope

__all__ = ["RequestOrigin"]

_AUTHORITY = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[^\s:/?#@\[\]\\]{1,253})(?::([0-9]{1,5}))?", re.ASCII)
_PORTS = {"http": 80, "https": 443}
_SAME_SITES = ("same-origin", "none")  #: of Sec-Fetch-Site; `none` is an address that a person typed
_REMEMBERED = 64  #: spellings of Host that were found right, so that they are parsed once


class RequestOrigin:
    """What the server is called.

    Args:
        host: the address it is bound to.
        port: the port it is bound to.
        secure: whether it speaks HTTPS itself.
        public_urls: further addresses that it is reached at, such as a proxy's.
    """

    def __init__(self, *, host: str, port: int, secure: bool = False, public_urls: Sequence[str] = ()) -> None:
        self._scheme = "https" if secure else "http"
        self._port = port
        self._names = {"localhost", _plain(host)}
        if _plain(host) in ("0.0.0.0", "::"):
            self._names.add(_plain(socket.gethostname()))
        self._urls: set[tuple[str, str, int]] = set()
        for url in public_urls:
            split = urlsplit(url)
            self._urls.add((split.scheme, _plain(split.hostname or ""), split.port or _PORTS[split.scheme]))
        shown = f"[{host.strip('[]')}]" if ":" in host else host
        self._called = next(iter(public_urls), f"{self._scheme}://{shown}:{port}")
        self._known: set[tuple[bytes, object]] = set()

    def check(self, scope: Scope, *, navigable: bool = False) -> None:
        """Return if the request is addressed to this server, and not sent by a page of another one. A `navigable` page may be where a
        link of another site leads: it changes nothing for who has but a cookie, which browsers do not send along (`SameSite=Strict`).

        Raises:
            HttpError: 403.
        """
        for name, value in scope["headers"]:
            if name == b"host":
                server = scope.get("server")
                if (value, server) not in self._known:
                    self._check_host(value, server)
            elif name == b"origin":
                self._check_origin(value, scope.get("server"))
            elif name == b"sec-fetch-site" and value.strip().lower() not in (b"same-origin", b"none"):
                if navigable and _follows_a_link(scope):
                    continue
                raise HttpError(
                    403,
                    "foreign_origin",
                    f"Sec-Fetch-Site is {_quoted(value)}: a page of another site sent this; "
                    f"only {' and '.join(_SAME_SITES)} are taken here",
                )

    def is_secure(self, scope: Scope) -> bool:
        """Whether the browser came over HTTPS: to this server itself, or to the proxy that `public_urls` has."""
        if self._scheme == "https":
            return True
        hosts = [_authority(value, _PORTS["https"]) for name, value in scope["headers"] if name == b"host"]
        return bool(hosts) and all(found is not None and ("https", *found) in self._urls for found in hosts)

    def _check_host(self, value: bytes, server: object) -> None:
        found = _authority(value, 0)
        if found is None or not (
            self._is_ours(found[0], found[1] or _PORTS[self._scheme], server)
            # a proxy passes the name on as it came, without the port that its scheme stands for
            or any(host == found[0] and port == (found[1] or _PORTS[scheme]) for scheme, host, port in self._urls)
        ):
            raise HttpError(
                403,
                "foreign_host",
                f"Host {_quoted(value)} is not an address of this server; ask for {self._called}, "
                "or name the address that it is reached at in public_url (WHENTHEN_PUBLIC_URL)",
            )
        if len(self._known) < _REMEMBERED:
            self._known.add((value, server))

    def _check_origin(self, value: bytes, server: object) -> None:
        scheme, _, rest = value.strip().lower().partition(b"://")
        default = _PORTS.get(scheme.decode("latin-1"))
        found = None if default is None else _authority(rest, default)
        if found is not None:
            kind = scheme.decode("latin-1")
            if (kind == self._scheme and self._is_ours(*found, server)) or (kind, *found) in self._urls:
                return
        raise HttpError(
            403,
            "foreign_origin",
            f"Origin {_quoted(value)} is not this server: a page of another site sent this; if it is one of yours, "
            "name it in public_url (WHENTHEN_PUBLIC_URL)",
        )

    def _is_ours(self, host: str, port: int, server: object) -> bool:
        if port != self._port:
            return False
        if host in self._names:
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        # what the connection itself is addressed to can not be a name that somebody points here
        return address.is_loopback or (isinstance(server, tuple) and host == _plain(str(server[0])))


def _follows_a_link(scope: Scope) -> bool:
    """Whether a browser goes to a page in a window of its own, rather than loading it into something else."""
    fetch = {name: value.strip().lower() for name, value in scope["headers"] if name.startswith(b"sec-fetch-")}
    return (
        scope["method"] == "GET"
        and fetch.get(b"sec-fetch-mode") == b"navigate"
        and fetch.get(b"sec-fetch-dest") == b"document"
    )


def _authority(value: bytes, default_port: int) -> tuple[str, int] | None:
    found = _AUTHORITY.fullmatch(value.decode("latin-1").strip().lower())
    if found is None:
        return None
    port = int(found[2] or default_port)
    return (_plain(found[1]), port) if port <= 65535 else None


def _plain(host: str) -> str:
    """A host in one spelling: lower case, no brackets, no dot at its end, addresses in their short form."""
    host = host.strip("[]").lower()
    host = host[:-1] if host.endswith(".") else host
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host


def _quoted(value: bytes) -> str:
    return repr(value[:100].decode("latin-1"))
