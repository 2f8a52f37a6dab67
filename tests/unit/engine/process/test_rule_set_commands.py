"""Rule sets on request: what many requests at one time may cost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from whenthen.engine.http.models.request_models import RuleSetRequest
from whenthen.engine.process.commands import rule_set_commands
from whenthen.engine.process.commands.rule_set_commands import RuleSetCommands
from whenthen.rules import Rules


def test_sets_of_many_requests_are_compiled_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = threading.Lock()
    compiled = []

    def compile_alone(*_args: Any, **_kwargs: Any) -> Rules:
        assert alone.acquire(blocking=False), "another set is being compiled"
        threading.Event().wait(0.01)  # as long as another one would take to begin
        alone.release()
        compiled.append(1)
        return Rules(revision="new")

    async def published_as(_digest: str) -> int:
        return 0

    async def with_registered(rules: Rules) -> Rules:
        return rules

    monkeypatch.setattr(rule_set_commands, "compile_files", compile_alone)
    parts: Any = SimpleNamespace(
        now=SimpleNamespace(rules=Rules(), number=1, shards=[]),
        published_as=published_as,
        notes=lambda: [],
        with_registered=with_registered,
    )

    async def none_open(_triggers: Sequence[str]) -> int:
        return 0

    commands = RuleSetCommands(parts, parts, parts, path=Path(), open_windows=none_open)
    request = RuleSetRequest.model_validate({"files": [{"name": "a.yaml", "text": ""}]})

    async def all_at_once() -> None:
        await asyncio.gather(*(commands.plan_rules(request) for _ in range(5)))

    asyncio.run(all_at_once())
    assert len(compiled) == 5
