"""The audit trail: notes are bounded under a flood and while nobody takes them, and no command waits for one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest

from tests.unit.engine.evaluation.virtual_time import run
from whenthen.engine.audit import AuditLog
from whenthen.engine.audit import audit_log as module
from whenthen.engine.bus.request_client import BusReason, unavailable
from whenthen.engine.process.commands.audited import audited
from whenthen.schemas.errors import NotFound


class Bus:
    """Takes messages, unless `away`."""

    def __init__(self) -> None:
        self.stored: list[tuple[str, dict[str, Any]]] = []
        self.away = False

    async def store(self, subject: str, data: bytes, message_id: str) -> None:
        if self.away:
            raise unavailable("away", BusReason.DISCONNECTED)
        self.stored.append((subject, orjson.loads(data)))


def written(scene: Callable[[AuditLog, Bus], Awaitable[None]]) -> list[tuple[str, dict[str, Any]]]:
    """What is stored once the scene is over and the log was ended."""

    async def play() -> list[tuple[str, dict[str, Any]]]:
        bus, stop = Bus(), asyncio.Event()
        log = AuditLog(bus, process="host:1", monotonic=asyncio.get_running_loop().time)  # type: ignore[arg-type]
        task = asyncio.create_task(log.run(stop))
        await scene(log, bus)
        stop.set()
        await task
        return bus.stored

    return run(play())


def test_a_note_says_who_did_what_and_when() -> None:
    async def scene(log: AuditLog, bus: Bus) -> None:
        log.note("automation-paused", what="nightly")
        log.note("rules-taken", what="revision 3", who="ana", detail="applied")

    stored = written(scene)
    assert [(subject, note["who"], note["what"], note["count"]) for subject, note in stored] == [
        ("audit.automation-paused", "host:1", "nightly", 1),
        ("audit.rules-taken", "ana", "revision 3", 1),
    ]


def test_a_flood_of_one_cause_is_counted_and_leaves_room_for_others() -> None:
    async def scene(log: AuditLog, bus: Bus) -> None:
        for number in range(5000):
            log.note("request-refused", what=f"webhook /hooks/{number}", who="10.0.0.9", cause="not_found")
        log.note("request-refused", what="webhook:github", who="10.0.0.1", cause="bad_signature")
        await asyncio.sleep(module.SPAN_S + 2)
        log.note("request-refused", what="webhook /hooks/later", cause="not_found")

    stored = [note for _, note in written(scene)]
    assert len(stored) == module.MOST_WHOLE + 3
    assert sum(note["count"] for note in stored if note["cause"] == "not_found") == 5001
    assert [note["what"] for note in stored if note["cause"] == "bad_signature"] == ["webhook:github"]
    assert stored[-1]["what"] == "webhook /hooks/later"


def test_notes_wait_for_nats_and_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    async def scene(log: AuditLog, bus: Bus) -> None:
        bus.away = True
        for number in range(module.MOST_WAITING + 5):
            log.note("automation-paused", what=str(number), cause=str(number))
        await asyncio.sleep(5)
        assert bus.stored == []
        bus.away = False
        await asyncio.sleep(2)

    stored = written(scene)
    assert [note["what"] for _, note in stored] == [str(number) for number in range(5, module.MOST_WAITING + 5)]
    assert "5 notes of the audit trail were dropped" in caplog.text


def test_a_long_field_is_cut() -> None:
    async def scene(log: AuditLog, bus: Bus) -> None:
        log.note("request-refused", what="x" * 100_000, detail="y" * 100_000)

    ((_, note),) = written(scene)
    assert len(orjson.dumps(note)) < 2000


def test_a_command_is_noted_when_it_was_done_and_when_it_was_refused() -> None:
    async def scene(log: AuditLog, bus: Bus) -> None:
        async def pause(name: str, *, hard: bool = False) -> str:
            if name == "nobody":
                raise NotFound("there is no such automation")
            return name

        done = audited(log, "paused", pause, told=str.upper, refused="pause-refused")
        assert await done("nightly", hard=True) == "nightly"
        with pytest.raises(NotFound):
            await done("nobody")

    stored = [note for _, note in written(scene)]
    assert [(note["kind"], note["what"], note["detail"], note["cause"]) for note in stored] == [
        ("paused", "nightly", "NIGHTLY; hard=True", ""),
        ("pause-refused", "nobody", "there is no such automation", "not_found"),
    ]
