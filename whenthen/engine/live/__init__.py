"""What is happening now? The streams as server-sent events: one reader for all who watch, and ids with which anybody goes on anywhere.

Meaning: docs/live.md.
"""

from __future__ import annotations

from whenthen.engine.live.live_client import LiveClient
from whenthen.engine.live.live_feed import LiveFeed
from whenthen.engine.live.live_filter import KINDS, Wanted

__all__ = ["KINDS", "LiveClient", "LiveFeed", "Wanted"]
