"""The AsyncAPI document, generated when it is first asked for."""

from __future__ import annotations

import asyncio

from whenthen import __version__

__all__ = ["AsyncApiQuery", "asyncapi_document"]


def asyncapi_document(version: str) -> bytes:
    """See `engine.process.asyncapi`, whose models of all messages are there for the document alone: a start does not wait for them."""
    from whenthen.engine.process.asyncapi.asyncapi_document import asyncapi_document as made

    return made(version)


class AsyncApiQuery:
    def __init__(self) -> None:
        self._document: bytes | None = None

    async def asyncapi(self) -> bytes:
        """The document as JSON. It is made in a thread, as that takes a tenth of a second."""
        if self._document is None:
            self._document = await asyncio.to_thread(asyncapi_document, __version__)
        return self._document
