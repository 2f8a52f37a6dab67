"""What is remembered of a source from one process to the next: what of a folder or an address was reported already.

Kept in the bucket `WT_sources`, in parts, so that a folder of many files writes only what changed.
"""

from __future__ import annotations

from typing import Any

import orjson

from whenthen.engine.bus.buckets import KvBucket
from whenthen.schemas.errors import InvalidInput

__all__ = ["SourceState"]


class SourceState:
    """The records of one source below `key`."""

    def __init__(self, bucket: KvBucket, key: str) -> None:
        self._bucket = bucket
        self._key = f"state.{key}"

    async def load(self, part: str) -> Any:
        """A part; None when there is none.

        Raises:
            BusUnavailable: no answer.
            InvalidInput: it is no JSON.
        """
        found = await self._bucket.get(f"{self._key}.{part}")
        if found is None:
            return None
        try:
            return orjson.loads(found.value)
        except ValueError as error:
            raise InvalidInput(f"what is remembered of the source can not be read: {error}") from error

    async def save(self, part: str, value: Any) -> None:
        """Store a part.

        Raises:
            BusUnavailable: it is not stored, or not known to be.
            InvalidInput: it is too large.
        """
        await self._bucket.put(f"{self._key}.{part}", orjson.dumps(value))
