"""How is a stream followed that may be made again, or go back, while it is read?"""

from __future__ import annotations

from whenthen.engine.bus.watched.watched_stream import StreamChanged, StreamState, WatchedStream

__all__ = ["StreamChanged", "StreamState", "WatchedStream"]
