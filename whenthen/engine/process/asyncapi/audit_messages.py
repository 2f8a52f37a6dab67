"""The messages of `AUDIT` and `SENDERS`. `engine.audit` and `engine.process.senders` make them."""

from __future__ import annotations

from typing import Any

from whenthen.engine.process.asyncapi.event_messages import MessageModel

__all__ = ["AsideMessageMessage", "AuditMessage", "HeardMessage", "RefusedRequestMessage"]


class AuditMessage(MessageModel):
    """Something that somebody did, or was refused."""

    id: str
    at: str
    kind: str
    who: str
    """The address that a request came from, the name that was given with it, or the process."""
    what: str
    detail: str
    cause: str
    """Why it was refused, as metrics name it."""
    count: int
    """How many notes it stands for; more than one when there were too many to keep each."""


class RefusedRequestMessage(MessageModel):
    """A request that is genuine and did not fit its webhook, without what proved it."""

    id: str
    webhook: str
    at: str
    reason: str
    field: str
    detail: str
    method: str
    headers: dict[str, str]
    query: dict[str, str]
    signed: str | None
    """What was signed beside the body, of which ids of events are made."""
    body: str | None
    """In base64; null when it was too large to be kept."""


class AsideMessageMessage(MessageModel):
    """A message of a source that became no event."""

    id: str
    source: str
    at: str
    reason: str
    field: str
    detail: str
    headers: dict[str, str]
    delivery: str | None
    """What names it at its broker, of which ids of events are made."""
    about: dict[str, Any]
    """Where it is from."""
    asked: bool
    """Whether it is asked for again by itself, as an answer of an address is."""
    body: str | None
    """In base64; null when it was too large to be kept."""


class HeardMessage(MessageModel):
    """That a webhook took a request, or a source a message."""

    webhook: str
    """Its name; of a source `source:<name>`."""
    at: str
