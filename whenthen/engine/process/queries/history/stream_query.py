"""What happens from now on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from whenthen.engine.live import LiveClient, LiveFeed, Wanted

__all__ = ["StreamQuery"]


class StreamQuery:
    def __init__(self, feed: LiveFeed) -> None:
        self._feed = feed

    async def stream(
        self,
        kinds: Sequence[str],
        *,
        equal: Mapping[str, str],
        labels: Mapping[str, str],
        related: str,
        id_prefix: str,
        text: str,
        last_id: str | None,
    ) -> LiveClient:
        """A client that is shown what it asks for. Raises InvalidInput, BusUnavailable."""
        wanted = Wanted(kinds=kinds, equal=equal, labels=labels, related=related, id_prefix=id_prefix, text=text)
        return await self._feed.open(wanted, last_id)
