"""The evaluation loop over the memory log, in virtual time: killed at any operation, it fires what it would have fired."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import up_to
from tests.integration.counting import CountingEvaluator, CountingRules
from tests.unit.engine.evaluation.stored_rules import StoredRules
from tests.unit.engine.evaluation.virtual_time import START_S, now_us, run
from whenthen.engine.bus.records import Message
from whenthen.engine.bus.subjects import outcome_of, window_subject
from whenthen.engine.decisions import DecisionRecorder
from whenthen.engine.evaluation import shard_loop as loop_module
from whenthen.engine.evaluation.commits import commit as commit_module
from whenthen.engine.evaluation.commits import fenced_offset
from whenthen.engine.evaluation.commits.commit import FencedShardLog
from whenthen.engine.evaluation.firing_counts import FIRED, decode_totals
from whenthen.engine.evaluation.log_ports import Fenced
from whenthen.engine.evaluation.loop_ports import EventEvaluator, Observer, RuleRevisions
from whenthen.engine.evaluation.memory_log import MemoryConnection
from whenthen.engine.evaluation.memory_server import Fault, FaultKind, Faults, Kept, MemoryServer, ProcessDied
from whenthen.engine.evaluation.memory_shard_log import MemoryShardLog
from whenthen.engine.evaluation.shard_loop import ShardLoop
from whenthen.schemas.automations import Automation
from whenthen.schemas.events import Event, new_event
from whenthen.schemas.times import from_us
from whenthen.triggers import Evaluator, RuleSet

FAULTS = [
    Fault(FaultKind.CRASH_BEFORE),
    Fault(FaultKind.CRASH_AFTER),
    Fault(FaultKind.ANSWER_LOST),
    Fault(FaultKind.REQUEST_LOST),
    Fault(FaultKind.LATE, 2),
]
EVENT_EVERY_S = 0.3
RULES = [
    {"name": "thrice", "trigger": {"expect": "order.paid", "threshold": 3, "within": "1h", "for_each": ["id"]}},
    {
        "name": "absent",
        "trigger": {
            "expect": "order.shipped",
            "after": "order.paid",
            "posture": "proactive",
            "within": "2s",
            "for_each": ["id"],
        },
    },
    {"name": "each", "trigger": {"expect": "order.shipped"}},
]


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    """Thousands of warnings, and the times that a slow machine takes, have no part in this."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commit_module.log, "disabled", True)
        patch.setattr(fenced_offset.log, "disabled", True)
        patch.setattr(loop_module.log, "disabled", True)
        yield


def counting() -> CountingEvaluator:
    return CountingEvaluator(threshold=2)


def evaluator() -> Evaluator:
    automations = [Automation.model_validate({**rule, "actions": ["do-nothing"]}) for rule in RULES]
    return Evaluator(RuleSet.compile(automations), follows_wait=timedelta(seconds=3))


def event(name: str, number: int = 0, *, follows: str | None = None, **labels: str) -> Event:
    at = from_us(int((START_S + number * EVENT_EVERY_S) * 1_000_000))
    resource = {"id": "r", **labels}
    return new_event(name, id=f"e-{number}", resource=resource, now=at, source="test", follows=follows)


COUNTED = [
    event("order.created", 1, id="a"),
    event("arm", 2, id="x", after_us="700000"),
    event("order.created", 3, id="a"),
    event("burst", 4, fan="40"),
    event("order.created", 5, id="b"),
    event("arm", 6, id="y", after_us="2000000"),
    event("order.created", 7, id="b"),
    event("order.created", 8, id="a"),
    event("order.created", 9, id="a"),
]
MORE = event("order.created", 10, id="z")
ORDERS = [
    event("order.paid", 1, id="a"),
    event("order.paid", 2, id="b"),
    event("order.shipped", 3, id="b", follows="e-4"),
    event("order.other", 4, id="b"),
    event("order.paid", 5, id="a"),
    event("order.paid", 6, id="a"),
    event("order.shipped", 7, id="a", follows="e-0"),
]


