"""Text of others in the log: on one line, bounded, without secrets, in characters that every terminal shows as they are."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Redact", "one_line"]

Redact = Callable[[str], str]

TEXT_CHARS = 500


def one_line(text: str, redact: Redact = lambda text: text) -> str:
    """`text` for a line of the log.

    `redact` takes secrets out of it. It comes before the text is cut and escaped: a part of a secret, or its escaped form, would not be found
    any more by whoever redacts the whole line.
    """
    text = redact(text)
    if len(text) > TEXT_CHARS:
        text = text[:TEXT_CHARS] + "..."
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
