"""Rules come into force at their marker, whoever evaluates the shard, and however often it dies on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tests.unit.engine.evaluation.driven_loop import DrivenLoop
from tests.unit.engine.evaluation.stored_rules import StoredRules, mark
from tests.unit.engine.evaluation.virtual_time import now_us, run
from whenthen.engine.bus.records import Offset
from whenthen.engine.bus.subjects import offset_subject
from whenthen.engine.evaluation import shard_rules as rules_module
from whenthen.engine.evaluation.commits import commit as commit_module
from whenthen.engine.evaluation.commits import fenced_offset
from whenthen.engine.evaluation.commits.commit import FencedShardLog
from whenthen.engine.evaluation.memory_log import MemoryConnection
from whenthen.engine.evaluation.memory_server import Fault, FaultKind, Faults, MemoryServer, ProcessDied
from whenthen.engine.evaluation.shard_loop import ShardLoop
from whenthen.engine.rule_sets import RevisionDamaged, RevisionNotUnderstood
from whenthen.schemas.automations import Automation
from whenthen.schemas.events import new_event
from whenthen.schemas.times import from_us
from whenthen.triggers import Evaluator, RuleSet

NOTHING: RuleSet = RuleSet([])


def rules(**events: str) -> RuleSet:
    """An automation for each event, by name."""
    return RuleSet.compile(
        Automation.model_validate({"name": name, "trigger": {"expect": event}, "actions": ["do-nothing"]})
        for name, event in events.items()
    )


FIRST, SECOND, THIRD = rules(first="a"), rules(second="a", also="b"), rules(third="a")


class Scene(DrivenLoop):
    """A server, and one process after the other that evaluates its shard."""

    within_s = 120.0

    def __init__(self, stored: StoredRules) -> None:
        self.server = MemoryServer(now_us)
        self.stored = stored
        self.number = 0

    def event(self, name: str = "a") -> int:
        self.number += 1
        return self.server.publish(
            new_event(name, id=f"e-{self.number}", resource={"id": "r"}, now=from_us(now_us()), source="test")
        )

    def start(self, faults: Faults | None = None, stored: StoredRules | None = None) -> ShardLoop:
        process = MemoryConnection(self.server, faults)
        self.loop = ShardLoop(
            process.events,
            FencedShardLog(process.engine, 0),
            Evaluator(NOTHING),
            wall_us=now_us,
            monotonic=asyncio.get_running_loop().time,
            revisions=stored or self.stored,
        )
        self.task = asyncio.create_task(self.loop.run())
        return self.loop

    def offset(self) -> Offset:
        kept = self.server.get(offset_subject(0))
        assert kept is not None
        return Offset.decode(kept.data or b"", kept.seq)

    def fired(self) -> list[str]:
        """The automations that fired, with the events, in the order of the events."""
        import orjson

        found = [
            orjson.loads(data) for subject, data in self.server.stored().items() if subject.startswith("engine.firing.")
        ]
        return [f"{each['automation']} {each['event']['id']}" for each in sorted(found, key=lambda each: each["seq"])]


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_module.log, "disabled", True)
    monkeypatch.setattr(fenced_offset.log, "disabled", True)


def played(events: Sequence[Any], stored: StoredRules, plans: Sequence[dict[int, Fault]] = ()) -> tuple[list[str], int]:
    """Append `events` ("a", "b", or rules), evaluate them with processes that die as planned; firings and revision at the end."""

    async def play() -> tuple[list[str], int]:
        scene = Scene(stored)
        mark(scene.server, 1)
        last = 0
        for each in events:
            last = scene.event(each) if isinstance(each, str) else stored.publish(scene.server, each)
        for plan in [*plans, {}]:
            scene.start(Faults(plan))
            while not scene.task.done() and scene.loop.committed < last:
                await asyncio.sleep(0.05)
            if scene.task.done() and isinstance(scene.task.exception(), ProcessDied):
                continue
            await scene.stop()
            break
        return scene.fired(), scene.offset().rules

    return run(play())


def test_a_batch_ends_at_the_marker_and_the_next_event_meets_the_new_rules() -> None:
    found = played(["a", "b", SECOND, "a", "b", THIRD, "a"], StoredRules(FIRST))
    assert found == (["first e-1", "second e-3", "also e-4", "third e-5"], 3)


def test_whatever_operation_a_process_dies_at_the_firings_are_the_same() -> None:
    events = ["a", SECOND, "a", "b", "a", THIRD, "a"]
    expected = played(events, StoredRules(FIRST))
    for number in range(14):
        for kind in (FaultKind.CRASH_BEFORE, FaultKind.CRASH_AFTER, FaultKind.ANSWER_LOST):
            assert played(events, StoredRules(FIRST), [{number: Fault(kind)}]) == expected, (number, kind)


def test_a_process_that_takes_the_shard_goes_on_with_the_revision_of_the_offset() -> None:
    async def play() -> None:
        scene = Scene(StoredRules(FIRST))
        mark(scene.server, 1)
        scene.start()
        await scene.reach(scene.event())
        await scene.stop()
        scene.stored.revisions[2] = SECOND  # it is the current one, and its marker is not there yet
        scene.start()
        await scene.reach(scene.event())
        assert scene.offset().rules == 1
        await scene.reach(mark(scene.server, 2))
        await scene.reach(scene.event())
        await scene.stop()
        assert scene.fired() == ["first e-1", "first e-2", "second e-3"]
        assert scene.offset().rules == 2

    run(play())


def test_a_marker_of_a_revision_that_is_passed_changes_nothing() -> None:
    async def play() -> None:
        scene = Scene(StoredRules(FIRST, SECOND))
        for number in (1, 2, 1, 2):
            mark(scene.server, number)
        scene.start()
        await scene.reach(scene.event())
        await scene.stop()
        assert scene.fired() == ["second e-1"]
        assert scene.stored.asked == [1, 2]

    run(play())


@pytest.mark.parametrize("marked", [True, False], ids=["a marker follows", "no marker follows"])
def test_a_shard_of_an_earlier_version_adopts_the_next_marker_or_the_current_revision(marked: bool) -> None:
    async def play() -> None:
        scene = Scene(StoredRules(FIRST, SECOND))
        mark(scene.server, 1)
        scene.event()
        log = FencedShardLog(MemoryConnection(scene.server).engine, 0)
        await log.load(lambda trigger, key, state: None)
        await log.commit([], seq=2, clock_us=now_us())  # its offset names no revision
        last = scene.event()
        if marked:
            mark(scene.server, 2)
            scene.stored.publish(scene.server, THIRD)
            last = scene.event()
        scene.start()
        await scene.reach(last)
        await scene.stop()
        assert scene.fired() == (["second e-2", "third e-3"] if marked else ["second e-2"])

    run(play())


def test_a_revision_that_another_version_wrote_stops_the_shard_before_its_marker_with_a_reason() -> None:
    async def play() -> None:
        scene = Scene(StoredRules(FIRST))
        mark(scene.server, 1)
        before = scene.event()
        scene.stored.publish(scene.server, RevisionNotUnderstood("unknown field"))
        after = scene.event()
        scene.start()
        await scene.reach(before)
        while not scene.loop.stalled:
            await asyncio.sleep(0.01)
        assert scene.loop.stalled == "revision 2 of the rules, which this version can not use: unknown field"
        await asyncio.sleep(30)
        assert scene.loop.seq == before
        await scene.stop()
        assert (scene.offset().seq, scene.offset().rules) == (before, 1)
        later = StoredRules(FIRST, SECOND)  # a process of the other version takes the shard
        scene.start(stored=later)
        await scene.reach(after)
        assert not scene.loop.stalled
        await scene.stop()
        assert scene.fired() == ["first e-1", "second e-2"]

    run(play())


def test_at_the_marker_of_a_damaged_revision_the_shard_goes_on_with_the_last_good_one() -> None:
    found = played(["a", RevisionDamaged("cut off"), "a", THIRD, "a"], StoredRules(FIRST))
    assert found == (["first e-1", "first e-2", "third e-3"], 3)


def test_a_shard_whose_revision_was_damaged_meanwhile_is_loaded_with_the_one_before() -> None:
    async def play() -> None:
        scene = Scene(StoredRules(FIRST, SECOND))
        mark(scene.server, 2)
        scene.start()
        await scene.reach(scene.event())
        await scene.stop()
        scene.stored.revisions[2] = RevisionDamaged("cut off")
        scene.start()
        await scene.reach(scene.event())
        await scene.stop()
        assert scene.fired() == ["second e-1", "first e-2"]

    run(play())


def test_a_shard_without_any_revision_that_can_be_read_waits_until_one_is_mended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rules_module, "MENDED_S", 0.2)

    async def play() -> None:
        scene = Scene(StoredRules(RevisionDamaged("cut off")))
        mark(scene.server, 1)
        scene.start()
        last = scene.event()
        while not scene.loop.stalled:
            await asyncio.sleep(0.01)
        assert "none of which can be read" in scene.loop.stalled
        scene.stored.revisions[1] = FIRST
        await scene.reach(last)
        await scene.stop()
        assert scene.fired() == ["first e-1"]

    run(play())


def test_what_is_due_before_a_marker_is_decided_by_the_rules_before_it() -> None:
    absent = RuleSet.compile(
        [
            Automation.model_validate(
                {
                    "name": "absent",
                    "trigger": {"after": "a", "expect": "b", "posture": "proactive", "within": "2s"},
                    "actions": ["do-nothing"],
                }
            )
        ]
    )

    async def play() -> None:
        scene = Scene(StoredRules(absent))
        mark(scene.server, 1)
        scene.event("a")
        await asyncio.sleep(5)
        last = scene.stored.publish(scene.server, SECOND)
        scene.start()
        await scene.reach(last)
        await scene.stop()
        assert len([subject for subject in scene.server.stored() if subject.startswith("engine.firing.")]) == 1

    run(play())
