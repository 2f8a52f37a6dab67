"""What is remembered of sources that left the rules goes, a day after it was seen that nobody wants it any more.

Not at once: rules are changed back, and processes have different rules for a moment. Each process looks; what one wants no other takes away.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import datetime, timedelta

from whenthen.engine.bus.buckets import KvBucket, purge_subject
from whenthen.engine.bus.request_client import stream_info

__all__ = ["LOOK_EVERY_S", "forget_states"]

log = logging.getLogger(__name__)

KEPT_FOR = timedelta(days=1)
LOOK_EVERY_S = 3600.0
_KINDS = ("state", "lease")


async def forget_states(bucket: KvBucket, wanted: Collection[str], *, kept_for: timedelta = KEPT_FOR) -> list[str]:
    """Forget what does not begin with one of `wanted`, such as `state.<key>`, and was so `kept_for` ago. Gives what is gone.

    Raises:
        BusUnavailable: no answer.
    """
    prefix = bucket.prefix
    info = await stream_info(bucket.client, bucket.stream, {"subjects_filter": f"{prefix}>"})
    found: set[str] = set()
    marked: set[str] = set()
    for subject in info["state"].get("subjects") or ():
        kind, _, rest = subject.removeprefix(prefix).partition(".")
        if kind in _KINDS:
            found.add(f"{kind}.{rest.partition('.')[0]}")
        elif kind == "gone":
            marked.add(rest)
    now = datetime.fromisoformat(info["ts"])
    gone: list[str] = []
    for name in marked:
        if name in wanted or name not in found:
            await _purge(bucket, f"gone.{name}")
    for name in found - set(wanted):
        mark = await bucket.get(f"gone.{name}") if name in marked else None
        if mark is None:
            await bucket.put(f"gone.{name}", b"{}")
        if mark is None or now - mark.time < kept_for:
            continue
        for pattern in (name, f"{name}.>", f"gone.{name}"):
            await _purge(bucket, pattern)
        gone.append(name)
    if gone:
        log.info("what was remembered of %d sources that are not in the rules any more is gone", len(gone))
    return gone


async def _purge(bucket: KvBucket, pattern: str) -> None:
    """Take messages out of the stream, without markers of their deletion."""
    await purge_subject(bucket.client, bucket.stream, bucket.prefix + pattern)
