"""What lies in `RULES` and in the markers of `EVENTS`, as bytes: the record of a revision, the list of its files, their texts. Pure.

A revision is a number with a set of rules. Its record is small: who published it, when and how, what it holds, and the digest of
the list of its files. The list names each file with the digest of its text. Texts, the list too, are compressed and cut into
parts, so that they fit into messages of any server; revisions that share a file share its text.

Written and read by `engine.rule_sets.revision_store`.
"""

from __future__ import annotations

import hashlib
import os
import socket
import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import orjson

from whenthen.machine_user import user_name
from whenthen.rules import SourceFile
from whenthen.schemas.errors import Conflict

__all__ = [
    "MarkerRecord",
    "Revision",
    "RevisionDamaged",
    "RevisionHow",
    "RevisionNotUnderstood",
    "RevisionUnusable",
    "Text",
    "decode_listing",
    "digest_of",
    "encode_listing",
    "joined",
    "text_of",
    "who_publishes",
]

FORMAT = 1
PART_BYTES = 256 << 10  #: of a compressed text in one message; a stock server takes 1 MB
MOST_BYTES = 256 << 20  #: of one text; what says to be larger is damaged
_WHO_CHARS = 200


class RevisionUnusable(Conflict):
    """A stored revision can not be put in force here."""

    reason = "revision_unusable"


class RevisionDamaged(RevisionUnusable):
    """A revision, or a text of it, is missing, cut off or other than its digest says. No process can use it."""

    reason = "revision_damaged"


class RevisionNotUnderstood(RevisionUnusable):
    """A revision is whole, and this version of whenthen can not compile it. A later version may."""

    reason = "revision_not_understood"


class RevisionHow(StrEnum):
    START = "start"  #: a process started with files that were never published
    WATCH = "watch"  #: files changed, or were read again on request
    APPLY = "apply"  #: `whenthen apply`
    ROLLBACK = "rollback"  #: `whenthen rollback`: the files of an earlier revision
    REGISTER = "register"  #: a script registered deployments, or some that scripts registered were taken out


class Text(NamedTuple):
    """How a text is found: its digest, its bytes before compression, and its parts."""

    digest: str
    size: int
    parts: int


