"""The record of the data's format: who raises it, who stops for it, and what an older process can still do."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import nats.js.errors
import orjson
import pytest
from nats.js import api

from tests.integration.conftest import NatsServer, eventually
from tests.patience import limit
from whenthen import __version__
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.records import FORMAT, LOWEST_READER, Message, Offset
from whenthen.engine.bus.streams import ENGINE, EVENTS, LEASES, STATE, StreamSettings, ensure_streams
from whenthen.engine.evaluation.commits.commit import FencedShardLog
from whenthen.engine.evaluation.nats_log import NatsEngineStore
from whenthen.engine.process.asyncapi.run_messages import FormatMessage
from whenthen.engine.process.roles import Role
from whenthen.engine.process.server import Server
from whenthen.engine.process.settings import load_settings
from whenthen.engine.process.wiring import format_record
from whenthen.engine.process.wiring.format_record import FormatRecord, FormatWatch
from whenthen.schemas.errors import BusUnavailable, SetupError

pytestmark = pytest.mark.anyio

RULES = "automations: [{name: a, trigger: {expect: x}, actions: do-nothing}]\n"
NEWER = FormatRecord(format=FORMAT + 1, lowest_reader=FORMAT + 1, written_by="9.8.7")


async def stored(bus: Bus) -> FormatRecord:
    return FormatRecord.decode((await (await bus.js.key_value(STATE)).get("format")).value or b"")


async def store(bus: Bus, data: bytes) -> None:
    await (await bus.js.key_value(STATE)).put("format", data)


def server_of(folder: Path, url: str, roles: frozenset[Role] = Role.all()) -> Server:
    (folder / "rules.yaml").write_text(RULES)
    settings = load_settings(
        {"data_dir": folder / "data", "nats_url": url, "port": 0, "open_loopback": True, "shards": 1}
    )
    return Server(settings, folder / "rules.yaml", roles=roles)


async def test_the_first_process_writes_the_record_and_the_next_ones_leave_it(bus: Bus) -> None:
    watch = FormatWatch(bus.client)
    await watch.check()
    await asyncio.gather(*(FormatWatch(bus.client).claim() for _ in range(5)))
    entry = await (await bus.js.key_value(STATE)).get("format")
    await watch.claim()
    again = await (await bus.js.key_value(STATE)).get("format")
    assert (again.revision, again.value) == (entry.revision, entry.value)
    assert await stored(bus) == FormatRecord(format=FORMAT, lowest_reader=LOWEST_READER, written_by=__version__)
    FormatMessage.model_validate_json(entry.value or b"")


async def test_a_newer_process_raises_the_record_and_an_older_one_that_runs_stops_and_says_so(
    tmp_path: Path, nats_server: NatsServer, bus: Bus
) -> None:
    server = server_of(tmp_path, nats_server.url)
    async with server:
        assert (await stored(bus)).format == FORMAT
        await FormatWatch(bus.client, own=NEWER).claim()
        with pytest.raises(SetupError) as stopped:
            async with asyncio.timeout(limit(20)):
                await server.stopped()
    for part in ("whenthen 9.8.7", f"format {FORMAT + 1}", f"whenthen {__version__}", "restore a backup"):
        assert part in str(stopped.value)


async def test_an_older_process_does_not_start_on_newer_data_and_changes_nothing(
    tmp_path: Path, nats_server: NatsServer, bus: Bus
) -> None:
    await store(bus, NEWER.encode())
    # what an older process would change at once: a stream that is not as it wants it
    config = (await bus.js.stream_info(ENGINE)).config
    await bus.js.update_stream(config.evolve(max_bytes=77_000_000))
    before = [(await bus.js.stream_info(stream)).state for stream in (ENGINE, EVENTS, f"KV_{STATE}", f"KV_{LEASES}")]
    with pytest.raises(SetupError, match=r"9\.8\.7"):
        async with server_of(tmp_path, nats_server.url):
            pass
    after = [(await bus.js.stream_info(stream)).state for stream in (ENGINE, EVENTS, f"KV_{STATE}", f"KV_{LEASES}")]
    assert after == before
    assert (await bus.js.stream_info(ENGINE)).config.max_bytes == 77_000_000


async def test_a_newer_format_that_older_processes_can_read_stops_none_of_them(bus: Bus) -> None:
    beside = FormatRecord(format=FORMAT + 1, lowest_reader=FORMAT, written_by="9.8.7")
    await store(bus, beside.encode())
    watch = FormatWatch(bus.client)
    await watch.check()
    await watch.claim()
    assert await stored(bus) == beside


@pytest.mark.parametrize("data", [b"", b"no json", b"[]", b'{"format": "3", "lowest_reader": 3, "written_by": "x"}'])
async def test_a_record_that_can_not_be_read_is_no_older_format(bus: Bus, data: bytes) -> None:
    await store(bus, data)
    with pytest.raises(SetupError, match="restore a backup"):
        await FormatWatch(bus.client).check()


async def test_a_process_that_may_not_raise_the_record_waits_for_one_that_may(bus: Bus) -> None:
    waiting = FormatWatch(bus.client, may_write=False)
    with pytest.raises(BusUnavailable, match="role api or evaluator"):
        await waiting.check()
    await FormatWatch(bus.client).claim()
    await waiting.check()
    await waiting.claim()


async def test_no_earlier_version_may_be_at_work_while_the_record_is_written(bus: Bus) -> None:
    sub = await bus.js.pull_subscribe("engine.action.>", durable="actions", stream=ENGINE)
    fetching = asyncio.create_task(sub.fetch(1, timeout=30))

    async def waits() -> bool:
        return (await sub.consumer_info()).num_waiting == 1

    async with asyncio.timeout(limit(20)):
        while not await waits():
            await asyncio.sleep(0.01)
    with pytest.raises(SetupError, match="an executor of an earlier version"):
        await FormatWatch(bus.client).check()
    fetching.cancel()
    await sub.unsubscribe()


async def test_evaluators_of_an_earlier_version_are_noticed_by_their_beats(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = await bus.js.key_value(LEASES)
    await leases.put("member.gone", b"7")
    monkeypatch.setattr(format_record, "LEASE_BEAT_S", 0.2)
    await FormatWatch(bus.client).check()  # it died: nothing changes

    async def beat() -> None:
        for number in range(1000):
            await leases.put("member.alive", str(number).encode())
            await asyncio.sleep(0.02)

    beating = asyncio.create_task(beat())
    await asyncio.sleep(0)
    async with asyncio.timeout(limit(20)):
        while (await bus.js.stream_info(f"KV_{LEASES}")).state.messages < 2:
            await asyncio.sleep(0.01)
    with pytest.raises(SetupError, match="an evaluator of an earlier version"):
        await FormatWatch(bus.client).check()
    beating.cancel()


async def test_streams_of_this_format_can_not_be_made_those_of_format_1_again(bus: Bus) -> None:
    """What a process of format 1 does at its start, before anything else: it knows no record."""
    wanted = api.StreamConfig(
        name=EVENTS,
        subjects=["events.>", "ticks.*"],
        retention=api.RetentionPolicy.LIMITS,
        discard=api.DiscardPolicy.NEW,
        max_age=StreamSettings().events_max_age.total_seconds(),
        max_bytes=StreamSettings().events_max_bytes,
        duplicate_window=StreamSettings().duplicate_window.total_seconds(),
        allow_direct=True,
        num_replicas=1,
        storage=api.StorageType.FILE,
    )
    found = (await bus.js.stream_info(EVENTS)).config
    assert found.subjects != wanted.subjects  # so that it tries
    with pytest.raises(nats.js.errors.APIError, match="deny message deletes"):
        await bus.js.update_stream(wanted)
    await ensure_streams(bus.js, StreamSettings())  # today's still is as it was
    assert (await bus.js.stream_info(EVENTS)).config == found


async def test_a_process_whose_shard_a_newer_one_took_commits_nothing(bus: Bus) -> None:
    old, new = (FencedShardLog(NatsEngineStore(bus.client), 0) for _ in range(2))
    windows: list[object] = []
    await old.load(lambda *window: windows.append(window))
    await old.commit([Message("engine.shard.0.window.t.k", b'["t","k"]\n[1]')], seq=1, clock_us=5)
    await new.load(lambda *window: windows.append(window))
    line = orjson.loads((await bus.js.get_last_msg(ENGINE, "engine.shard.0.offset")).data or b"")
    assert line[0] == LOWEST_READER
    later = orjson.dumps([FORMAT + 1, line[1]])
    await bus.js.publish("engine.shard.0.offset", later)
    last = (await bus.js.stream_info(ENGINE)).state.last_seq
    for shard_log in (old, new):
        with pytest.raises(SetupError, match="later version"):
            await shard_log.commit([Message("engine.shard.0.window.t.k", b'["t","k"]\n[2]')], seq=2, clock_us=6)
    with pytest.raises(SetupError, match="later version"):
        await FencedShardLog(NatsEngineStore(bus.client), 0).load(lambda *_: None)
    assert (await bus.js.stream_info(ENGINE)).state.last_seq == last


def test_an_offset_of_format_1_is_read_and_that_of_today_is_no_object() -> None:
    old = b'{"seq":7,"clock_us":9,"commit":"c","writer":"w","prepared":0,"applied":0}\nPACK'
    offset = Offset.decode(old, 3)
    assert (offset.seq, offset.clock_us, offset.packed, offset.revision) == (7, 9, b"PACK", 3)
    assert Offset.decode(offset.encode(), 3) == offset
    # format 1 asks the line for `.items()`: an AttributeError, before anything is written
    assert isinstance(orjson.loads(offset.encode().partition(b"\n")[0]), list)


async def test_data_of_format_1_are_carried_forward_with_a_line_that_says_so(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    await bus.js.publish(
        "engine.shard.0.offset", b'{"seq":0,"clock_us":0,"commit":"","writer":"w","prepared":0,"applied":0}'
    )
    with caplog.at_level(logging.WARNING):
        await FormatWatch(bus.client).claim()
    assert f"were of format 1 and are carried forward to {FORMAT}" in caplog.text


@pytest.mark.takes(15)
async def test_an_executor_that_starts_first_waits_for_the_record(tmp_path: Path, nats_server: NatsServer) -> None:
    executor = server_of(tmp_path, nats_server.url, frozenset({Role.EXECUTOR}))
    starting = asyncio.create_task(executor.__aenter__())
    (tmp_path / "b").mkdir()
    async with server_of(tmp_path / "b", nats_server.url, frozenset({Role.API, Role.EVALUATOR})):
        await eventually(starting.done)
        await starting
        await executor.__aexit__(None, None, None)
