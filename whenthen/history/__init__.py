"""What happened in the last weeks? The projection of the streams into SQL, and answers from it. It knows nothing of NATS.

Everything here blocks and is called from threads. Importing it loads SQLAlchemy: only who has the role `history` does.
Meaning: docs/history.md.
"""

from __future__ import annotations

from whenthen.history.database import Database, HistoryUnavailable
from whenthen.history.history_queries import HistoryPage, HistoryQuery, HistoryReader
from whenthen.history.history_retention import HistoryStats, Keep, Retention, read_stats
from whenthen.history.projection import Cursor, CursorMoved, Projection, read_cursors
from whenthen.history.row_counts import RowCounts
from whenthen.schemas.history_rows import Message, Rows, message_rows

__all__ = [
    "Cursor",
    "CursorMoved",
    "Database",
    "HistoryPage",
    "HistoryQuery",
    "HistoryReader",
    "HistoryStats",
    "HistoryUnavailable",
    "Keep",
    "Message",
    "Projection",
    "Retention",
    "RowCounts",
    "Rows",
    "message_rows",
    "read_cursors",
    "read_stats",
]
