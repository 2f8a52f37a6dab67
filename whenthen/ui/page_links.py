"""Addresses of pages: what a page shows is in its address, so that it can be sent to somebody."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

__all__ = ["page_url"]


def page_url(path: str, **parameters: Any) -> str:
    """The address of a page with these parameters; those that are empty or None are left out. Names stand in parameters and never in the
    path, since browsers resolve `..` in a path also when it is encoded."""
    given = [(name.rstrip("_"), str(value)) for name, value in parameters.items() if value not in (None, "", False)]
    query = urlencode(given, errors="replace")
    return f"{path}?{query}" if query else path
