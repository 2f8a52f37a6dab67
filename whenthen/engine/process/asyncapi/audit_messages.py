"""The messages of `AUDIT` and `SENDERS`. `engine.audit` and `engine.process.senders` make them."""

from __future__ import annotations

from whenthen.engine.process.asyncapi.event_messages import MessageModel

__all__ = ["AuditMessage", "HeardMessage", "RefusedRequestMessage"]


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


class HeardMessage(MessageModel):
    """That a webhook took a request."""

    webhook: str
    at: str
