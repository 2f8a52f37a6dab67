"""What an automation remembers now: its windows as its shard has stored them, the last changed first."""

from __future__ import annotations

from functools import partial
from typing import Any

import orjson

from whenthen.engine.bus.records import decode_window
from whenthen.engine.bus.stream_pages import StoredMessage
from whenthen.engine.bus.streams import ENGINE
from whenthen.engine.bus.subjects import window_subject
from whenthen.engine.http import Listing, Page, why_models
from whenthen.engine.process.queries.lists.asked_list import read_asked
from whenthen.engine.process.queries.lists.merged_lists import ListKind, MergedLists
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.engine.process.why.why_query import window_item
from whenthen.schemas.times import format_us, to_us
from whenthen.triggers import CompiledAutomation, explaining

__all__ = ["AutomationWindows"]


class AutomationWindows:
    def __init__(self, rule_registry: RuleRegistry, lists: MergedLists) -> None:
        self._rule_registry = rule_registry
        self._lists = lists

    async def list_windows(self, name: str, page: Page) -> Listing[why_models.AutomationWindow]:
        """Raises NotFound, InvalidInput, BusUnavailable."""
        self._rule_registry.automation(name)
        compiled = self._rule_registry.now.automations[name]
        shard = self._rule_registry.shard_of(name)
        subjects = [
            window_subject(shard, node.id, "").rpartition(".")[0] + ".*" for node in explaining.nodes_of(compiled)
        ]
        now = self._lists.clock()
        kind = ListKind(
            stream=ENGINE,
            subjects=lambda _: subjects,
            all_subjects=subjects,
            item=partial(_item, compiled, to_us(now)),
            from_row=dict,
            in_history=False,
        )
        listed = await self._lists.page(kind, read_asked("windows", page, columns={}, filters={}, now=now))
        found = Listing(why_models.AutomationWindow.model_validate(each.fields) for each in listed)
        found.following = None if listed.following is None else {"before": listed.following}
        return found


def _item(compiled: CompiledAutomation, now_us: int, message: StoredMessage) -> dict[str, Any] | None:
    if not message.data:
        return None
    data = message.data
    in_parts = data.startswith(b"{")
    try:
        size = len(data)
        if in_parts:  # of a window larger than a message this is the first part, behind a line of its own
            head, _, data = data.partition(b"\n")
            size = orjson.loads(head)["bytes"]
        trigger, key, state = decode_window(data)
        if in_parts:
            view, changed_us = explaining.WindowView(path=_path(compiled, trigger), key=key, kind="large"), None
        else:
            value = orjson.loads(state)
            stored = explaining.stored_view(compiled, trigger, key, value, now_us=now_us)
            if stored is None:
                return None
            view, changed_us = stored, value[0]
        item = window_item(compiled, view).model_dump()
    except (ValueError, TypeError, KeyError, IndexError):  # of a version that writes another form
        return None
    shown = {**item, "id": f"{trigger}/{key}", "bytes": size, "seq": message.seq}
    if changed_us is None:
        return {**shown, "changed": message.time, "whole": False}
    return {**shown, "changed": format_us(changed_us)}


def _path(compiled: CompiledAutomation, trigger: str) -> str:
    """Raises KeyError: it is no trigger of the automation."""
    return {node.id: node.path for node in explaining.nodes_of(compiled)}[trigger]
