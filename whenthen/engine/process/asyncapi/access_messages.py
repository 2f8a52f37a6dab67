"""The messages of `WT_tokens` and `WT_sessions`. `engine.access` makes them."""

from __future__ import annotations

from whenthen.engine.process.asyncapi.event_messages import MessageModel

__all__ = ["SessionsMessage", "TokensMessage"]


class KeptToken(MessageModel):
    """A named token."""

    id: str
    """Stands in the value, too."""
    name: str
    scopes: list[str]
    digest: str
    """The SHA-256 of the secret in the value, in hexadecimal digits."""
    created: str
    created_by: str
    expires: str | None


class TokensMessage(MessageModel):
    """All named tokens."""

    format: int
    tokens: list[KeptToken]


class KeptSecret(MessageModel):
    """A session, or a one-time address."""

    digest: str
    """The SHA-256 of its secret, in hexadecimal digits."""
    created: str
    expires: str
    where: str
    """The address of who logged in."""


class SessionsMessage(MessageModel):
    """What one token has begun."""

    format: int
    sessions: list[KeptSecret]
    addresses: list[KeptSecret]
