"""How is something stored in NATS and read back? The connection, its protocol, streams, subjects, batches, records, and the embedded server.

Its modules, but `transport`, are what other rooms import from: one for each thing that a bus has.
"""

from __future__ import annotations

__all__ = [
    "batches",
    "buckets",
    "connection",
    "datadir",
    "disk",
    "embedded",
    "protocol",
    "pull_consumer",
    "records",
    "request_client",
    "stream_pages",
    "stream_reader",
    "streams",
    "subjects",
    "watched",
]
