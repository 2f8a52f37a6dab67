"""What a list is asked for, read and checked, and whether an item of it is wanted. Pure.

What is compared in the history is compared there (`history.HistoryQuery`); `wanted` says the same of what is not in it yet.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from whenthen.engine.http import Page
from whenthen.engine.process.queries.moments import time_range
from whenthen.schemas.errors import InvalidInput
from whenthen.schemas.list_filters import DOCUMENT_FILTERS, document_test, has_key_parts, is_about, text_test

__all__ = ["AskedList", "read_asked"]

Item = Mapping[str, Any]
_WILD = re.compile(r"[*?\[]")
_LEAST_ID_CHARS = 4  #: of an id's beginning, as the history has it


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedList:
    """A list that is asked for. `columns` says for each column of the history in `equal` which field of an item has it."""

    kind: str
    limit: int
    before: int | None  #: a place of the history, or a position of the stream
    columns: Mapping[str, str]
    equal: Mapping[str, str]
    about: Mapping[str, str]
    labels: Mapping[str, str]
    key: Mapping[str, str]
    related: str
    id_prefix: str
    text: str
    since_us: int | None
    until_us: int | None

    def history_query(self) -> dict[str, Any]:
        """As the history is asked for it, but for the page."""
        labels, about = dict(self.labels), dict(self.about)
        if "id" not in labels and not _WILD.search(resource := about.get("resource", "*")):
            labels["id"] = about.pop("resource", resource)  # of labels there is an index
        return {
            "kind": self.kind,
            "equal": dict(self.equal),
            "about": about,
            "labels": labels,
            "key_parts": dict(self.key),
            "related": self.related,
            "id_prefix": self.id_prefix,
            "text": self.text,
            "since_us": self.since_us,
            "until_us": self.until_us,
        }

    def wanted(self, id_field: str) -> Callable[[Item], bool]:
        """Whether an item is in the list, its time aside."""
        tests: list[Callable[[Item], bool]] = []
        for column, value in self.equal.items():
            name = self.columns[column]
            if column == "name" and _WILD.search(value):
                pattern = re.compile(fnmatch.translate(value))
                tests.append(lambda item, name=name, pattern=pattern: pattern.match(item[name]) is not None)  # type: ignore[misc]
            else:
                tests.append(lambda item, name=name, value=value: item[name] == value)  # type: ignore[misc]
        if self.about:
            tests.append(document_test(self.kind, self.about))
        if self.labels or self.related:
            tests.append(lambda item: is_about(item, self.labels, self.related))
        if self.key:
            tests.append(lambda item: has_key_parts(item["key"], self.key))
        if self.id_prefix:
            tests.append(lambda item: str(item[id_field]).startswith(self.id_prefix))
        if self.text:
            fits = text_test(self.kind, self.text)
            names = {"id": id_field, **self.columns}
            renamed = {name: column for column, name in names.items() if name != column}
            tests.append(lambda item: fits({renamed.get(name, name): value for name, value in item.items()}))
        return lambda item: all(test(item) for test in tests)


def read_asked(
    kind: str, page: Page, *, columns: Mapping[str, str], filters: Mapping[str, str], now: datetime
) -> AskedList:
    """The list that a request asks for. `filters` gives for a filter of the request the column of the history that it is.

    Raises:
        InvalidInput: a filter that can not be.
    """
    given = page.filters
    since, until = time_range(given, now)
    id_prefix = given.get("id", "").removesuffix("…")
    if "id" in given and len(id_prefix) < _LEAST_ID_CHARS:
        raise InvalidInput(
            f"{given['id'][:80]!r} is too short; write {_LEAST_ID_CHARS} characters of the id or more", path=("id",)
        )
    return AskedList(
        kind=kind,
        limit=page.limit,
        before=page.position,
        columns=columns,
        equal={filters[name]: value for name, value in given.items() if name in filters},
        about={name: value for name, value in given.items() if name in DOCUMENT_FILTERS.get(kind, ())},
        labels=page.labels,
        key=page.key,
        related=given.get("related", ""),
        id_prefix=id_prefix,
        text=given.get("text", ""),
        since_us=since,
        until_us=until,
    )
