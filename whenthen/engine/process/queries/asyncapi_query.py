"""The AsyncAPI document, generated when it is first asked for."""

from __future__ import annotations

import asyncio

from whenthen import __version__
from whenthen.engine.process.asyncapi.asyncapi_document import asyncapi_document

__all__ = ["AsyncApiQuery"]


class AsyncApiQuery:
    def __init__(self) -> None:
        self._document: bytes | None = None

    async def asyncapi(self) -> bytes:
        """The document as JSON. It is made in a thread, as that takes a tenth of a second."""
        if self._document is None:
            self._document = await asyncio.to_thread(asyncapi_document, __version__)
        return self._document
