"""How does what is in the streams come into the history? One reader for each stream, which writes rows and cursor together.

Importing it loads the room `history`: only who has the role does. Meaning: docs/history.md.
"""

from __future__ import annotations

from whenthen.engine.projection.decision_projector import DecisionProjector
from whenthen.engine.projection.history_lag import HistoryLag
from whenthen.engine.projection.history_service import HistoryService
from whenthen.engine.projection.history_writer import HistoryWriter
from whenthen.engine.projection.stream_projector import PROJECTED, StreamProjector

__all__ = ["PROJECTED", "DecisionProjector", "HistoryLag", "HistoryService", "HistoryWriter", "StreamProjector"]
