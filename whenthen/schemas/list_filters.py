"""How are the documents of a list filtered? What each filter compares, the same for what a stream holds and for what the history has. Pure.

Called by `history`, for its rows, and by the lists of `engine.process`, for messages of streams.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson

from whenthen.schemas.history_rows import LEFT_OUT

__all__ = ["DOCUMENT_FILTERS", "document_test", "has_key_parts", "is_about", "row_text_test", "text_test"]

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


#: by kind: in which fields text is looked for; all of the document, where there are none
_TEXT_FIELDS: Mapping[str, Sequence[str]] = {
    "events": (),
    "decisions": ("automation", "reason", "event", "firing", "key", "path", "detail"),
    "firings": ("id", "automation", "state", "key", "event", "events"),
    "actions": ("id", "automation", "firing", "type", "state", "error", "result"),
    "runs": (),
    "audit": (),
}
#: what stands beside a document, and is no part of it
_NO_TEXT = frozenset({"seq", "pos", "row", "at_us", "created_us", "doc", LEFT_OUT})


def document_test(kind: str, about: Mapping[str, str]) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a document has, for each filter in `about`, a text that is the value, or matches it where that is a glob."""
    tests = [(DOCUMENT_FILTERS[kind][name], _compared(value)) for name, value in about.items()]
    return lambda document: all(any(map(fits, texts(document))) for texts, fits in tests)


def text_test(kind: str, text: str) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a text, whatever its case, is in a value of an item: the columns of the history and the document as one mapping.

    Names of the fields are no text; the names in a value, such as those of a payload, are.
    """
    names = _TEXT_FIELDS.get(kind, ())
    spellings = _spellings(text)

    def fits(item: Mapping[str, Any]) -> bool:
        values = (
            [item.get(name) for name in names]
            if names
            else [value for name, value in item.items() if name not in _NO_TEXT]
        )
        found = orjson.dumps([value for value in values if value is not None]).decode().casefold()
        return any(one in found for one in spellings)

    return fits


def row_text_test(kind: str, text: str) -> Callable[[Mapping[str, Any]], bool]:
    """The same of a row of the history, which has its document as JSON."""
    fits = text_test(kind, text)
    spellings = _spellings(text)

    def row_fits(row: Mapping[str, Any]) -> bool:
        columns = [value for value in row.values() if isinstance(value, str)]
        # most rows do not have it anywhere, which is known without taking their documents apart
        if not any(one in column.casefold() or "\\u" in column for column in columns for one in spellings):
            return False
        return fits({**orjson.loads(row.get("doc", "{}")), **row, **_key_of(row)})

    return row_fits


def is_about(event: Mapping[str, Any], labels: Mapping[str, str], related: str) -> bool:
    """Whether the resource of an event has the labels, and one of its related resources the id, if one is given."""
    resource, others = event.get("resource"), event.get("related")
    if labels and not (
        isinstance(resource, dict)
        and all(name in resource and str(resource[name]) == value for name, value in labels.items())
    ):
        return False
    return not related or (
        isinstance(others, list)
        and any(isinstance(each, dict) and "id" in each and str(each["id"]) == related for each in others)
    )


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


def _key_of(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The key of a firing as the lists have it."""
    try:
        return {"key": orjson.loads(row["key"])}
    except (KeyError, orjson.JSONDecodeError):  # none, or it was cut
        return {}


def _spellings(text: str) -> set[str]:
    """A text as people write it, and as JSON has it."""
    return {text.casefold(), orjson.dumps(text).decode()[1:-1].casefold()}


def _text(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _compared(wanted: str) -> Callable[[object], bool]:
    if _WILD.search(wanted) is None:
        return lambda text: text == wanted
    pattern = re.compile(fnmatch.translate(wanted))
    return lambda text: isinstance(text, str) and pattern.match(text) is not None
