"""Who holds which shard, over leases in memory and in virtual time: takeover, handover, release, pauses, lost answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.unit.engine.evaluation.virtual_time import now_us, run
from whenthen.cancellation import end_task
from whenthen.engine.evaluation import leases as leases_module
from whenthen.engine.evaluation.leases import LeaseSettings, ShardHolder
from whenthen.engine.evaluation.log_ports import Fenced
from whenthen.engine.evaluation.memory_log import MemoryConnection
from whenthen.engine.evaluation.memory_server import Fault, FaultKind, Faults, MemoryServer, ProcessDied
from whenthen.schemas.errors import SetupError

SETTINGS = LeaseSettings(lease_s=3.0, renew_s=0.5, stop_s=20.0)
SHARDS = 4
FAULTS = [Fault(kind) for kind in FaultKind if not kind.startswith("crash")] + [Fault(FaultKind.LATE, 3)]


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leases_module.log, "disabled", True)
        yield


class Work:
    """A shard's work: runs until it is stopped, and takes `commit_s` to stop."""

    def __init__(self, commit_s: float = 0.0) -> None:
        self.started = self.ended = 0
        self._commit_s = commit_s
        self._stopping = asyncio.Event()
        self.error: BaseException | None = None

    async def run(self) -> None:
        self.started += 1
        try:
            await self._stopping.wait()
            await asyncio.sleep(self._commit_s)
            if self.error is not None:
                raise self.error
        finally:
            self.ended += 1

    def stop(self) -> None:
        self._stopping.set()

    def fail(self, error: BaseException) -> None:
        self.error = error
        self.stop()


class Member:
    """A holder with its connection and all the work that it was ever given."""

    def __init__(self, server: MemoryServer, name: str, *, faults: Faults | None = None, commit_s: float = 0.0) -> None:
        self.process = MemoryConnection(server, faults)
        self.works: list[tuple[int, Work]] = []
        self.commit_s = commit_s
        clock = asyncio.get_running_loop().time
        self.holder = ShardHolder(self.process.leases, SHARDS, self._work, member=name, settings=SETTINGS, clock=clock)
        self.task: asyncio.Task[None] = asyncio.create_task(self.holder.run())

    def _work(self, shard: int) -> Work:
        work = Work(self.commit_s)
        self.works.append((shard, work))
        return work

    @property
    def held(self) -> list[int]:
        return sorted(self.holder.held)

    @property
    def running(self) -> list[int]:
        """The shards whose work runs, whether the lease is held or not."""
        return sorted(shard for shard, work in self.works if work.started > work.ended)


@asynccontextmanager
async def members(*names: str, commit_s: float = 0.0) -> Any:
    server = MemoryServer(now_us)
    found = [Member(server, name, commit_s=commit_s) for name in names]
    try:
        yield [server, *found]
    finally:
        for member in found:
            member.process.resume()
        await end_task(*(member.task for member in found))


async def until(condition: Callable[[], object], within_s: float) -> float:
    """Wait until `condition()`; how many seconds it took."""
    now = asyncio.get_running_loop().time
    began = now()
    while not condition():
        assert now() < began + within_s, "not in time"
        await asyncio.sleep(0.01)
    return now() - began


def shared(*found: Member) -> bool:
    """Whether each shard is held once, and fairly."""
    held = [shard for member in found for shard in member.held]
    sizes = [len(member.held) for member in found]
    return sorted(held) == list(range(SHARDS)) and max(sizes) - min(sizes) <= 1


def test_two_holders_share_the_shards_and_nothing_moves_afterwards() -> None:
    async def scene() -> None:
        async with members("one", "two") as (_, one, two):
            await until(lambda: shared(one, two), 5)
            await asyncio.sleep(5)
            before = one.held, two.held
            await asyncio.sleep(3600)
            assert (one.held, two.held) == before
            assert one.running == one.held
            assert two.running == two.held

    run(scene())


def test_a_member_that_comes_gets_its_share_and_no_shard_is_evaluated_twice() -> None:
    async def scene() -> None:
        async with members("one", commit_s=2.0) as (server, one):
            await until(lambda: one.held == [0, 1, 2, 3], 5)
            two = Member(server, "two")
            async with asyncio.timeout(60):
                while not shared(one, two):
                    assert not set(one.running) & set(two.running), "it was taken before the old holder had committed"
                    await asyncio.sleep(0.01)
            two.holder.stop()
            await two.task
            assert await until(lambda: one.held == [0, 1, 2, 3], 5) <= SETTINGS.lease_s + 2 * SETTINGS.renew_s

    run(scene())


def test_a_member_that_leaves_commits_and_releases_its_leases_at_once() -> None:
    async def scene() -> None:
        async with members("one", "two", commit_s=1.0) as (server, one, two):
            await until(lambda: shared(one, two), 10)
            one.holder.stop()
            await one.task
            assert one.running == []
            assert "member.one" not in {entry.key for entry in server.leases.values() if entry.value}
            # the lease time is not waited for: the entries say that nobody holds them
            assert await until(lambda: two.held == [0, 1, 2, 3], 5) <= 2 * SETTINGS.renew_s

    run(scene())


