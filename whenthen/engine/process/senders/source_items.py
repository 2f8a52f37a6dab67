"""What of a source of the rules is said to people: how it does in all processes together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from whenthen.engine.http import answer_models as answers
from whenthen.engine.process.senders.reader_reports import ReaderReport, SourceCounts
from whenthen.schemas.event_sources import FolderReading, Source

__all__ = ["source_item"]

_UNREAD = "no process reads it; start one with the role `source`"


def source_item(source: Source, readers: Sequence[ReaderReport], last_heard: str | None) -> answers.SourceItem:
    """`readers` are the processes that live; `last_heard` is what is stored of those that ended."""
    found = [(each, each.sources[source.name]) for each in readers if source.name in each.sources]
    refused: Counter[str] = Counter()
    for _, counts in found:
        refused.update(counts.refused)
    state = next(
        (state for state in ("reading", "trouble", "starting") if any(counts.state == state for _, counts in found)),
        "unread",
    )
    heard = [counts.heard for _, counts in found if counts.heard is not None]
    return answers.SourceItem(
        name=source.name,
        kind=source.read.type,
        reads=source.preset or ("map" if source.map is not None else "events"),
        proof="",
        last_heard=max([*heard, *([last_heard] if last_heard else [])], default=None),
        taken=sum(counts.messages for _, counts in found),
        duplicates=sum(counts.duplicates for _, counts in found),
        refused=dict(refused),
        problems=_problems(source, state, found),
        state=state,
        since=min((counts.since for _, counts in found if counts.state == state), default=None),
        readers=[
            answers.SourceReader(
                host=each.host,
                process=each.process,
                state=counts.state,
                since=counts.since,
                taken=counts.messages,
                detail=counts.detail,
            )
            for each, counts in found
            if counts.state != "elsewhere"
        ],
    )


def _problems(source: Source, state: str, found: Sequence[tuple[ReaderReport, SourceCounts]]) -> list[str]:
    if state == "unread" and not found:
        reading = source.read
        on = f" on the host {reading.host}" if isinstance(reading, FolderReading) and reading.host else ""
        return [_UNREAD + on]
    details: dict[str, str] = {}
    for each, counts in found:
        if counts.detail:
            details.setdefault(counts.detail, f"{each.host}: {counts.detail}" if len(found) > 1 else counts.detail)
    return list(details.values())