@dataclass
class Scene:
    """A log to which events are appended at fixed times, and one process after the other that evaluates it."""

    events: Sequence[Event]
    make: Callable[[], EventEvaluator]
    revisions: RuleRevisions | None = None
    server: MemoryServer = field(default_factory=lambda: MemoryServer(now_us))
    tasks: Counter[str] = field(default_factory=Counter)
    operations: list[list[str]] = field(default_factory=list)
    left: tuple[dict[str, object], set[str]] = field(init=False)  #: at the end of `play`

    def __post_init__(self) -> None:
        self.server.on_stored.append(self._stored)

    def _stored(self, message: Kept) -> None:
        if outcome_of(message.subject) is not None:
            self.tasks[message.subject] += 1

    async def append(self) -> None:
        if self.server.events:
            return
        loop = asyncio.get_running_loop()
        for number, each in enumerate(self.events, 1):
            await asyncio.sleep(START_S + number * EVENT_EVERY_S - loop.time())
            self.server.publish(each)

    def loop_of(
        self,
        process: MemoryConnection,
        shard_log: FencedShardLog | MemoryShardLog | None = None,
        revisions: RuleRevisions | None = None,
    ) -> ShardLoop:
        return ShardLoop(
            process.events,
            shard_log or FencedShardLog(process.engine, 0),
            self.make(),
            wall_us=now_us,
            monotonic=asyncio.get_running_loop().time,
            revisions=revisions or self.revisions,
            recorder=self.recorder_of(process),
        )

    def recorder_of(self, process: MemoryConnection) -> DecisionRecorder | None:
        """What puts the decisions of a process on record."""
        return None

    async def play(self, plans: Sequence[Mapping[int, Fault]] = (), *, atomic: bool = False) -> None:
        """Append all events while processes evaluate them; a process that died is followed by the next one, after the plans by
        one without faults. Ends when nothing is left to do."""
        appending = asyncio.create_task(self.append())
        for plan in [*plans, {}]:
            process = MemoryConnection(self.server, Faults(plan))
            self.operations.append(process.faults.operations)
            loop = self.loop_of(process, MemoryShardLog(self.server, 0) if atomic else None)
            task = asyncio.create_task(loop.run())
            while not task.done():
                await asyncio.wait([task], timeout=0.5)
                evaluated = appending.done() and loop.committed >= len(self.server.events) and loop.caught_up
                if evaluated and not waits(loop.evaluator):
                    loop.stop()
                    await asyncio.wait([task])
            if not isinstance(task.exception(), ProcessDied):
                task.result()
                break
        for _ in range(10):
            self.server.deliver_late()
        self.left = self.kept()

    def state_of(self, subject: str) -> bytes:
        return self.server.stored()[subject].partition(b"\n")[2]

    def kept(self) -> tuple[dict[str, object], set[str]]:
        """The windows, and the subjects of firings and tasks. Left out is at what moment something happened that no event
        brought: the time of a tick, which is a list's first number in a window, and since when firings are counted and how late they were."""
        windows: dict[str, object] = {}
        for subject in self.server.stored():
            state = self.state_of(subject)
            if ".window." in subject and state:
                value = orjson.loads(state)
                windows[subject] = value[1:] if isinstance(value, list) else value
        counted = window_subject(0, FIRED, "")
        if counted in windows:
            windows[counted] = {name: total.count for name, total in decode_totals(self.state_of(counted))[1].items()}
        return windows, {subject for subject in self.server.stored() if ".firing." in subject or ".action." in subject}


class At(Faults):
    """No faults, but a call at an operation, before it is applied."""

    def __init__(self, number: int, call: Callable[[], object]) -> None:
        super().__init__()
        self._number = number
        self._call = call

    def next(self, operation: str) -> Fault | None:
        fault = super().next(operation)
        if len(self.operations) == self._number + 1:
            self._call()
        return fault


def waits(evaluator: EventEvaluator) -> bool:
    """Whether a deadline is to come within the time of these tests."""
    due = evaluator.next_deadline_us()
    return due is not None and due < now_us() + 10_000_000


SCENES = pytest.mark.parametrize(
    ("events", "make", "fired"), [(COUNTED, counting, 45), (ORDERS, evaluator, 4)], ids=["counting", "rules"]
)


@pytest.mark.takes(3)
@SCENES
def test_a_fault_at_any_operation_changes_no_firing_task_or_window(
    events: Sequence[Event], make: Callable[[], EventEvaluator], fired: int
) -> None:
    async def played(*plans: Mapping[int, Fault], atomic: bool = False) -> Scene:
        scene = Scene(events, make)
        await scene.play(plans, atomic=atomic)
        return scene

    expected = run(played(atomic=True)).left
    assert sum(".firing." in subject for subject in expected[1]) == fired, sorted(expected[1])
    plain = run(played())
    assert plain.left == expected
    assert any(operation.startswith("publish ticks.") for operation in plain.operations[0])
    for number, operation in enumerate(plain.operations[0]):
        for fault in FAULTS:
            scene = run(played({number: fault}))
            assert scene.left == expected, (number, operation, fault)
            assert set(scene.tasks.values()) == {1}, (number, operation, fault)


