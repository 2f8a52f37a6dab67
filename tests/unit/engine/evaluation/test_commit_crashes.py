"""Commits over the memory store with a fault at every operation: the outcome is that of a run without faults."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import up_to
from tests.unit.engine.evaluation.virtual_time import now_us, run
from whenthen.engine.bus.batches import MessageTooLarge
from whenthen.engine.bus.records import Message, encode_window
from whenthen.engine.bus.request_client import BusReason, unavailable
from whenthen.engine.bus.subjects import (
    action_subject,
    firing_prefix,
    outcome_of,
    window_part_subject,
    window_subject,
)
from whenthen.engine.evaluation.commits import commit as commit_module
from whenthen.engine.evaluation.commits import commit_division, fenced_offset
from whenthen.engine.evaluation.commits.commit import FencedShardLog
from whenthen.engine.evaluation.log_ports import CommitRefused, Fenced, ShardLog
from whenthen.engine.evaluation.memory_log import MemoryConnection
from whenthen.engine.evaluation.memory_server import Fault, FaultKind, Faults, Kept, MemoryServer, ProcessDied
from whenthen.engine.evaluation.memory_shard_log import MemoryShardLog
from whenthen.schemas.errors import BusUnavailable

Changes = Sequence[Sequence[Message]]
CRASHES = [Fault(FaultKind.CRASH_BEFORE), Fault(FaultKind.CRASH_AFTER)]
FAULTS = [
    *CRASHES,
    Fault(FaultKind.REQUEST_LOST),
    Fault(FaultKind.ANSWER_LOST),
    Fault(FaultKind.REFUSED),
    *(Fault(kind, late_by) for kind in (FaultKind.LATE, FaultKind.DUPLICATED) for late_by in (1, 2, 3, 5)),
]

FEW_FAULTS = [*CRASHES, Fault(FaultKind.REQUEST_LOST), Fault(FaultKind.ANSWER_LOST), Fault(FaultKind.LATE, 2)]


def window(key: str, state: str) -> Message:
    return Message(window_subject(0, "t", key), encode_window("t", key, state.encode()), 0 if state else 3600)


def fired(name: str) -> list[Message]:
    """A firing with two tasks."""
    tasks = [Message(action_subject("a", name, index), f"{name}.{index}".encode(), 3600) for index in range(2)]
    return [Message(firing_prefix("a") + name, name.encode(), 3600), *tasks]


def commit(number: int, more: int = 0) -> list[Message]:
    """Windows that change, come and go, a firing, and so many windows more."""
    return [
        window("k", str(number)),
        window(f"w{number}", "x"),
        window(f"w{number - 1}", ""),
        *fired(f"f{number}"),
        *(window(f"many{n}", str(number)) for n in range(more)),
    ]


#: limits of the commit in these tests, so that few messages make a batch, and a commit beyond one batch
LIMITS = {"SMALL_MESSAGES": 8, "BATCH_MESSAGES": 20}


def limit_to(patch: pytest.MonkeyPatch, limits: Mapping[str, int]) -> None:
    """Let commits have these limits."""
    for name, value in limits.items():
        for module in (commit_module, commit_division):
            if hasattr(module, name):
                patch.setattr(module, name, value)


SMALL: Changes = [commit(1), commit(2), commit(3)]
BATCHES: Changes = [commit(number, 5) for number in (1, 2, 3)]
PREPARED: Changes = [commit(number, 40) for number in (1, 2)]
MIXED: Changes = [commit(1), commit(2, 5), commit(3), [], commit(5, 20), commit(6)]


@pytest.fixture(autouse=True, scope="module")
def limits() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        limit_to(patch, LIMITS)
        for module in (commit_module, fenced_offset):
            patch.setattr(module.log, "disabled", True)  # thousands of warnings
        yield


@dataclass
class Executor:
    """Performs each task as it is stored, or leaves all of them where they are; counts how often each was stored."""

    server: MemoryServer
    performs: bool
    tasks: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.server.on_stored.append(self.stored)

    def stored(self, message: Kept) -> None:
        outcome = outcome_of(message.subject)
        if outcome is None or message.data is None:
            return
        self.tasks[message.subject] += 1
        if self.performs:
            self.server.store([Message(outcome, b"executed", 3600)], subject=outcome, expect=None)
            self.server.delete(message.subject)


@dataclass
class Ended:
    """What was left behind."""

    stored: dict[str, bytes]
    windows: dict[str, bytes]
    tasks: Counter[str]
    operations: list[list[str]]  #: of each process
    server: MemoryServer | None = None


async def evaluate(shard_log: ShardLog, commits: Changes) -> dict[str, bytes]:
    """Load the shard and make the commits after its offset, as a loop would; the windows as they were loaded."""
    windows: dict[str, bytes] = {}
    while True:
        try:
            await shard_log.load(lambda trigger, key, state: windows.__setitem__(key, state))
            break
        except BusUnavailable:
            windows.clear()
            await asyncio.sleep(0.1)
    for seq in range(shard_log.offset.seq + 1, len(commits) + 1):
        await shard_log.commit(commits[seq - 1], seq=seq, clock_us=seq)
        assert (shard_log.offset.seq, shard_log.stored) == (seq, seq)
    return {key: state for key, state in windows.items() if state}


async def with_faults(
    commits: Changes, plans: Sequence[Mapping[int, Fault]], *, performs: bool, copies: int = 1
) -> Ended:
    """One process after the other, each with its faults, until one has come to the end; then one more that only loads."""
    server = MemoryServer(now_us, copies=copies)
    executor = Executor(server, performs)
    operations = []
    for plan in [*plans, {}]:
        process = MemoryConnection(server, Faults(plan))
        operations.append(process.faults.operations)
        try:
            await evaluate(FencedShardLog(process.engine, 0), commits)
        except ProcessDied:
            continue
        break
    for _ in range(10):
        server.deliver_late()
    windows = await evaluate(FencedShardLog(MemoryConnection(server).engine, 0), commits)
    return Ended(data_in(server), windows, executor.tasks, operations, server)


def data_in(server: MemoryServer) -> dict[str, bytes]:
    """What is stored but offsets, probes, and the tombstones of packs."""
    return {
        subject: data
        for subject, data in server.stored().items()
        if not subject.endswith(".offset") and not re.search(r"\.prepared\.|\.probe\.", subject)
    }


async def without_faults(commits: Changes, *, performs: bool) -> Ended:
    """The same through the log that is atomic by construction."""
    server = MemoryServer(now_us)
    executor = Executor(server, performs)
    await evaluate(MemoryShardLog(server, 0), commits)
    windows = await evaluate(MemoryShardLog(server, 0), commits)
    return Ended(data_in(server), windows, executor.tasks, [])


def assert_same(found: Ended, expected: Ended, what: object) -> None:
    assert found.stored == expected.stored, what
    assert found.windows == expected.windows, what
    assert set(found.tasks) == set(expected.tasks), what
    assert set(found.tasks.values()) <= {1}, f"a task was stored twice: {what}"


@pytest.mark.takes(0.4)
@pytest.mark.parametrize("performs", [False, True], ids=["tasks wait", "tasks are performed at once"])
@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("commits", [SMALL, BATCHES, MIXED], ids=["small", "batches", "mixed"])
def test_a_fault_at_any_operation_changes_nothing(commits: Changes, copies: int, performs: bool) -> None:
    async def all_faults() -> None:
        expected = await without_faults(commits, performs=performs)
        plain = await with_faults(commits, [], performs=performs, copies=copies)
        assert_same(plain, expected, "no fault")
        assert len(plain.operations[0]) > len(commits) + 3
        for number, operation in enumerate(plain.operations[0]):
            for fault in FAULTS:
                found = await with_faults(commits, [{number: fault}], performs=performs, copies=copies)
                assert_same(found, expected, (number, operation, fault))

    run(all_faults())


@pytest.mark.takes(2)
@pytest.mark.parametrize("performs", [False, True], ids=["tasks wait", "tasks are performed at once"])
def test_a_crash_at_any_operation_of_a_recovery_from_a_crash_changes_nothing(performs: bool) -> None:
    commits = [commit(1), []]

    async def all_crashes() -> int:
        expected = await without_faults(commits, performs=performs)
        plain = await with_faults(commits, [], performs=performs)
        tried = 0
        for first in range(len(plain.operations[0])):
            for crash in [*CRASHES, Fault(FaultKind.LATE, 3)]:
                second_process = [{first: crash}, {}] if crash in CRASHES else [{first: crash}]
                again = await with_faults(commits, second_process, performs=performs)
                for second in range(len(again.operations[-1])):
                    for other in FEW_FAULTS:
                        plan = (
                            [{first: crash}, {second: other}] if crash in CRASHES else [{first: crash, second: other}]
                        )
                        found = await with_faults(commits, plan, performs=performs)
                        assert_same(found, expected, (first, crash, second, other))
                        tried += 1
        return tried

    assert run(all_crashes()) > 1000


@pytest.mark.parametrize("crash", CRASHES, ids=lambda fault: fault.kind)
def test_two_crashes_at_any_operations_of_commits_beyond_a_batch_leave_them_whole(crash: Fault) -> None:
    async def all_crashes() -> None:
        expected = await without_faults(PREPARED, performs=True)
        plain = await with_faults(PREPARED, [], performs=True)
        for number in range(len(plain.operations[0])):
            for again in range(len(plain.operations[0])):
                found = await with_faults(PREPARED, [{number: crash}, {again: crash}], performs=True)
                assert_same(found, expected, (number, again))

    run(all_crashes())


#: windows that grow, shrink and go, in up to 9 parts; with limits of 60 bytes a part and 300 a batch
SIZES = [(150, 30), (500, 100), (90, 0), (0, 20)]
GROWING: Changes = [
    [window("k", str(number) * size), window("l", "l" * other), window("m", str(number)), *fired(f"f{number}")]
    for number, (size, other) in enumerate(SIZES)
]


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_to(monkeypatch, {"PART_BYTES": 60, "PACK_BYTES": 120, "BATCH_BYTES": 300, "SMALL_BYTES": 200})


def without_parts(ended: Ended) -> Ended:
    """Windows as they are loaded, and everything else as it is stored: parts bear a generation."""
    ended.stored = {key: data for key, data in ended.stored.items() if not re.search(r"\.window\.|\.part\.", key)}
    return ended


@pytest.mark.takes(2)
@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("copies", [1, 3])
def test_windows_in_parts_come_out_whole_of_a_fault_at_any_operation(copies: int) -> None:
    async def all_faults() -> None:
        expected = without_parts(await without_faults(GROWING, performs=True))
        plain = await with_faults(GROWING, [], performs=True, copies=copies)
        assert len(plain.operations[0]) > 30
        left = {key for key, data in plain.stored.items() if data and ".part." in key}
        assert left == {window_part_subject(window("l", "").subject, 1)} or not left
        for number, operation in enumerate(plain.operations[0]):
            for fault in FAULTS:
                found = await with_faults(GROWING, [{number: fault}], performs=True, copies=copies)
                assert_same(without_parts(found), expected, (number, operation, fault))

    run(all_faults())


@pytest.mark.usefixtures("small_parts")
def test_packs_of_a_commit_that_died_before_it_was_certain_are_forgotten() -> None:
    async def crash() -> None:
        plain = await with_faults(GROWING[:2], [], performs=True)
        for number in range(len(plain.operations[0])):
            found = await with_faults(GROWING[:2], [{number: CRASHES[1]}], performs=True)
            server = found.server
            assert server is not None
            assert not [key for key, data in server.stored().items() if ".prepared." in key and data]

    run(crash())


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("limit", [0, 1])
def test_a_server_that_takes_less_than_before_gets_smaller_parts(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a reconnection to another server; it only refuses: messages, and batches, too."""
    monkeypatch.setattr(commit_module, "MIN_PART_BYTES", 10)
    monkeypatch.setattr(commit_module, "MIN_BATCH", 4)

    async def shrink() -> None:
        server = MemoryServer(now_us)
        process = MemoryConnection(server)
        original = server.store

        def store(messages: Sequence[Message], **more: Any) -> int:
            if any(len(each.data) > 110 for each in messages if not each.subject.endswith(".offset")):
                raise MessageTooLarge("110 bytes")
            return original(messages, **more)

        server.store = store  # type: ignore[method-assign]
        server.max_batch = 20 if limit else 7
        log = FencedShardLog(process.engine, 0)
        await log.load(lambda *_: None)
        await log.commit(GROWING[0], seq=1, clock_us=1)
        windows = await evaluate(FencedShardLog(MemoryConnection(server).engine, 0), GROWING[:1])
        assert windows == {"k": b"0" * 150, "l": b"l" * 30, "m": b"0"}

    run(shrink())


