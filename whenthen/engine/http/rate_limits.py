"""How often may one source call a webhook? Called by `ingest` before anything of a request is read but its head.

The generic cell rate algorithm: for each source one number, the time at which it would have used up what it was given; so a
burst up to the whole number is taken, and then one request in each part of the window.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Callable, Sequence
from functools import lru_cache

from whenthen.engine.http.answers import HttpError, Scope
from whenthen.schemas.webhooks import RateLimit

__all__ = ["RateLimits", "source_of"]

MOST_SOURCES = 20_000  #: remembered at one time; beyond, those of longest ago are forgotten

_MOST_CHARS = 45  #: of an address
_UNKNOWN = "an unknown address"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Key = tuple[str, RateLimit, str]  #: what is limited, by what, and for whom


class RateLimits:
    """Counts the requests of sources. `trusted_proxies` are those whose X-Forwarded-For is believed."""

    def __init__(self, trusted_proxies: Sequence[Network] = (), *, clock: Callable[[], float] = time.monotonic) -> None:
        self._proxies = trusted_proxies
        self._clock = clock
        self._used: dict[_Key, float] = {}

    @property
    def behind_proxies(self) -> bool:
        """Whether there are proxies that are trusted."""
        return bool(self._proxies)

    def from_proxy(self, scope: Scope) -> bool:
        """Whether a request was sent by a trusted proxy itself."""
        client = scope.get("client")
        address = _address(client[0]) if client else None
        return address is not None and _trusted(address, self._proxies)

    def check(self, webhook: str, limit: RateLimit, scope: Scope) -> None:
        """Count a request.

        Raises:
            HttpError: 429, its source has used up what the webhook gives it; the request does not count.
        """
        key, now = (webhook, limit, self.source(scope)), self._clock()
        self._check_room(key, now)
        self._count(key, now)

    def check_room(self, name: str, limit: RateLimit, scope: Scope) -> None:
        """Raises HttpError (429): a request more would be too many. It is not counted."""
        self._check_room((name, limit, self.source(scope)), self._clock())

    def count(self, name: str, limit: RateLimit, scope: Scope) -> None:
        """Count a request, whether there was room for it or not; what is used up never is more than all."""
        self._count((name, limit, self.source(scope)), self._clock())

    def source(self, scope: Scope) -> str:
        """See `source_of`."""
        return source_of(scope, self._proxies)

    def _check_room(self, key: _Key, now: float) -> None:
        _, limit, _ = key
        window = limit.within.total_seconds()
        used = max(self._used.get(key, now), now) + window / limit.count
        # a hair above, as sums of fractions are not exact
        if used - now <= window * (1 + 1e-9):
            return
        wait_s = max(1, math.ceil(used - now - window))
        raise HttpError(
            429,
            "rate_limited",
            f"more than {limit} from this address; send again in {wait_s} seconds",
            (b"retry-after", b"%d" % wait_s),
        )

    def _count(self, key: _Key, now: float) -> None:
        _, limit, _ = key
        window = limit.within.total_seconds()
        used = max(self._used.pop(key, now), now) + window / limit.count
        if len(self._used) >= MOST_SOURCES:
            self._used = {kept: value for kept, value in self._used.items() if value > now}
            while len(self._used) >= MOST_SOURCES:
                del self._used[next(iter(self._used))]
        self._used[key] = min(used, now + window)


def source_of(scope: Scope, proxies: Sequence[Network]) -> str:
    """The address that a request comes from; of IPv6 the network of 64 bits, which one sender has for itself.

    Proxies append to X-Forwarded-For the address that they were called from, so it is read from its end, as far as what
    appended it is a trusted proxy.
    """
    client = scope.get("client")
    if not proxies:
        return _plain_source(client[0]) if client else _UNKNOWN
    address = _address(client[0]) if client else None
    if address is None:
        return _UNKNOWN
    if _trusted(address, proxies):
        values = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        for text in reversed(b",".join(values).decode("latin-1").split(",")):
            before = _address(text.strip())
            if before is None:
                break
            address = before
            if not _trusted(address, proxies):
                break
    return _named(address)


@lru_cache(maxsize=4096)  # as that of `_parsed`
def _plain_source(host: str) -> str:
    """Of a request that came from there itself."""
    address = _address(host)
    return _UNKNOWN if address is None else _named(address)


def _named(address: _Address) -> str:
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _address(text: str) -> _Address | None:
    text = text.strip("[]").partition("%")[0]
    return _parsed(text) if len(text) <= _MOST_CHARS else None


@lru_cache(maxsize=4096)  # nearly all requests come from few addresses, and parsing one takes longer than all else here
def _parsed(text: str) -> _Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, ipaddress.IPv6Address) else found


def _trusted(address: _Address, proxies: Sequence[Network]) -> bool:
    return any(address in network for network in proxies)
