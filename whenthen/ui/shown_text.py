"""Text of others in a page: nothing of it is markup, moves a cursor, or turns the direction of what stands beside it.

Called by `page_templates` for every text that a template shows; Jinja escapes markup besides.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from markupsafe import Markup, escape

__all__ = [
    "inert",
    "shown_bytes",
    "shown_json",
    "shown_name",
    "shown_number",
    "shown_seconds",
    "shown_span",
    "shown_time",
]

#: controls but for tab and line feed; marks of direction and isolation; line separators; what is no character
_ACTIVE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff\ud800-\udfff]"
)
MOST_NAME = 120  #: characters of a name in a list
MOST_TITLE = 500  #: and of what stands in its title: a list of 50 names may be of nothing but markup
MOST_JSON = 20_000  #: characters of a value in a page
_UNITS = ("B", "kB", "MB", "GB", "TB")


def inert(value: Any) -> Any:
    """A text with characters that do something in place of showing made visible: `␛` for an escape, `‹U+202E›` for a mark of direction.
    Markup of ours and values that are no text are left as they are."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return _ACTIVE.sub(_visible, value)
    return "" if value is None else value


def _visible(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"‹U+{code:04X}›"


def shown_name(value: Any, most: int = MOST_NAME) -> Markup:
    """A name of somebody else, in its own direction; a long one is cut in the middle, and its title has more of it."""
    text = inert(str(value))
    if len(text) <= most:
        return Markup("<bdi>{}</bdi>").format(text)
    half = (most - 1) // 2
    return Markup('<bdi title="{}">{}…{}</bdi>').format(text[:MOST_TITLE], text[:half], text[-half:])


def shown_time(value: Any, kind: str = "") -> Markup:
    """A time as UTC to the second; the script of the pages shows it in the reader's zone. The exact one is in `data-exact`.

    `kind` is `clock` where the time of the day says more than how long ago it was."""
    if not value:
        return Markup('<span class="none">never</span>')
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        return escape(inert(str(value)))
    moment = moment.astimezone(UTC)
    exact = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Markup('<time{} datetime="{}" data-exact="{} UTC" tabindex="0">{} UTC</time>').format(
        Markup(' class="{}"').format(kind) if kind else "",
        exact,
        exact[:-1].replace("T", " "),
        moment.strftime("%Y-%m-%d %H:%M:%S"),
    )


def shown_number(value: float) -> str:
    """1,234,567"""
    return f"{value:,}"


def shown_bytes(value: float) -> str:
    """Of three digits at most: 12.3 MB."""
    unit = 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value /= 1000
        unit += 1
    return f"{value:.3g} {_UNITS[unit]}" if value else "0 B"


def shown_seconds(value: float | timedelta) -> str:
    """A duration in its largest two units: `1 d 4 h`, `3 min 20 s`, `1.2 s`, `15 ms`."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if seconds < 1:
        return f"{round(seconds * 1000)} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    rest = round(seconds)
    parts: list[str] = []
    for name, size in units:
        if rest >= size or parts:
            parts.append(f"{rest // size} {name}" if rest >= size else "")
            rest %= size
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if part)


def shown_span(begin: str | datetime, end: str | datetime) -> str:
    """How long it was from one time to another, as `shown_seconds`."""
    first, last = (each if isinstance(each, datetime) else datetime.fromisoformat(each) for each in (begin, end))
    return shown_seconds(max(timedelta(), last - first))


def shown_json(value: Any, most: int = MOST_JSON) -> str:
    """A value as indented JSON, cut after `most` characters."""
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode()
    return text if len(text) <= most else f"{text[:most]}\n… {len(text) - most:,} more characters"
