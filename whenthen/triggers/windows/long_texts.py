"""Texts of events that a window keeps - keys, ids, values - and the limit of their length.

Called by `triggers.window_keys` and `triggers.windows.metric`. Meaning: docs/rules.md, "One window for each" and "Sizes".
"""

from __future__ import annotations

import hashlib

__all__ = ["MAX_ID_BYTES", "MAX_KEY_BYTES", "MAX_VALUE_BYTES", "shorten"]

MAX_KEY_BYTES = 1024  #: of one value of a key, as text
MAX_ID_BYTES = 256  #: of the id of an event in a window
MAX_VALUE_BYTES = 64  #: of one value that `distinct` counts
_SHOWN = 64


def shorten(text: str, limit: int) -> str:
    """The text, or if it has more than `limit` bytes its first 64 characters and its SHA-256: the same everywhere."""
    if len(text) * 4 <= limit:
        return text
    data = text.encode("utf-8", "surrogatepass")
    if len(data) <= limit:
        return text
    return f"{text[:_SHOWN]}…sha256:{hashlib.sha256(data).hexdigest()}"
