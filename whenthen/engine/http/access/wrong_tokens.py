"""How often may one address offer tokens that are wrong? Called by `admission` before a token is looked up.

An address that has used up its number is refused (429) before anything is looked up for it, in constant time; so guessing costs the server and NATS no
more than that. A token that was right from that address before is looked up even so: whoever has one is not locked out by a neighbour
behind the same proxy who has none. Other addresses are never concerned.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from datetime import timedelta
from hashlib import blake2b

from whenthen.engine.http.answers import Scope
from whenthen.engine.http.rate_limits import RateLimits
from whenthen.schemas.webhooks import RateLimit

__all__ = ["WRONG", "WrongTokens"]

WRONG = RateLimit(30, timedelta(minutes=1))  #: of one address
MOST_RIGHT = 20_000  #: tokens of addresses that are remembered; beyond, those that were used longest ago are forgotten
_NAME = "/tokens"  #: as no webhook is called


class WrongTokens:
    """Counts wrong tokens in `rates`, and knows which were right."""

    def __init__(self, rates: RateLimits) -> None:
        self._rates = rates
        self._key = secrets.token_bytes(16)  #: what is remembered says nothing of the tokens
        self._right: OrderedDict[bytes, None] = OrderedDict()

    def check(self, token: str, scope: Scope) -> bytes:
        """What stands for a token from an address. Raises HttpError (429): the address has offered too many wrong ones, and this one was
        never right from there."""
        text = f"{self._rates.source(scope)}\0{token}"
        mark = blake2b(text.encode(), key=self._key, digest_size=16).digest()
        if mark not in self._right:
            self._rates.check_room(_NAME, WRONG, scope)
        return mark

    def right(self, mark: bytes) -> None:
        """Note that what was checked was right."""
        self._right[mark] = None
        self._right.move_to_end(mark)
        if len(self._right) > MOST_RIGHT:
            self._right.popitem(last=False)

    def wrong(self, mark: bytes, scope: Scope) -> None:
        """Count what was checked and was wrong, or is no longer right."""
        self._right.pop(mark, None)
        self._rates.count(_NAME, WRONG, scope)
