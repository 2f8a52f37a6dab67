"""What runs have to show besides their results, as it is kept: a record for each artifact, the newest version of it.

Written by `reports.told_artifacts`, read by the API. Meaning: docs/flows.md, "Artifacts".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from whenthen.schemas.base import known_fields

__all__ = ["MAX_DATA_BYTES", "MOST_ARTIFACTS", "MOST_BYTES", "ArtifactPage", "ArtifactRecord", "artifact_of_record"]

MOST_ARTIFACTS: Final = 1000  #: of one attempt that are kept; further ones are counted
MAX_DATA_BYTES: Final = 512 * 1024  #: of one, as JSON: it must fit into one message
MOST_BYTES: Final = 64 << 20  #: of the data of one attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactRecord:
    """One artifact as it is now."""

    id: str  #: 32 hexadecimal digits, made by who made it
    run: str
    deployment: str
    key: str = ""  #: artifacts of one key are versions of one thing
    type: str = ""  #: markdown, table, progress, image, or a word of whoever made it
    description: str = ""
    data: Any = None  #: text, of a table JSON as text, of a progress a number
    metadata: dict[str, str] = field(default_factory=dict)
    task_run: str = ""  #: that made it; empty where the flow did
    created: str  #: RFC 3339
    updated: str  #: RFC 3339
    seq: int = 0  #: its place among all; the store's


class ArtifactPage(list[ArtifactRecord]):
    """Some artifacts, the last changed first. `next` is the `before` of the page that goes on; None when this is the last one."""

    next: int | None = None


def artifact_of_record(fields: dict[str, Any], seq: int) -> ArtifactRecord:
    """An artifact from what a store keeps. Raises KeyError, TypeError for what is none."""
    return ArtifactRecord(**known_fields(ArtifactRecord, {**fields, "seq": seq}))
