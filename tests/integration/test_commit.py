"""The commit against a real server: together or not at all, once, and only for whoever holds the shard."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from tests.integration.conftest import NatsServer, eventually
from whenthen.engine.bus.batches import publish_batch
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.records import Message, encode_window
from whenthen.engine.bus.request_client import BusReason, unavailable
from whenthen.engine.bus.streams import ENGINE
from whenthen.engine.bus.subjects import window_subject
from whenthen.engine.evaluation import nats_log
from whenthen.engine.evaluation.commits.commit import FencedShardLog
from whenthen.engine.evaluation.commits.fenced_offset import read_offset
from whenthen.engine.evaluation.log_ports import Fenced
from whenthen.engine.evaluation.nats_log import NatsEngineStore
from whenthen.schemas.errors import SetupError

pytestmark = pytest.mark.anyio


def window(key: str, state: bytes = b"s", shard: int = 0) -> Message:
    return Message(window_subject(shard, "t", key), encode_window("t", key, state))


def firing(number: int) -> Message:
    return Message(f"engine.firing.a.{number}", b"{}", 3600)


async def loaded(bus: Bus, shard: int = 0) -> tuple[FencedShardLog, dict[str, bytes]]:
    log = FencedShardLog(NatsEngineStore(bus.client), shard)
    windows: dict[str, bytes] = {}

    def keep(trigger: str, key: str, state: bytes) -> None:
        assert trigger == "t"
        windows[key] = state

    await log.load(keep)
    return log, {key: state for key, state in windows.items() if state}


async def count(bus: Bus, subject: str) -> int:
    info = await bus.js.stream_info(ENGINE, subjects_filter=subject)
    return len(info.state.subjects or {})


async def test_what_was_committed_is_loaded_again(bus: Bus) -> None:
    log, windows = await loaded(bus)
    assert (log.offset.seq, windows) == (0, {})
    odd = "a.b *> é" + "k" * 500
    await log.commit([window("one"), window(odd, b"\x00\nraw"), window("gone")], seq=7, clock_us=70)
    await log.commit([window("one", b"two"), window("gone", b"")], seq=9, clock_us=90)
    again, windows = await loaded(bus)
    assert (again.offset.seq, again.offset.clock_us) == (9, 90)
    assert windows == {"one": b"two", odd: b"\x00\nraw"}


@pytest.mark.parametrize("amount", [1, 100])
async def test_whoever_lost_the_shard_is_refused_whole(bus: Bus, amount: int) -> None:
    old, _ = await loaded(bus)
    await old.commit([window("k", b"1")], seq=1, clock_us=1)
    new, windows = await loaded(bus)
    with pytest.raises(Fenced):
        await old.commit([window("k", b"old"), *map(firing, range(amount))], seq=2, clock_us=2)
    await new.commit([window("k", b"new")], seq=2, clock_us=2)
    _, windows = await loaded(bus)
    assert windows == {"k": b"new"}
    assert await count(bus, "engine.firing.>") == 0


async def test_shards_do_not_fence_each_other(bus: Bus) -> None:
    one, _ = await loaded(bus, 1)
    ten, _ = await loaded(bus, 10)
    await one.commit([window("k", b"1", shard=1)], seq=1, clock_us=1)
    await ten.commit([window("k", b"10", shard=10)], seq=2, clock_us=1)
    await one.commit([], seq=3, clock_us=1)
    assert (await loaded(bus, 1))[1] == {"k": b"1"}
    assert (await loaded(bus, 10))[1] == {"k": b"10"}


@pytest.mark.parametrize("amount", [1, 2, 100])
async def test_a_commit_whose_acknowledgement_was_lost_is_applied_once(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, amount: int
) -> None:
    log, _ = await loaded(bus)
    before = log.offset.revision
    lost = []

    async def deaf(*args: object, **kwargs: object) -> int:
        seq = await publish_batch(*args, **kwargs)  # type: ignore[arg-type]
        if not lost:
            lost.append(seq)
            raise unavailable("the answer was lost", BusReason.TIMEOUT)
        return seq

    monkeypatch.setattr(nats_log, "publish_batch", deaf)
    offset = await log.commit([firing(number) for number in range(amount)], seq=5, clock_us=5)
    assert lost == [offset.revision]
    assert (await bus.js.stream_info(ENGINE)).state.last_seq == before + amount + 1
    await log.commit([], seq=6, clock_us=6)
    assert (await bus.js.stream_info(ENGINE)).state.last_seq == before + amount + 2


@pytest.mark.parametrize("amount", [1, 100])
async def test_a_commit_that_arrives_after_it_was_given_up_is_recognised(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, amount: int
) -> None:
    log, _ = await loaded(bus)
    held: list[tuple[tuple[object, ...], dict[str, object]]] = []

    async def late(*args: object, **kwargs: object) -> int:
        if not held:
            held.append((args, kwargs))
            raise unavailable("nothing came back", BusReason.DISCONNECTED)
        if len(held) == 1:
            held.append(((), {}))
            await publish_batch(*held[0][0], **held[0][1])  # type: ignore[arg-type]
        return await publish_batch(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(nats_log, "publish_batch", late)
    await log.commit([window(str(number), b"1") for number in range(amount)], seq=5, clock_us=5)
    await log.commit([window("0", b"2")], seq=6, clock_us=6)
    windows = (await loaded(bus))[1]
    assert windows == {str(number): b"1" for number in range(amount)} | {"0": b"2"}


@pytest.mark.parametrize("amount", [999, 1000, 4500])
async def test_a_commit_of_any_size_is_stored_whole(bus: Bus, amount: int) -> None:
    log, _ = await loaded(bus)
    messages = [window(str(number)) for number in range(amount)]
    offset = await log.commit(messages, seq=3, clock_us=3)
    assert (offset.seq, offset.prepared) == (3, 0)
    _, windows = await loaded(bus)
    assert len(windows) == amount
    await log_commit_is_fenced(log)


async def log_commit_is_fenced(log: FencedShardLog) -> None:
    with pytest.raises(Fenced):
        await log.commit([], seq=4, clock_us=4)


@pytest.mark.parametrize("applied", [0, 1, 3])
async def test_a_large_commit_that_was_interrupted_is_finished_by_whoever_loads_the_shard(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, applied: int
) -> None:
    log, _ = await loaded(bus)
    sent = 0

    async def dying(*args: object, **kwargs: object) -> int:
        nonlocal sent
        if sent == 2 + applied:  # the largest batch is tried, then the packs are named
            raise asyncio.CancelledError
        sent += 1
        return await publish_batch(*args, **kwargs)  # type: ignore[arg-type]

    messages = [firing(number) for number in range(2500)] + [window("k")]
    with monkeypatch.context() as patch:
        patch.setattr(nats_log, "publish_batch", dying)
        with pytest.raises(asyncio.CancelledError):
            await log.commit(messages, seq=3, clock_us=3)
    assert await count(bus, "engine.firing.>") == min(applied * 999, 2500)
    again, windows = await loaded(bus)
    assert await count(bus, "engine.firing.>") == 2500
    assert windows == {"k": b"s"}
    assert (again.offset.seq, again.offset.prepared) == (3, 0)
    last = (await bus.js.stream_info(ENGINE)).state.last_seq
    await loaded(bus)
    assert (await bus.js.stream_info(ENGINE)).state.last_seq == last + 1, "nothing was applied a second time"


async def test_commits_go_on_through_kills_of_the_server_and_none_is_torn(bus: Bus, nats_server: NatsServer) -> None:
    log, _ = await loaded(bus)
    done = 0
    stop = False

    async def committing() -> None:
        nonlocal done
        while not stop:
            value = str(done + 1).encode()
            await log.commit([window(str(key), value) for key in range(400)], seq=done + 1, clock_us=0)
            done += 1

    task = asyncio.create_task(committing())
    for _ in range(5):
        before = done
        await eventually(lambda before=before: done > before + 5)  # type: ignore[misc]
        nats_server.kill()
        nats_server.start()
    before = done
    await eventually(lambda: done > before + 2)
    stop = True
    await task
    again, windows = await loaded(bus)
    assert again.offset.seq == done
    assert set(windows.values()) == {str(done).encode()}
    assert len(windows) == 400


async def test_windows_that_no_commit_covers_are_refused(bus: Bus) -> None:
    log, _ = await loaded(bus)
    original = log._read

    async def torn(*args: object) -> int:
        await bus.js.publish(window("k").subject, window("k").data)
        return await original(*args)  # type: ignore[arg-type]

    log._read = torn  # type: ignore[method-assign]
    with pytest.raises(SetupError, match="no commit covers"):
        await log.load(lambda trigger, key, state: None)


async def test_the_offset_reads_as_json_on_the_command_line(bus: Bus) -> None:
    log, _ = await loaded(bus)
    await log.commit([], seq=5, clock_us=6)
    message = await bus.js.get_last_msg(ENGINE, "engine.shard.0.offset")
    assert message.data is not None
    assert orjson.loads(message.data)[1]["seq"] == 5
    assert (await read_offset(NatsEngineStore(bus.client), 0)) == log.offset
