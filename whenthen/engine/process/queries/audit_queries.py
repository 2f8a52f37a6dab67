"""The audit trail, newest first."""

from __future__ import annotations

from typing import Any

import orjson
from pydantic import ValidationError

from whenthen.engine.bus.stream_pages import StoredMessage
from whenthen.engine.bus.streams import AUDIT
from whenthen.engine.bus.subjects import audit_subject
from whenthen.engine.http import Listing, Page, why_models
from whenthen.engine.process.queries.lists.asked_list import read_asked
from whenthen.engine.process.queries.lists.known_names import KnownNames
from whenthen.engine.process.queries.lists.merged_lists import ListKind, MergedLists, sequence

__all__ = ["AuditQueries"]


class AuditQueries:
    def __init__(self, lists: MergedLists, names: KnownNames) -> None:
        self._lists = lists
        self._names = names

    async def list_audit(self, page: Page) -> Listing[why_models.AuditItem]:
        asked = read_asked("audit", page, columns={}, filters={}, now=self._lists.clock())
        listed = await self._lists.page(_AUDIT, asked)
        return self._names.noted(page, listed, [why_models.AuditItem.model_validate(each.fields) for each in listed])


def _item(message: StoredMessage) -> dict[str, Any] | None:
    try:
        note = {"id": "", **orjson.loads(message.data), "seq": message.seq}
        why_models.AuditItem.model_validate(note)
    except (orjson.JSONDecodeError, TypeError, ValidationError):
        return None
    return note


def _from_row(row: dict[str, Any]) -> dict[str, Any]:
    note = {name: value for name, value in row.items() if name not in ("pos", "at_us")}
    return {"detail": "", **note, "seq": sequence(row["pos"])}


_AUDIT = ListKind(
    stream=AUDIT,
    subjects=lambda _: [audit_subject("*")],
    all_subjects=(audit_subject("*"),),
    item=_item,
    from_row=_from_row,
)
