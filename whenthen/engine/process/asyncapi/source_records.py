"""What is remembered of sources, as it is stored."""

from __future__ import annotations

from typing import Any

from pydantic import RootModel

from whenthen.engine.process.asyncapi.event_messages import MessageModel

__all__ = [
    "ReaderReportMessage",
    "SourceCountsRecord",
    "SourceGoneMessage",
    "SourceStateMessage",
    "WebhookCountsRecord",
    "WebhookReportMessage",
]


class SourceStateMessage(RootModel[dict[str, Any] | list[Any]]):
    """For a folder `{"generation": n}` and lists of `[path, size, modified, inode]`; for an address the ids that it had."""


class SourceGoneMessage(MessageModel):
    """Nothing: the time of the message is what counts."""


class SourceCountsRecord(MessageModel):
    """How one source does in one process."""

    state: str
    """`starting`, `reading`, `elsewhere` or `trouble`."""
    detail: str
    since: str
    heard: str | None
    messages: int
    events: int
    duplicates: int
    refused: dict[str, int]


class ReaderReportMessage(MessageModel):
    """How sources do in one process of the role `source`; what is older than 20 s is of one that died."""

    member: str
    host: str
    process: int
    sources: dict[str, SourceCountsRecord]


class WebhookCountsRecord(MessageModel):
    """What came to one webhook at one process, since that was started."""

    taken: int
    refused: dict[str, int]
    """By reason."""
    heard: str | None


class WebhookReportMessage(MessageModel):
    """What came to the webhooks at one process of the role `api`; what is older than 20 s is of one that died."""

    member: str
    webhooks: dict[str, WebhookCountsRecord]