def test_a_commit_makes_room_in_a_full_store_and_waits_when_nothing_may_go() -> None:
    async def fill() -> None:
        server = MemoryServer(now_us)
        server.max_bytes = 3000
        log = FencedShardLog(MemoryConnection(server).engine, 0)
        await log.load(lambda *_: None)
        for number in range(1, 60):
            await log.commit([window("k", "x" * 200), *fired(f"f{number}" + "x" * 40)[:1]], seq=number, clock_us=number)
            assert not log.full
        assert any("f59" in subject for subject in server.stored())
        assert not any("f1x" in subject for subject in server.stored())
        waiting = asyncio.create_task(log.commit([window("big", "x" * 4000)], seq=60, clock_us=60))
        while not log.full:
            await asyncio.sleep(0.1)
        server.max_bytes = 20_000
        await waiting
        assert not log.full
        assert (await evaluate(FencedShardLog(MemoryConnection(server).engine, 0), []))["big"] == b"x" * 4000

    run(fill())


def test_a_commit_that_is_refused_again_and_again_is_given_back() -> None:
    async def refuse() -> None:
        server = MemoryServer(now_us)
        log = FencedShardLog(MemoryConnection(server).engine, 0)
        await log.load(lambda *_: None)
        original = server.store

        def store(messages: Sequence[Message], **more: Any) -> int:
            if any(b"poison" in each.data for each in messages):
                raise unavailable("no such luck (10999)", BusReason.REFUSED)
            return original(messages, **more)

        server.store = store  # type: ignore[method-assign]
        with pytest.raises(CommitRefused, match="10999"):
            await log.commit([window("k", "poison"), window("l", "1")], seq=1, clock_us=1)
        assert not await log.takes([window("k", "poison")])
        assert await log.takes([window("l", "1")])
        await log.commit([window("l", "1")], seq=1, clock_us=1)
        assert await evaluate(FencedShardLog(MemoryConnection(server).engine, 0), []) == {"l": b"1"}

    run(refuse())


