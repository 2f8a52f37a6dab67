"""RSS and Atom as plain data, as a mapping sees them. The reading is feedparser's, which comes with the extra `feeds`."""

from __future__ import annotations

import calendar
import hashlib
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from whenthen.engine.sources.message_intake import SourceTrouble

__all__ = ["read_feed"]

MAX_ENTRIES = 1000


def read_feed(body: bytes, content_type: str) -> dict[str, Any]:
    """`{title, link, entries: [{id, title, link, summary, author, published, updated, tags}]}`; what is missing is left out.

    An entry without an id has its link, its title, or a digest of its summary as one.

    Raises:
        ValueError: the body is no feed.
        SourceTrouble: feedparser is not installed.
    """
    try:
        import feedparser
    except ImportError:
        raise SourceTrouble("feeds are read with feedparser: pip install 'whenthen[feeds]'") from None
    found = feedparser.parse(body, response_headers={"content-type": content_type or "application/xml"})
    if not found.version:
        raise ValueError("its answer is neither RSS nor Atom; give `format: json` if it is JSON")
    head = {name: str(found.feed[name]) for name in ("title", "link") if found.feed.get(name)}
    return {**head, "entries": [_entry(entry) for entry in found.entries[:MAX_ENTRIES]]}


def _entry(entry: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        name: str(entry[name]) for name in ("id", "title", "link", "summary", "author") if entry.get(name)
    }
    for name in ("published", "updated"):
        if parsed := dict.get(entry, f"{name}_parsed"):  # its own `get` takes one for the other
            with suppress(ValueError):  # a time that no calendar has, such as one of the year 0
                made[name] = datetime.fromtimestamp(calendar.timegm(parsed), UTC).isoformat()
    made["tags"] = [str(tag.get("term")) for tag in entry.get("tags", ()) if tag.get("term")]
    made.setdefault("link", "")
    summary = made.get("summary", "")
    digest = hashlib.blake2b(summary.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
    made.setdefault("id", made["link"] or made.get("title") or digest)
    return made
