"""Templates of the pages, rendered: every text is escaped and made inert, every value has one way to be shown.

Called by `engine/http/pages`. A template is a file in `templates/`; it extends `base.html`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from whenthen.ui.page_assets import ASSETS
from whenthen.ui.page_links import page_url
from whenthen.ui.reason_words import reason_tone, reason_words
from whenthen.ui.request_texts import request_text
from whenthen.ui.shown_text import (
    inert,
    shown_bytes,
    shown_json,
    shown_name,
    shown_number,
    shown_seconds,
    shown_span,
    shown_time,
)
from whenthen.ui.small_pictures import bars, fill

__all__ = ["NAVIGATION", "Place", "render"]

#: path and word of each page that the head of all pages leads to
NAVIGATION: Final = (
    ("/events", "Events"),
    ("/automations", "Automations"),
    ("/firings", "Firings"),
    ("/runs", "Runs"),
    ("/sources", "Sources"),
    ("/why", "Why"),
    ("/trace", "Trace"),
    ("/try", "Try"),
    ("/system", "System"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a page is, and who looks at it."""

    path: str = ""  #: of the page
    parameters: Mapping[str, str] = field(default_factory=dict)  #: of its address
    who: str = ""  #: the token's name; empty where none is needed
    session: bool = False  #: whether there is a session to end
    may_operate: bool = False  #: whether forms that change something are shown
    forgery_token: str = ""  #: what these forms bring
    version: str = ""

    def with_(self, **changes: Any) -> str:
        """The address of this page with other parameters, and without what a form did."""
        kept = {name: value for name, value in self.parameters.items() if name not in ("done", "seal")}
        return page_url(self.path, **{**kept, **changes})


def render(template: str, place: Place, **values: Any) -> str:
    """A page as HTML. `values` are what its template shows; one that is missing is an error, not an empty place."""
    return _environment().get_template(template).render(place=place, **values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("whenthen.ui"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=inert,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "bytes": shown_bytes,
        "json": shown_json,
        "name": shown_name,
        "number": shown_number,
        "reason": reason_words,
        "request": request_text,
        "seconds": shown_seconds,
        "time": shown_time,
        "tone": reason_tone,
    }
    environment.globals |= {
        "asset": lambda name: ASSETS[name].url,
        "bars": bars,
        "fill": fill,
        "took": shown_span,
        "navigation": NAVIGATION,
        "url": page_url,
    }
    return environment