PLANS = st.lists(
    st.dictionaries(st.integers(0, 40), st.builds(Fault, st.sampled_from(FaultKind), st.integers(1, 6)), max_size=6),
    max_size=4,
)
KEYS = st.sampled_from("abc")
DRAWN = st.lists(
    st.tuples(
        st.dictionaries(KEYS, st.sampled_from(["", "1", "2"]), max_size=3),
        st.integers(0, 2),
        st.sampled_from([0, 0, 5, 30]),
    ),
    max_size=5,
)


@up_to(300)
@given(drawn=DRAWN, plans=PLANS, performs=st.booleans(), copies=st.sampled_from([1, 3]))
def test_any_commits_through_any_faults_store_what_one_process_with_a_lock_would(
    drawn: list[tuple[dict[str, str], int, int]], plans: list[dict[int, Fault]], performs: bool, copies: int
) -> None:
    commits = [
        [
            *(window(key, state) for key, state in states.items()),
            *(message for n in range(firings) for message in fired(f"f{number}-{n}")),
            *(window(f"many{n}", str(number)) for n in range(many)),
        ]
        for number, (states, firings, many) in enumerate(drawn)
    ]

    async def compare() -> None:
        found = await with_faults(commits, plans, performs=performs, copies=copies)
        assert_same(found, await without_faults(commits, performs=performs), plans)

    run(compare())