def test_the_shards_of_a_member_that_died_are_taken_after_the_time_of_a_lease() -> None:
    async def scene() -> None:
        async with members("one", "two") as (_, one, two):
            await until(lambda: shared(one, two), 5)
            await until(lambda: sorted(two.holder.held_elsewhere) == one.held, 2)
            one.process.faults.died = True
            await asyncio.wait([one.task], timeout=2)
            assert isinstance(one.task.exception(), ProcessDied)
            took = await until(lambda: two.held == [0, 1, 2, 3], 10)
            assert SETTINGS.lease_s - 2 * SETTINGS.renew_s <= took <= SETTINGS.lease_s + 2 * SETTINGS.renew_s
            assert two.holder.held_elsewhere == []

    run(scene())


@pytest.mark.parametrize("pause_s", [1.0, 2.4, 3.1, 4.0, 10.0, 300.0])
def test_a_member_that_is_stopped_for_a_while_holds_nothing_beyond_its_lease_and_gets_its_share_again(
    pause_s: float,
) -> None:
    """As SIGSTOP does it: nothing of the process runs, and its clock has jumped when it wakes up."""

    async def scene() -> None:
        async with members("one", "two") as (_, one, two):
            await until(lambda: shared(one, two), 5)
            before = one.held, two.held
            one.process.pause()
            await asyncio.sleep(pause_s)
            assert not set(one.held) & set(two.held), "by the clocks of both, a shard has one holder"
            if pause_s > SETTINGS.lease_s + 2 * SETTINGS.renew_s:
                assert (one.held, two.held) == ([], [0, 1, 2, 3])
            one.process.resume()
            await asyncio.sleep(2 * SETTINGS.renew_s)
            assert not set(one.running) & set(two.running), "the work of a lease that was taken is cancelled"
            await until(lambda: shared(one, two), 10)
            if pause_s < SETTINGS.lease_s - 2 * SETTINGS.renew_s:
                assert (one.held, two.held) == before

    run(scene())


def test_a_lease_that_only_lapsed_goes_on_and_is_renewed() -> None:
    """With nobody there to take it, stopping would be downtime."""

    async def scene() -> None:
        async with members("one") as (_, one):
            await until(lambda: one.held == [0, 1, 2, 3], 5)
            one.process.pause()
            await asyncio.sleep(60)
            assert one.held == []
            assert one.running == [0, 1, 2, 3]
            one.process.resume()
            await until(lambda: one.held == [0, 1, 2, 3], 2)
            assert [work.started for _, work in one.works] == [1, 1, 1, 1]

    run(scene())


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.kind}-{fault.late_by}")
def test_a_fault_at_any_operation_leaves_every_shard_with_one_holder(fault: Fault) -> None:
    async def scene(number: int) -> int:
        server = MemoryServer(now_us)
        one = Member(server, "one", faults=Faults({number: fault}))
        two = Member(server, "two")
        await asyncio.sleep(8)
        assert shared(one, two), number
        assert (one.running, two.running) == (one.held, two.held), number
        operations = len(one.process.faults.operations)
        for member in (one, two):
            member.holder.stop()
            await member.task
        entries = [entry for entry in server.leases.values() if entry.value]
        assert all(b'"holder":""' in entry.value for entry in entries), entries
        return operations

    for number in range(run(scene(10**9))):
        run(scene(number))


def test_an_entry_that_was_deleted_by_hand_is_written_again() -> None:
    async def scene() -> None:
        async with members("one", "two") as (server, one, two):
            await until(lambda: shared(one, two), 5)
            for shard in range(SHARDS):
                server.put_lease(f"shard.{shard}", b"")
            await asyncio.sleep(1)
            await until(lambda: shared(one, two) and one.running == one.held and two.running == two.held, 10)

    run(scene())


def test_work_that_was_fenced_or_failed_is_begun_again_and_a_setup_error_ends_the_holder() -> None:
    async def scene() -> None:
        async with members("one") as (_, one):
            await until(lambda: one.held == [0, 1, 2, 3], 5)
            for error in (Fenced("taken"), RuntimeError("a bug")):
                shard, work = one.works[-1]
                work.fail(error)
                await asyncio.sleep(2 * SETTINGS.renew_s)
                assert one.held == one.running == [0, 1, 2, 3]
                assert one.works[-1][0] == shard
            one.works[-1][1].fail(SetupError("the store is damaged"))
            with pytest.raises(SetupError, match="damaged"):
                await one.task
            assert one.running == []

    run(scene())


def test_work_that_does_not_stop_is_cancelled_so_that_it_can_be_handed_over() -> None:
    async def scene() -> None:
        async with members("one", commit_s=10_000) as (server, one):
            await until(lambda: one.held == [0, 1, 2, 3], 5)
            two = Member(server, "two")
            took = await until(lambda: shared(one, two), 60)
            assert SETTINGS.stop_s <= took <= SETTINGS.stop_s + 4 * SETTINGS.renew_s
            await end_task(two.task)

    run(scene())


def test_the_entries_of_members_that_are_long_gone_are_deleted() -> None:
    async def scene() -> None:
        async with members("one", "two") as (server, one, two):
            await until(lambda: shared(one, two), 5)
            two.process.faults.died = True
            await asyncio.sleep(leases_module.MEMBER_LEASES * SETTINGS.lease_s + 2)
            assert server.leases["member.two"].value == b""
            assert one.held == [0, 1, 2, 3]
            two.task.exception()

    run(scene())
