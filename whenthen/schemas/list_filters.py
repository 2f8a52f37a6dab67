"""How are the documents of a list filtered? What each filter compares, the same for what a stream holds and for what the history has. Pure.

Called by `history`, for its rows, and by the lists of `engine.process`, for messages of streams.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

__all__ = ["DOCUMENT_FILTERS", "document_test", "has_key_parts"]

_WILD = re.compile(r"[*?\[]")


def _lineage(document: Mapping[str, Any]) -> Mapping[str, Any]:
    found = document.get("lineage")
    return found if isinstance(found, dict) else {}


def _automations(document: Mapping[str, Any]) -> Iterable[object]:
    return (_lineage(document).get("automations") or ())[-1:]


def _resource(document: Mapping[str, Any]) -> Iterable[object]:
    found = document.get("resource")
    return [found.get("id")] if isinstance(found, dict) else []


def _field(name: str) -> Callable[[Mapping[str, Any]], Iterable[object]]:
    return lambda document: [document.get(name)]


#: by kind and filter: which texts of a document are compared; one of them has to match
DOCUMENT_FILTERS: Mapping[str, Mapping[str, Callable[[Mapping[str, Any]], Iterable[object]]]] = {
    "events": {
        "source": _field("source"),
        "resource": _resource,
        "automation": _automations,
        "firing": lambda event: [_lineage(event).get("firing")],
    },
    "runs": {"automation": _automations, "firing": lambda run: [_lineage(run).get("firing")]},
    "audit": {"kind": _field("kind"), "who": _field("who"), "what": _field("what")},
}


def document_test(kind: str, about: Mapping[str, str]) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a document has, for each filter in `about`, a text that is the value, or matches it where that is a glob."""
    tests = [(DOCUMENT_FILTERS[kind][name], _compared(value)) for name, value in about.items()]
    return lambda document: all(any(map(fits, texts(document))) for texts, fits in tests)


def has_key_parts(key: str | Mapping[str, Any], parts: Mapping[str, str]) -> bool:
    """Whether a firing's key, as JSON or as it is, has all the values."""
    if isinstance(key, str):
        try:
            key = orjson.loads(key)
        except orjson.JSONDecodeError:  # it was cut
            return False
    if not isinstance(key, Mapping):
        return False
    return all(name in key and _text(key[name]) == value for name, value in parts.items())


def _text(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _compared(wanted: str) -> Callable[[object], bool]:
    if _WILD.search(wanted) is None:
        return lambda text: text == wanted
    pattern = re.compile(fnmatch.translate(wanted))
    return lambda text: isinstance(text, str) and pattern.match(text) is not None
