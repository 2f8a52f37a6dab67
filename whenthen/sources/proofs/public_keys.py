"""Which public keys are at hand? Documents by their address, kept for an hour. Fetching them is the edge's.

At most `MOST` are kept, and at most `MOST_FETCHES` are asked for within a minute: addresses come in requests that prove nothing yet.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timedelta
from importlib.util import find_spec

from whenthen.schemas.errors import InvalidInput, KeysUnavailable

__all__ = ["PublicKeys", "require_libraries"]

MOST = 64
KEPT = timedelta(hours=1)
FAILED = timedelta(seconds=30)  #: until an address is tried again
ROTATED = timedelta(minutes=1)  #: before a set that lacks a key is fetched anew
MOST_FETCHES = 20  #: within `WITHIN`
WITHIN = timedelta(minutes=1)
MOST_BYTES = 64 * 1024  #: of one document


class PublicKeys:
    """Documents by their address; each process has its own."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[datetime, bytes | None]] = OrderedDict()
        self._fetches: list[datetime] = []

    def get(self, url: str, now: datetime) -> bytes:
        """What stands at an address.

        Raises:
            KeysUnavailable: it is not at hand.
        """
        found = self._kept.get(url)
        if found is None or found[1] is None or now - found[0] > 2 * KEPT:
            raise KeysUnavailable(f"the keys at {url[:200]} can not be read at the moment; send it again later")
        return found[1]

    def wants(self, url: str, now: datetime, *, lacks: Callable[[bytes], bool] = lambda _: False) -> bool:
        """Whether the address is to be fetched now. `lacks` says whether a document has not the key that is looked for."""
        found = self._kept.get(url)
        if found is not None:
            age = now - found[0]
            if found[1] is None:
                wanted = age > FAILED
            else:
                wanted = age > KEPT or (age > ROTATED and lacks(found[1]))
            if not wanted:
                return False
        self._fetches = [at for at in self._fetches if now - at < WITHIN]
        if len(self._fetches) >= MOST_FETCHES:
            return False
        self._fetches.append(now)
        return True

    def put(self, url: str, document: bytes | None, now: datetime) -> None:
        """Keep what was fetched; None when it could not be. What was there before stays usable for another while."""
        before = self._kept.pop(url, None)
        if document is None and before is not None and before[1] is not None and now - before[0] <= 2 * KEPT:
            self._kept[url] = before
            return
        self._kept[url] = (now, document)
        while len(self._kept) > MOST:
            self._kept.popitem(last=False)


def require_libraries(kind: str) -> None:
    """Return if the libraries for public keys are installed.

    Raises:
        InvalidInput: they are not; has the remedy.
    """
    if find_spec("jwt") is None or find_spec("cryptography") is None:
        raise InvalidInput(
            f"{kind} needs the extra `signatures`: pip install 'whenthen[signatures]'", path=("verify", "type")
        )