@pytest.mark.takes(1)
@SCENES
@up_to(60)
@given(data=st.data())
def test_any_faults_of_several_processes_change_no_firing_task_or_window(
    events: Sequence[Event], make: Callable[[], EventEvaluator], fired: int, data: st.DataObject
) -> None:
    faults = st.builds(Fault, st.sampled_from(FaultKind), st.integers(1, 6))
    plans = data.draw(st.lists(st.dictionaries(st.integers(0, 60), faults, max_size=5), max_size=4))

    async def played(atomic: bool) -> Scene:
        scene = Scene(events, make)
        await scene.play([] if atomic else plans, atomic=atomic)
        return scene

    scene = run(played(False))
    assert scene.left == run(played(True)).left
    assert set(scene.tasks.values()) == {1}


@pytest.mark.takes(2)
def test_a_process_that_was_stopped_and_wakes_up_after_a_takeover_is_fenced() -> None:
    async def stopped_at(number: int) -> Scene:
        scene = Scene(COUNTED, counting)
        appending = asyncio.create_task(scene.append())
        old = MemoryConnection(scene.server)
        old.faults = At(number, old.pause)
        task = asyncio.create_task(scene.loop_of(old).run())
        await appending
        new = scene.loop_of(MemoryConnection(scene.server))
        running = asyncio.create_task(new.run())
        while new.committed < len(scene.server.events) or waits(new.evaluator):
            await asyncio.sleep(0.1)
        last = scene.server.publish(MORE)
        while new.committed < last:
            await asyncio.sleep(0.1)
        await asyncio.sleep(3)  # by the clock of this test: an idle shard has stored the numbers of its firings then
        scene.left = scene.kept()
        old.resume()
        with pytest.raises(Fenced):
            await asyncio.wait_for(task, 60)
        assert scene.kept() == scene.left
        new.stop()
        await running
        return scene

    async def plain() -> Scene:
        scene = Scene([*COUNTED, MORE], counting)
        await scene.play()
        return scene

    expected = run(plain())
    claim = 2  # before it, a process that wakes up takes the shard over itself
    for number in range(claim, operations_of(COUNTED, counting)):
        scene = run(stopped_at(number))
        assert scene.left == expected.left, number
        assert set(scene.tasks.values()) == {1}, number


def test_a_loop_that_is_idle_leaves_no_changes_in_its_offset_and_asks_for_no_time() -> None:
    async def idle() -> None:
        scene = Scene(COUNTED[:1], counting)
        process = MemoryConnection(scene.server)
        shard_log = FencedShardLog(process.engine, 0)
        task = asyncio.create_task((loop := scene.loop_of(process, shard_log)).run())
        await scene.append()
        while loop.committed < 1:
            await asyncio.sleep(0.01)
        assert shard_log.carries_changes
        await asyncio.sleep(3)
        assert not shard_log.carries_changes
        count = len(process.faults.operations)
        await asyncio.sleep(3600)
        assert len(process.faults.operations) == count
        loop.stop()
        await task

    run(idle())


SHIPPED = {
    "name": "shipped",
    "trigger": {
        "expect": "order.shipped",
        "after": "order.paid",
        "posture": "proactive",
        "window": "tumbling",
        "within": "10m",
        "for_each": ["id"],
    },
    "actions": ["do-nothing"],
}


def shipped() -> Evaluator:
    return Evaluator(RuleSet.compile([Automation.model_validate(SHIPPED)]))


async def settled(loop: ShardLoop, seq: int) -> None:
    while loop.committed < seq or not loop.caught_up:
        await asyncio.sleep(0.01)


def test_a_shard_that_hears_nothing_moves_its_clock_while_places_of_deleted_windows_are_kept() -> None:
    """So a bucket that was deleted early, and is there again once its place is gone, is over."""

    async def idle() -> None:
        scene = Scene([], shipped)
        process = MemoryConnection(scene.server)
        shard_log = FencedShardLog(process.engine, 0)
        states: list[Kept] = []
        bucket = window_subject(0, shipped().rules.automations["shipped"].leaves[0].id, "a")
        scene.server.on_stored.append(lambda kept: states.append(kept) if kept.subject == bucket else None)
        task = asyncio.create_task((loop := scene.loop_of(process, shard_log)).run())
        await settled(loop, scene.server.publish(event("order.paid", 1, id="b")))
        await asyncio.sleep(300)
        scene.server.publish(event("order.paid", 1000, id="a"))
        await settled(loop, scene.server.publish(event("order.shipped", 1001, id="a")))
        await asyncio.sleep(310)  # the check at the end of the other bucket
        fired = sum(".firing." in subject for subject in scene.server.stored())
        assert states[-1].expires_us, "the bucket is deleted, and its place kept"
        await asyncio.sleep(3 * 3600)
        assert scene.server.get(states[-1].subject) is None
        assert shard_log.offset.clock_us > states[-1].expires_us - 3600 * 1_000_000
        count = len(process.faults.operations)
        await asyncio.sleep(24 * 3600)
        assert len(process.faults.operations) == count
        assert process.faults.operations.count("publish ticks.0") < 8
        loop.stop()
        await task
        assert states[0].data is not None
        scene.server.store([Message(states[0].subject, states[0].data)], subject="", expect=None)
        task = asyncio.create_task((loop := scene.loop_of(MemoryConnection(scene.server))).run())
        await settled(loop, scene.server.publish(event("order.paid", 3, id="z")))
        loop.stop()
        await task
        assert sum(".firing." in subject for subject in scene.server.stored()) == fired == 1

    run(idle())


