"""What is read beside requests? Folders, addresses and brokers are connected to, and what they hold becomes acknowledged events.

Each source has an edge (`edges/`), which reads and acknowledges upstream once JetStream has acknowledged, and is read by one process, by
lease, where the broker does not share the work itself. The translation is pure and in `whenthen.sources.readings`.
"""

from __future__ import annotations

from whenthen.engine.sources.edges.postgres_edge import outbox_sql
from whenthen.engine.sources.message_intake import SourceWatch
from whenthen.engine.sources.source_runner import SourceRunner

__all__ = ["SourceRunner", "SourceWatch", "outbox_sql"]
