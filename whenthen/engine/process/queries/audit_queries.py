"""The audit trail, newest first."""

from __future__ import annotations

import fnmatch

import orjson
from pydantic import ValidationError

from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.stream_pages import StoredMessage, newest
from whenthen.engine.bus.streams import AUDIT
from whenthen.engine.bus.subjects import audit_subject
from whenthen.engine.http import Page, why_models

__all__ = ["AuditQueries"]


class AuditQueries:
    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def list_audit(self, page: Page) -> list[why_models.AuditItem]:
        def pick(message: StoredMessage) -> why_models.AuditItem | None:
            try:
                fields = orjson.loads(message.data)
                item = why_models.AuditItem.model_validate({**fields, "seq": message.seq})
            except (orjson.JSONDecodeError, TypeError, ValidationError):
                return None
            wanted = all(fnmatch.fnmatchcase(str(getattr(item, name)), glob) for name, glob in page.filters.items())
            return item if wanted else None

        return await newest(
            self._bus.client, AUDIT, audit_subject("*"), limit=page.limit, pick=pick, before=page.position
        )
