"""Who asks, and what may they do? Named tokens with scopes, sessions of browsers, and one-time addresses, kept in NATS for all processes."""

from __future__ import annotations

from whenthen.engine.access.access_control import ADDRESS_LASTS, AccessControl, AccessNote, NotAdmitted
from whenthen.engine.access.access_records import (
    MOST_TOKENS,
    SERVER_TOKEN,
    AccessScope,
    TokenRecord,
)
from whenthen.engine.access.access_store import AccessStore, nats_access_store
from whenthen.engine.access.grants import Grant, NewSession
from whenthen.engine.access.memory_bucket import MemoryBucket

__all__ = [
    "ADDRESS_LASTS",
    "MOST_TOKENS",
    "SERVER_TOKEN",
    "AccessControl",
    "AccessNote",
    "AccessScope",
    "AccessStore",
    "Grant",
    "MemoryBucket",
    "NewSession",
    "NotAdmitted",
    "TokenRecord",
    "nats_access_store",
]
