"""What does a key of a key-value bucket hold, and may it be replaced? Reading from the leader, and compare-and-set."""

from __future__ import annotations

from whenthen.engine.bus.buckets.kv_bucket import (
    KvBucket,
    Revision,
    WrongRevision,
    publish_expecting,
    publish_with,
    purge_subject,
)

__all__ = ["KvBucket", "Revision", "WrongRevision", "publish_expecting", "publish_with", "purge_subject"]