@pytest.mark.parametrize("commits", [SMALL, BATCHES], ids=["small", "batches"])
def test_a_process_that_stops_at_any_operation_and_wakes_up_after_a_takeover_stores_nothing_more(
    commits: Changes,
) -> None:
    """As SIGSTOP does it, before the request or before its answer. The other process makes the same commits."""

    async def stopped_at(number: int, applied: bool) -> Ended:
        server = MemoryServer(now_us)
        executor = Executor(server, True)
        old = MemoryConnection(server)
        original = old.faults.next

        def pause(operation: str) -> Fault | None:
            fault = original(operation)
            if len(old.faults.operations) == number + 1:
                old.pause()
                if not applied:
                    return Fault(FaultKind.LATE, 2)
            return fault

        old.faults.next = pause  # type: ignore[method-assign]
        task = asyncio.create_task(evaluate(FencedShardLog(old.engine, 0), commits))
        while not old.paused and not task.done():
            await asyncio.sleep(0)
        windows = await evaluate(FencedShardLog(MemoryConnection(server).engine, 0), commits)
        before = server.stored()
        last = len(server.history)
        old.resume()
        reached_the_end = False
        try:
            await task
            reached_the_end = True
        except Fenced:
            pass
        if not reached_the_end:
            assert server.stored() == before
            assert len(server.history) == last
        windows = await evaluate(FencedShardLog(MemoryConnection(server).engine, 0), commits)
        return Ended(data_in(server), windows, executor.tasks, [old.faults.operations])

    async def all_stops() -> None:
        expected = await without_faults(commits, performs=True)
        plain = await with_faults(commits, [], performs=True)
        for number in range(len(plain.operations[0])):
            for applied in (False, True):
                assert_same(await stopped_at(number, applied), expected, (number, applied))

    run(all_stops())


def test_a_replica_that_lags_is_waited_for() -> None:
    async def load() -> None:
        server = MemoryServer(now_us)
        await evaluate(FencedShardLog(MemoryConnection(server).engine, 0), SMALL)
        server.lagging_reads, server.lag_messages = 5, 8
        process = MemoryConnection(server)
        windows = await evaluate(FencedShardLog(process.engine, 0), SMALL)
        assert windows == {"k": b"3", "w3": b"x"}
        assert sum(operation.startswith("read") for operation in process.faults.operations) > 5

    run(load())


def test_two_processes_that_load_at_once_leave_one_that_can_commit() -> None:
    async def race() -> None:
        server = MemoryServer(now_us)
        logs = [FencedShardLog(MemoryConnection(server).engine, 0) for _ in range(4)]
        ends = await asyncio.gather(*(evaluate(each, SMALL) for each in logs), return_exceptions=True)
        assert all(isinstance(end, (dict, Fenced)) for end in ends), ends
        again = await asyncio.gather(*(each.commit([], seq=9, clock_us=9) for each in logs), return_exceptions=True)
        assert sorted(isinstance(end, Fenced) for end in again) == [False, True, True, True]
        assert data_in(server) == (await without_faults(SMALL, performs=False)).stored

    run(race())