def test_a_tick_that_was_lost_is_published_again_and_the_deadline_is_met() -> None:
    async def lost() -> list[str]:
        scene = Scene([COUNTED[1]], counting)
        await scene.play()
        first = next(n for n, name in enumerate(scene.operations[0]) if name == "publish ticks.0")
        again = Scene([COUNTED[1]], counting)
        appending = asyncio.create_task(again.append())
        process = MemoryConnection(again.server, Faults({first: Fault(FaultKind.REQUEST_LOST)}))
        task = asyncio.create_task((loop := again.loop_of(process)).run())
        await appending
        while not any(".firing." in subject for subject in again.server.stored()):
            await asyncio.sleep(0.1)
        assert now_us() < int((START_S + 5) * 1_000_000)
        loop.stop()
        await task
        return process.faults.operations

    assert run(lost()).count("publish ticks.0") == 2


def test_rules_hold_from_their_marker_on_and_what_they_ask_for_is_read() -> None:
    async def replaced() -> None:
        evaluator = CountingEvaluator(rules=CountingRules(globs=("order.*",)))
        scene = Scene([], lambda: evaluator)
        stored = StoredRules(CountingRules(globs=("order.*",)))
        task = asyncio.create_task((loop := scene.loop_of(MemoryConnection(scene.server), revisions=stored)).run())
        await loop.ready.wait()
        scene.server.publish(event("other.thing", 1))
        first = scene.server.publish(event("order.created", 2))
        while loop.committed < first:
            await asyncio.sleep(0.01)
        stored.publish(scene.server, CountingRules(globs=("order.*", "other.*")))
        second = scene.server.publish(event("other.thing", 3))
        while loop.committed < second:
            await asyncio.sleep(0.01)
        assert evaluator.processed == [first, second]
        loop.stop()
        await task

    run(replaced())


def test_a_message_that_can_not_be_evaluated_is_skipped_and_reported() -> None:
    skipped: list[int] = []

    class Noting(Observer):
        def unreadable(self, shard: int, seq: int, error: Exception) -> None:
            skipped.append(seq)

    async def evaluate() -> None:
        scene = Scene([], lambda: CountingEvaluator(rules=CountingRules(globs=("*",))))
        loop = scene.loop_of(MemoryConnection(scene.server))
        loop.observer = Noting()
        task = asyncio.create_task(loop.run())
        bad = scene.server.append("events.order.x", b"not json")
        worse = scene.server.publish(event("poison", 1))
        good = scene.server.publish(event("order.created", 2))
        while loop.committed < good:
            await asyncio.sleep(0.01)
        assert skipped == [bad, worse]
        loop.stop()
        await task

    run(evaluate())


def test_a_cancelled_loop_leaves_no_commit_running() -> None:
    async def cancelled_at(number: int) -> None:
        scene = Scene(COUNTED, counting)
        appending = asyncio.create_task(scene.append())
        process = MemoryConnection(scene.server)
        task = asyncio.create_task(scene.loop_of(process).run())
        process.faults = At(number, lambda: asyncio.get_running_loop().call_soon(task.cancel))
        await appending
        await asyncio.wait([task], timeout=30)
        assert task.cancelled()
        count = len(process.faults.operations)
        await asyncio.sleep(30)
        assert len(process.faults.operations) == count
        await scene.play()
        assert scene.left == expected

    async def plain() -> Scene:
        scene = Scene(COUNTED, counting)
        await scene.play()
        return scene

    expected = run(plain()).left
    for number in range(operations_of(COUNTED, counting) - 3):
        run(cancelled_at(number))


def operations_of(events: Sequence[Event], make: Callable[[], EventEvaluator]) -> int:
    """How many operations one process takes to evaluate the events."""

    async def count() -> int:
        scene = Scene(events, make)
        await scene.play()
        return len(scene.operations[0])

    return run(count())
