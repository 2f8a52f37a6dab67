"""A process's tasks: which end stops the process, which starts again, and how they are ended."""

from __future__ import annotations

import asyncio
import logging

import pytest

from whenthen.engine.process import supervisor as module
from whenthen.engine.process.supervisor import Supervisor
from whenthen.schemas.errors import SetupError


def test_a_task_that_fails_stops_the_process_with_its_error() -> None:
    async def fail() -> None:
        raise ValueError("no more")

    async def run() -> None:
        supervisor = Supervisor()
        supervisor.start("part", fail())
        with pytest.raises(ValueError, match="no more"):
            await asyncio.wait_for(supervisor.stopped(), 5)

    asyncio.run(run())


def test_a_task_that_ends_by_itself_stops_the_process() -> None:
    async def run() -> None:
        supervisor = Supervisor()
        supervisor.start("part", asyncio.sleep(0))
        with pytest.raises(SetupError, match="part ended by itself"):
            await asyncio.wait_for(supervisor.stopped(), 5)

    asyncio.run(run())


def test_a_restarting_task_is_run_again_after_a_failure_but_not_after_a_setup_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RESTART_S", 0)
    outcomes: list[Exception] = [ValueError("once"), OSError("twice"), SetupError("never again")]

    async def part() -> None:
        raise outcomes.pop(0)

    async def run() -> None:
        supervisor = Supervisor()
        supervisor.start_restarting("part", part)
        with pytest.raises(SetupError, match="never again"):
            await asyncio.wait_for(supervisor.stopped(), 5)

    with caplog.at_level(logging.ERROR):
        asyncio.run(run())
    assert outcomes == []
    assert caplog.text.count("part failed and starts again") == 2


def test_what_ends_while_the_process_stops_is_no_failure() -> None:
    async def run() -> None:
        supervisor = Supervisor()
        supervisor.start("part", asyncio.sleep(0))
        supervisor.stopping.set()
        await supervisor.end("part", 5)
        await supervisor.stopped()

    asyncio.run(run())


def test_a_task_gets_its_grace_and_is_then_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        supervisor = Supervisor()
        forever = asyncio.Event()

        async def wait() -> None:
            await forever.wait()

        supervisor.start("slow", wait())
        supervisor.start("other", wait())
        supervisor.stopping.set()
        await supervisor.end("slow", 0.01)
        await supervisor.end("slow", 60)  # it is gone: nothing is waited for
        await supervisor.end_all()
        await supervisor.stopped()

    asyncio.run(asyncio.wait_for(run(), 20))
    assert "slow did not stop within 0.01 s and is cut off" in caplog.text
    assert "other" not in caplog.text
