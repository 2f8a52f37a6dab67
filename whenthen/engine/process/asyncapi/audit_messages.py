"""The messages of `AUDIT`. `engine.audit` makes them."""

from __future__ import annotations

from whenthen.engine.process.asyncapi.event_messages import MessageModel

__all__ = ["AuditMessage"]


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
