"""Which refused requests get a line in the log? One of each kind in some seconds, with the number of those that were kept back.

Called by `ingest` and `app` for what is refused, and by `connections` for what never becomes a request. A sender that repeats itself, or
thousands of them, fill no disk; the counters (`whenthen_events_refused_total`) count every one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Sequence

from whenthen.engine.http.answers import Scope
from whenthen.engine.http.bodies import trace_of
from whenthen.engine.http.rate_limits import Network, source_of
from whenthen.engine.log_lines import Redact, one_line
from whenthen.schemas.errors import BusUnavailable, SecretUnreadable, WhenthenError

__all__ = ["LOG_EVERY_S", "KeptBack", "RefusalLog"]

log = logging.getLogger(__name__)

LOG_EVERY_S = 10.0  #: for each kind of refusal
#: takes what a request was sent to, the reason, the text, and the sender
Note = Callable[[str, str, str, str], None]
MOST_KINDS = 10_000  #: remembered at one time; beyond, those of longest ago are forgotten


class KeptBack:
    """Lets one line of each kind through in `LOG_EVERY_S`, and counts the others."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[
            Hashable, tuple[float, int]
        ] = {}  #: when a line was let through, and how many were kept back since

    def admit(self, kind: Hashable) -> str | None:
        """What the line ends with, how many of its kind were kept back before it; None when it is kept back itself."""
        now = self._clock()
        last, kept_back = self._seen.get(kind, (-LOG_EVERY_S, 0))
        if now - last < LOG_EVERY_S:
            self._seen[kind] = (last, kept_back + 1)
            return None
        self._seen.pop(kind, None)
        while len(self._seen) >= MOST_KINDS:
            del self._seen[next(iter(self._seen))]
        self._seen[kind] = (now, 0)
        return f" ({kept_back} more of this kind since the last such line)" if kept_back else ""


class RefusalLog:
    """Says of refused requests what they were sent to, where they came from, and why they are refused.

    `note` puts each on record: what it was sent to, the reason, the text, and the sender. `redact` takes secrets out of what is logged. `proxies` are those whose X-Forwarded-For is believed.
    """

    def __init__(
        self,
        *,
        redact: Redact = lambda text: text,
        proxies: Sequence[Network] = (),
        clock: Callable[[], float] = time.monotonic,
        note: Note | None = None,
    ) -> None:
        self._redact = redact
        self._note = note
        self._proxies = proxies
        self._kept_back = KeptBack(clock)

    def sender(self, scope: Scope) -> str:
        """The address that a request comes from."""
        return source_of(scope, self._proxies)

    def refused(self, source: str, error: WhenthenError, status: int, scope: Scope) -> None:
        """Log a refusal. `source` is `api`, `webhook:<name>`, or `webhook` for a name that is not there: a bounded set."""
        blind = isinstance(error, SecretUnreadable)
        if self._note is not None and not isinstance(error, BusUnavailable):  # which is no sender's doing
            what = one_line(f"{source} {scope['path']}", self._redact)
            self._note(what, error.reason, one_line(str(error), self._redact), self.sender(scope))
        more = self._kept_back.admit((source, error.reason, blind))
        if more is None:
            return
        kind, _, name = source.partition(":")
        if blind:
            # the sender is told no more than that; whoever runs the server has to mend it
            why = f"no secret of it can be read: {error.__cause__ or 'it is empty'}"
        else:
            why = str(error)
        log.warning(
            "%s: a request from %s is refused (%d %s): %s%s",
            f"{kind} {name}" if name else kind,
            self.sender(scope),
            status,
            error.reason,
            one_line(why, self._redact),
            more,
            extra={
                "webhook": name or None,
                "reason": error.reason,
                "status": status,
                "trace": trace["id"] if (trace := trace_of(scope)) is not None else None,
            },
        )
