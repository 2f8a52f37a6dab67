"""When a failed attempt is repeated. Pure: the caller draws the random number and holds the clock.

Called by the execution loop of `engine` after an `ActionError` with `retryable`. Meaning: docs/actions.md, "Retries".
"""

from __future__ import annotations

from datetime import timedelta

from whenthen.schemas.actions import Retry

__all__ = ["MAX_HINT", "next_delay"]

#: how long a Retry-After may hold back the next attempt
MAX_HINT = timedelta(hours=1)


def next_delay(retry: Retry, attempt: int, *, random: float, retry_after: timedelta | None = None) -> timedelta | None:
    """How long to wait after attempt number `attempt` (from 1) failed; None when it was the last one.

    The delay doubles with each attempt up to `max_delay` and then varies by the share `jitter`: `random` in [0, 1) is
    mapped to [-jitter, +jitter). What the other side asked for (`retry_after`) is a lower bound, up to `MAX_HINT`.
    """
    if attempt >= retry.most_attempts:
        return None
    doubled = retry.delay.total_seconds() * 2.0 ** (attempt - 1)
    seconds = min(doubled, retry.max_delay.total_seconds()) * (1 + retry.jitter * (2 * random - 1))
    delay = timedelta(seconds=seconds)
    return delay if retry_after is None else max(delay, min(retry_after, MAX_HINT))
