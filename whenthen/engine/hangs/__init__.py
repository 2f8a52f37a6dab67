"""What has hung a process, how often, and which events are passed over for it? Counts in a bucket, skips in the logs.

Two processes that hang on the same work count together. Used by the loops of `evaluation` and `execution`. Meaning:
docs/reliability.md, "A process that hangs".
"""

from __future__ import annotations

from whenthen.engine.hangs.hang_counts import (
    HangCounts,
    Hangs,
)
from whenthen.engine.hangs.shard_skips import (
    MOST_TRIES,
    SKIPS,
    NatsSkipLog,
    ShardSkips,
    SkipLog,
)
from whenthen.engine.hangs.skipped_events import (
    EVENT_SET_ASIDE,
    Skip,
    event_set_aside,
    skip_subject,
)

__all__ = [
    "EVENT_SET_ASIDE",
    "MOST_TRIES",
    "SKIPS",
    "HangCounts",
    "Hangs",
    "NatsSkipLog",
    "ShardSkips",
    "Skip",
    "SkipLog",
    "event_set_aside",
    "skip_subject",
]