class MarkerRecord(NamedTuple):
    """What a marker in `EVENTS` says beside its subject."""

    revision: int
    digest: str

    def encode(self) -> bytes:
        return orjson.dumps(self._asdict())


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """The record of a revision. `trouble` says why it can not be read; then it has nothing else but a number."""

    number: int
    digest: str = ""  #: of the set of rules: `Rules.revision`
    own: str = (
        ""  #: of the set without what scripts have registered: `Rules.own_revision`; empty where that is the same
    )
    listing: Text = field(default_factory=lambda: Text("", 0, 0))  #: of the files
    counts: Mapping[str, int] = field(default_factory=dict)  #: automations, webhooks, deployments, notifiers
    at: str = ""  #: RFC 3339
    who: str = ""  #: the user of the operating system
    host: str = ""
    pid: int = 0
    how: RevisionHow = RevisionHow.START
    path: str = ""  #: where the files were, on `host`
    base: str = ""  #: what entry points in them are relative to
    rolled_back_to: int = 0  #: of a rollback: the earlier revision
    id: str = field(default_factory=lambda: uuid.uuid4().hex)  #: by which its publisher recognises it
    trouble: str = ""
    newer: bool = False  #: whether the trouble is that a later version wrote it

    def encode(self) -> bytes:
        return orjson.dumps(
            {
                "format": FORMAT,
                "digest": self.digest,
                **({"own": self.own} if self.own else {}),
                "listing": self.listing._asdict(),
                "counts": dict(self.counts),
                "at": self.at,
                "who": self.who,
                "host": self.host,
                "pid": self.pid,
                "how": self.how,
                "path": self.path,
                "base": self.base,
                "rolled_back_to": self.rolled_back_to,
                "id": self.id,
            }
        )

    @classmethod
    def decode(cls, number: int, data: bytes) -> Revision:
        """Read a record; one that can not be read has a `trouble`."""
        try:
            fields = orjson.loads(data)
            if fields["format"] != FORMAT:
                return cls(
                    number=number,
                    newer=True,
                    trouble=f"it has format {fields['format']!r}, and this version knows {FORMAT}; use a later version",
                )
            return cls(
                number=number,
                digest=_text(fields, "digest"),
                own=_text(fields, "own") if "own" in fields else "",
                listing=_listing(fields["listing"]),
                counts={str(kind): int(count) for kind, count in fields["counts"].items()},
                at=_text(fields, "at"),
                who=_text(fields, "who"),
                host=_text(fields, "host"),
                path=_text(fields, "path"),
                base=_text(fields, "base"),
                id=_text(fields, "id"),
                pid=int(fields["pid"]),
                how=RevisionHow(fields["how"]),
                rolled_back_to=int(fields["rolled_back_to"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return cls(number=number, trouble=f"its record can not be read: {type(error).__name__}: {error}")

    def check(self) -> None:
        """Return if the record could be read.

        Raises:
            RevisionDamaged, RevisionNotUnderstood: it could not.
        """
        if self.trouble:
            kind = RevisionNotUnderstood if self.newer else RevisionDamaged
            raise kind(f"revision {self.number} of the rules: {self.trouble}")

    def described(self) -> str:
        """`revision 7 (3f0c..., by ana on web1, 2026-11-27T10:00:00Z)`."""
        if self.trouble:
            return f"revision {self.number}, which can not be read"
        return f"revision {self.number} ({self.digest}, by {self.who} on {self.host}, {self.how}, {self.at})"


def text_of(raw: bytes) -> tuple[Text, list[bytes]]:
    """A text as it is stored: how it is found, and its parts."""
    packed = zlib.compress(raw)
    parts = [packed[start : start + PART_BYTES] for start in range(0, len(packed), PART_BYTES)]
    return Text(digest_of(raw), len(raw), len(parts)), parts


def digest_of(raw: bytes) -> str:
    """By which a text is named."""
    return hashlib.sha256(raw).hexdigest()[:32]


def joined(text: Text, parts: Sequence[bytes]) -> bytes:
    """The text that was cut into `parts`.

    Raises:
        ValueError: it is another one, or cut off.
    """
    decompress = zlib.decompressobj()
    try:
        raw = decompress.decompress(b"".join(parts), text.size + 1)
    except zlib.error as error:
        raise ValueError(f"it can not be decompressed: {error}") from None
    if len(raw) != text.size or digest_of(raw) != text.digest:
        raise ValueError(f"{len(raw)} bytes with the digest {digest_of(raw)} were found, and {text.size} expected")
    return raw


def encode_listing(files: Iterable[tuple[SourceFile, Text]]) -> bytes:
    """The list of a revision's files, in their order."""
    entries = [[file.name.encode("utf-8", "surrogateescape").hex(), *text, file.held] for file, text in files]
    return orjson.dumps(entries)


def decode_listing(data: bytes) -> list[tuple[SourceFile, Text]]:
    """The files without their texts, and how these are found.

    Raises:
        ValueError: it is no such list.
    """
    found = []
    try:
        for name, digest, size, parts, held in orjson.loads(data):
            text = _listing({"digest": digest, "size": size, "parts": parts})
            found.append(
                (SourceFile(name=bytes.fromhex(name).decode("utf-8", "surrogateescape"), held=bool(held)), text)
            )
    except (TypeError, KeyError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
    return found


def who_publishes() -> dict[str, Any]:
    """This process, for the record of a revision."""
    who = user_name(f"uid {os.getuid()}")
    return {"who": who[:_WHO_CHARS], "host": socket.gethostname()[:_WHO_CHARS], "pid": os.getpid()}


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is no text")
    return value


def _listing(fields: Mapping[str, Any]) -> Text:
    text = Text(_text(fields, "digest"), int(fields["size"]), int(fields["parts"]))
    if not (text.digest.isalnum() and 0 <= text.size <= MOST_BYTES and 0 <= text.parts <= MOST_BYTES // PART_BYTES):
        raise ValueError(f"{text.size} bytes in {text.parts} parts are no text")
    return text
