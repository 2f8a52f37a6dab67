"""The messages of `RULES`, and the markers in `EVENTS`. `engine.rule_sets` encodes and decodes them."""

from __future__ import annotations

from pydantic import RootModel

from whenthen.engine.process.asyncapi.event_messages import MessageModel
from whenthen.engine.rule_sets import RevisionHow

__all__ = ["RevisionMessage", "RuleMarker", "RuleText", "SeenRules", "StoredText"]


class RuleMarker(MessageModel):
    """From here on shards evaluate with a revision of the rules."""

    revision: int
    digest: str
    """Of its files."""


class StoredText(MessageModel):
    """How a text is found."""

    digest: str
    """SHA-256 of the text, the first 32 hexadecimal digits."""
    size: int
    """Bytes before compression."""
    parts: int


class RevisionMessage(MessageModel):
    """A set of rules, and who published it."""

    format: int
    digest: str
    """Of all files with their names."""
    own: str = ""
    """Of the files without those that scripts have registered; absent where there are none of these."""
    listing: StoredText
    """The list of the files."""
    counts: dict[str, int]
    """Automations, webhooks, deployments and notifiers."""
    at: str
    who: str
    host: str
    pid: int
    how: RevisionHow
    path: str
    """Where the files were, on `host`."""
    base: str
    """What entry points are relative to."""
    rolled_back_to: int
    """Of a rollback: the earlier revision; else 0."""
    id: str


class RuleText(RootModel[bytes]):
    """A part of a text compressed by zlib: a rules file, or the list of a revision's files, which is JSON: for each file its name in
    hexadecimal digits, digest, size and parts of its text, and whether it was away and stood as before."""


class SeenRules(RootModel[str]):
    """The last revision that had these rules."""
