"""Pauses are taken at their position in the log: by every shard, whichever process evaluates it and whenever, and by a replay."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import orjson
import pytest

from tests.unit.engine.evaluation.driven_loop import DrivenLoop
from tests.unit.engine.evaluation.virtual_time import now_us, run
from whenthen.engine.bus.subjects import pause_subject
from whenthen.engine.evaluation.commits import commit as commit_module
from whenthen.engine.evaluation.commits import fenced_offset
from whenthen.engine.evaluation.commits.commit import FencedShardLog
from whenthen.engine.evaluation.memory_log import MemoryConnection
from whenthen.engine.evaluation.memory_server import Fault, FaultKind, Faults, MemoryServer, ProcessDied
from whenthen.engine.evaluation.shard_loop import ShardLoop
from whenthen.rules.replay import replay
from whenthen.schemas.automations import Automation, PauseChange
from whenthen.schemas.events import decode_event, new_event
from whenthen.schemas.times import format_time, format_us, from_us
from whenthen.triggers import Evaluator, RuleSet, shard_of

SHARDS = 2
AUTOMATIONS = [
    Automation.model_validate({"name": name, "trigger": {"expect": "a"}, "actions": ["do-nothing"]})
    for name in ("one", "two", "three", "four")
]


class Scene(DrivenLoop):
    """A server, and processes that evaluate its shards."""

    within_s = 120.0

    def __init__(self) -> None:
        self.server = MemoryServer(now_us)
        self.number = 0
        self.versions = 0

    def event(self) -> int:
        self.number += 1
        event = new_event("a", id=f"e-{self.number}", resource={"id": "r"}, now=from_us(now_us()), source="test")
        return self.server.publish(event)

    def change(self, automation: str, *, paused: bool, version: int = 0, until: str = "", was: bool = False) -> int:
        self.versions += 1
        told = PauseChange(
            automation=automation, paused=paused, until=until, version=version or self.versions, was_paused=was
        )
        return self.server.append(pause_subject(automation), told.encode())

    def start(self, shard: int, faults: Faults | None = None) -> None:
        process = MemoryConnection(self.server, faults)
        part = [automation for automation in AUTOMATIONS if shard_of(automation.name, SHARDS) == shard]
        self.loop = ShardLoop(
            process.events,
            FencedShardLog(process.engine, shard),
            Evaluator(RuleSet.compile(part)),
            wall_us=now_us,
            monotonic=asyncio.get_running_loop().time,
        )
        self.task = asyncio.create_task(self.loop.run())

    async def evaluate(self, shard: int, last: int, plans: Sequence[dict[int, Fault]] = ()) -> None:
        for plan in [*plans, {}]:
            self.start(shard, Faults(plan))
            while not self.task.done() and self.loop.committed < last:
                await asyncio.sleep(0.05)
            if self.task.done() and isinstance(self.task.exception(), ProcessDied):
                continue
            await self.stop()
            break

    def fired(self) -> set[str]:
        return {
            f"{each['automation']} {each['event']['id']}"
            for subject, data in self.server.stored().items()
            if subject.startswith("engine.firing.")
            for each in [orjson.loads(data)]
        }

    def replayed(self) -> set[str]:
        """What `whenthen replay` makes of the log."""
        lines: list[bytes] = []
        for message in self.server.events:
            at = format_us(message.time_us)
            if message.subject.startswith("pauses."):
                lines.append(orjson.dumps({**orjson.loads(message.data), "at": at}))
            elif message.subject.startswith("events."):
                event = decode_event(message.data, message.seq)
                lines.append(orjson.dumps({**event.data, "seq": message.seq, "stored": at}))
            else:
                lines.append(orjson.dumps({"tick": at}))
        return {f"{each['automation']} {each['event']}" for each in replay(AUTOMATIONS, lines)}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_module.log, "disabled", True)
    monkeypatch.setattr(fenced_offset.log, "disabled", True)


def lived(scene: Scene) -> int:
    """Pauses and events, some of both at the same moment; gives the last position."""
    scene.event()
    scene.change("one", paused=True)
    scene.change("three", paused=True, until=format_time(from_us(now_us() + 3600_000_000)))
    scene.event()
    scene.change("one", paused=False, was=True)
    scene.event()
    scene.change("one", paused=True, version=2)  # told late by a slow process: a newer one is known
    scene.change("two", paused=True)
    return scene.event()


def test_an_event_counts_or_does_not_by_its_position_in_every_shard() -> None:
    async def play() -> None:
        scene = Scene()
        last = lived(scene)
        for shard in range(SHARDS):
            await scene.evaluate(shard, last)
        assert scene.fired() == {
            *(f"{name} e-1" for name in ("one", "two", "three", "four")),
            *(f"{name} e-2" for name in ("two", "four")),
            *(f"{name} e-3" for name in ("one", "two", "four")),
            *(f"{name} e-4" for name in ("one", "four")),
        }
        assert scene.fired() == scene.replayed()

    run(play())


def test_whatever_operation_a_process_dies_at_the_firings_are_those_of_the_replay() -> None:
    async def play(plan: dict[int, Fault]) -> tuple[set[str], set[str]]:
        scene = Scene()
        last = lived(scene)
        for shard in range(SHARDS):
            await scene.evaluate(shard, last, [plan, plan])
        return scene.fired(), scene.replayed()

    for number in range(12):
        for kind in (FaultKind.CRASH_BEFORE, FaultKind.CRASH_AFTER, FaultKind.ANSWER_LOST):
            fired, replayed = run(play({number: Fault(kind)}))
            assert fired == replayed, (number, kind)


def test_a_pause_outlives_the_process_that_took_it_and_its_message() -> None:
    async def play() -> None:
        scene = Scene()
        shard = shard_of("one", SHARDS)
        await scene.evaluate(shard, scene.change("one", paused=True))
        await scene.evaluate(shard, scene.event())
        assert "one e-1" not in scene.fired()
        await scene.evaluate(shard, scene.change("one", paused=False, was=True))
        await scene.evaluate(shard, scene.event())
        assert "one e-2" in scene.fired()

    run(play())


def test_a_pause_of_an_earlier_version_holds_for_what_it_did_not_evaluate() -> None:
    """Whoever stored its flag told nobody; the message that is told later says that it was paused before."""

    async def play() -> None:
        scene = Scene()
        scene.event()
        scene.change("one", paused=True, was=True)
        last = scene.event()
        for shard in range(SHARDS):
            await scene.evaluate(shard, last)
        assert {each for each in scene.fired() if each.startswith("one")} == set()
        assert "two e-1" in scene.fired()

    run(play())


def test_a_message_that_is_no_change_is_passed_over() -> None:
    async def play() -> None:
        scene = Scene()
        scene.event()
        scene.server.append("pauses.one", b'{"pause": {"automation": 5}}')
        last = scene.event()
        shard = shard_of("one", SHARDS)
        await scene.evaluate(shard, last)
        assert {"one e-1", "one e-2"} <= scene.fired()

    run(play())
