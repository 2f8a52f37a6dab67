"""Decisions on record over the memory log: killed or fenced at any operation, a shard counts and keeps what it decided, once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from tests.unit.engine.evaluation.test_shard_loop import FAULTS, ORDERS, Scene, evaluator, event
from tests.unit.engine.evaluation.virtual_time import now_us, run
from whenthen.engine.bus.records import Offset, decode_window
from whenthen.engine.bus.request_client import BusReason, unavailable
from whenthen.engine.bus.subjects import offset_subject, window_subject
from whenthen.engine.decisions import RECORDS, CommittedBatches, DecisionRecorder
from whenthen.engine.decisions import recorder as recorder_module
from whenthen.engine.evaluation import shard_loop as loop_module
from whenthen.engine.evaluation.commits import commit as commit_module
from whenthen.engine.evaluation.commits import fenced_offset
from whenthen.engine.evaluation.memory_log import MemoryConnection
from whenthen.engine.evaluation.memory_server import Fault, MemoryServer
from whenthen.engine.evaluation.shard_loop import ShardLoop
from whenthen.schemas.decision_records import DecisionBatch, DecisionRow
from whenthen.schemas.firings import Decision, Reason

#: with reasons of several kinds, and one that comes more often than rows of it are kept
EVENTS = [*ORDERS, *(event("order.paid", number, id="busy") for number in range(8, 16))]
Counts = Counter[tuple[str, str]]


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (commit_module, fenced_offset, loop_module, recorder_module):
            patch.setattr(module.log, "disabled", True)
        patch.setattr(recorder_module, "CHAIN_BYTES", 900)
        patch.setattr(recorder_module, "RECORD_BYTES", 100)
        yield


class Recorded(Scene):
    """A scene whose processes put their decisions on record."""

    def recorder_of(self, process: MemoryConnection) -> DecisionRecorder:
        return recorder_of(process)


def recorder_of(process: MemoryConnection) -> DecisionRecorder:
    return DecisionRecorder(process.decisions, 0, keep=2, monotonic=asyncio.get_running_loop().time)


def offset_of(server: MemoryServer) -> Offset:
    stored = server.get(offset_subject(0))
    assert stored is not None
    return Offset.decode(stored.data or b"", stored.seq)


def read(server: MemoryServer) -> list[DecisionBatch]:
    """All batches that hold, as a reader of the stream finds them."""
    batches = CommittedBatches()
    found: list[DecisionBatch] = []
    for message in server.decisions:
        found += batches.message(message.seq, DecisionBatch.decode(message.data))
    return found + batches.offset(offset_of(server).decisions)


def counts_of(batches: Sequence[DecisionBatch]) -> Counts:
    total: Counts = Counter()
    for batch in batches:
        for name, reasons in batch.counts.items():
            total.update({(name, reason): count for reason, count in reasons.items()})
    return total


def told(row: DecisionRow) -> tuple[Any, ...]:
    """What of a row does not depend on when, and how often, a tick was published."""
    return row.automation, row.reason, row.event, row.path, row.key, row.firing


async def kept(server: MemoryServer) -> tuple[Counts, list[tuple[Any, ...]]]:
    """Counts and last rows as a process that loads the shard finds them."""
    recorder = recorder_of(MemoryConnection(server))
    prefix = window_subject(0, RECORDS, "")[:-1]
    for subject, data in server.stored().items():
        if subject.startswith(prefix):
            _, name, state = decode_window(data)
            recorder.restore(name, state)
    offset = offset_of(server)
    await recorder.load(seq=offset.seq, head=offset.decisions, low=offset.decisions_from)
    total: Counts = Counter()
    rows = []
    for name, each in recorder.kept.items():
        total.update({(name, str(reason)): count for reason, count in each.counts.items()})
        rows += [told(row) for row in each.newest(name)]
    return total, sorted(rows, key=repr)


def decided() -> tuple[Counts, list[tuple[Any, ...]]]:
    """Counts, and the rows of what fired, as one evaluator decides that nothing disturbs."""
    found: list[Decision] = []

    class Listening(Recorded):
        def loop_of(self, *args: Any, **more: Any) -> ShardLoop:
            loop = super().loop_of(*args, **more)
            loop.observer.evaluated = lambda shard, events, decisions, firings: found.extend(decisions)  # type: ignore[method-assign]
            return loop

    run(Listening(EVENTS, evaluator).play(atomic=True))
    fired = [
        (each.automation, each.reason.value, each.event, each.path, each.key, each.firing)
        for each in found
        if each.reason is Reason.FIRED
    ]
    return Counter((each.automation, each.reason.value) for each in found), sorted(fired, key=repr)


@pytest.mark.takes(12)
def test_a_fault_at_any_operation_changes_no_count_and_no_row_of_what_fired() -> None:
    counts, fired = decided()
    assert counts["thrice", "below_threshold"] > 4
    assert len(fired) == 7, fired

    async def played(*plans: Mapping[int, Fault]) -> tuple[Recorded, tuple[Counts, list[tuple[Any, ...]]]]:
        scene = Recorded(EVENTS, evaluator)
        await scene.play(plans)
        return scene, await kept(scene.server)

    plain, last = run(played())
    assert last[0] == counts
    operations = plain.operations[0]
    assert "append decisions" in operations
    plans: list[tuple[Any, ...]] = [
        ({number: fault},) for number in range(len(operations)) for fault in FAULTS
    ]  # and two processes that die one after the other
    plans += [({number: FAULTS[1]}, {number // 2 + 3: FAULTS[0]}) for number in range(len(operations))]
    for each in plans:
        scene, found = run(played(*each))
        batches = read(scene.server)
        assert counts_of(batches) == counts, each
        assert found == (counts, last[1]), each
        rows = sorted((told(row) for batch in batches for row in batch.rows if row.reason == "fired"), key=repr)
        assert rows == fired, each


def test_a_burst_is_counted_and_takes_bounded_room() -> None:
    async def burst() -> tuple[DecisionRecorder, int]:
        server = MemoryServer(now_us)
        recorder = recorder_of(MemoryConnection(server))
        for start in range(0, 100_000, 2000):
            recorder.add(
                [
                    Decision(automation="a", reason=Reason.COOLDOWN, at_us=n, event=f"e{n}", seq=n)
                    for n in range(start, start + 2000)
                ],
                rules=1,
            )
            assert not recorder.full
            await recorder.store(recorder.take(start + 2000), clock_us=start)
        return recorder, sum(len(message.data) for message in server.decisions)

    recorder, size = run(burst())
    assert recorder.kept["a"].counts == {"cooldown": 100_000}
    assert [row.seq for row in recorder.kept["a"].newest("a")] == [99_999, 99_998]
    assert size < 50 * 1000


def test_many_automations_make_a_commit_begin_and_several_parts() -> None:
    async def many() -> tuple[int, list[DecisionBatch]]:
        server = MemoryServer(now_us)
        recorder = recorder_of(MemoryConnection(server))
        number = 0
        while not recorder.full:
            number += 1
            recorder.add(
                [Decision(automation=f"automation-{number}", reason=Reason.FIRED, at_us=1, event="e", seq=number)],
                rules=1,
            )
        stored = await recorder.store(recorder.take(number), clock_us=1)
        assert stored.head == server.decisions[-1].seq
        return number, [DecisionBatch.decode(message.data) for message in server.decisions]

    number, parts = run(many())
    assert len(parts) > 1
    assert {part.parts for part in parts} == {len(parts)}
    assert sum(counts_of(parts).values()) == number
    assert sum(len(part.rows) for part in parts) == number


def test_a_log_that_takes_nothing_stops_no_commit_and_loses_no_count() -> None:
    async def without() -> tuple[Counts, float]:
        server = MemoryServer(now_us)
        process = MemoryConnection(server)

        async def refused(*_: object) -> int:
            raise unavailable("no stream", BusReason.NO_STREAM)

        process.decisions.append = refused  # type: ignore[method-assign, assignment]
        recorder = recorder_of(process)
        started = asyncio.get_running_loop().time()
        for number in (1, 2):
            recorder.add([Decision(automation="a", reason=Reason.LATE, at_us=1, event="e", seq=number)], rules=1)
            stored = await recorder.store(recorder.take(number), clock_us=1)
            assert (stored.head, stored.low) == (0, 0)
            assert [name for name, _ in stored.records] == ["a"], "the commit takes the record itself"
        took = asyncio.get_running_loop().time() - started
        return Counter({("a", reason): count for reason, count in recorder.kept["a"].counts.items()}), took

    counts, took = run(without())
    assert counts == {("a", "late"): 2}
    assert took < recorder_module.GIVE_UP_S + 1, "it is not asked again for each commit"


def test_what_is_kept_of_an_automation_that_is_away_for_long_is_forgotten() -> None:
    async def gone() -> list[list[tuple[str, bytes | None]]]:
        recorder = DecisionRecorder(MemoryConnection(MemoryServer(now_us)).decisions, 0, forget_after_us=100)
        recorder.restore("a", b'[1,1,1,{"late":1},[[["","late",1,"e",10,"","",null,1]]]]')
        recorder.forget_absent(["b"], clock_us=50)
        first = (await recorder.store(None, clock_us=50)).records
        recorder.forget_absent(["b"], clock_us=200)
        return [first, (await recorder.store(None, clock_us=200)).records]

    assert run(gone()) == [[], [("a", None)]]
