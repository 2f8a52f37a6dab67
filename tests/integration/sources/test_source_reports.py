"""What any process tells of a source: who reads it, since when, what came; sources that one process reads are spread; what left the rules is forgotten."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import nats
import pytest

from tests.integration.conftest import NatsServer
from tests.integration.sources.reading import reading
from tests.patience import until
from whenthen.engine.bus.buckets import KvBucket
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.streams import SOURCES
from whenthen.engine.process.roles import Role
from whenthen.engine.process.senders import reader_reports
from whenthen.engine.process.server import Server
from whenthen.engine.process.settings import load_settings
from whenthen.engine.sources import source_runner
from whenthen.engine.sources.edges.nats_edge import NatsEdge
from whenthen.engine.sources.forgotten_states import forget_states
from whenthen.engine.sources.message_intake import MessageIntake

pytestmark = [pytest.mark.anyio, pytest.mark.takes(40)]

OTHERS = tuple(role for role in Role if role is not Role.SOURCE)


def _put(folder: Path, rules: str) -> None:
    folder.mkdir()
    (folder / "rules.yaml").write_text(rules)


@asynccontextmanager
async def source_process(folder: Path, rules: str, server: NatsServer) -> AsyncIterator[Server]:
    """A process that only reads sources."""
    _put(folder, rules)
    found = load_settings({"data_dir": folder / "data", "nats_url": server.url})
    async with Server(found, folder / "rules.yaml", roles=(Role.SOURCE,)) as made:
        yield made


async def test_any_process_tells_how_a_source_does_in_another(tmp_path: Path, nats_server: NatsServer) -> None:
    theirs = await nats.connect(nats_server.url)
    js = theirs.jetstream()
    await js.add_stream(name="ORDERS", subjects=["orders.>"])
    rules = f"""
sources:
  - name: orders
    read: {{type: nats, url: "{nats_server.url}", stream: ORDERS, existing: report}}
    map: {{event: order.placed, resource: {{id: "order.{{{{ body.n }}}}"}}, id: $.body.n}}
"""
    async with reading(tmp_path, rules, roles=OTHERS, nats_url=nats_server.url) as here:
        item = await here.becomes("orders", "unread", "no process reads it; start one with the role `source`")
        assert (item["readers"], item["last_heard"], item["since"]) == ([], None, None)
        async with (
            source_process(tmp_path / "one", rules, nats_server),
            source_process(tmp_path / "two", rules, nats_server),
        ):
            for body in (b'{"n": 1}', b'{"n": 1}', b'{"n": 2}', b"{"):
                await js.publish("orders.new", body)

            async def told() -> bool:
                found = await here.source("orders")
                counts = (found["taken"], found["duplicates"], found["refused"]) == (4, 1, {"invalid_json": 1})
                readers = [(each["host"], each["process"]) for each in found["readers"]]
                both_read = readers == [(socket.gethostname(), os.getpid())] * 2 and found["state"] == "reading"
                return counts and both_read and bool(found["since"] and found["last_heard"])

            await until(told)
        item = await here.becomes("orders", "unread")
        assert item["last_heard"]  # which outlasts the processes that heard it
    await theirs.close()


async def test_what_a_process_that_died_said_counts_no_more(
    tmp_path: Path, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_reports, "ALIVE_S", 3.0)  # a busy server takes a second to answer
    monkeypatch.setattr(source_runner, "REPORT_EVERY_S", 0.1)
    monkeypatch.setattr(source_runner, "SHOW_EVERY_S", 0.1)
    rules = f"sources:\n  - {{name: orders, read: {{type: nats, url: '{nats_server.url}', subject: 'orders.*'}}}}\n"
    async with reading(tmp_path, rules, roles=OTHERS, nats_url=nats_server.url) as here:
        bus = Bus(nats_server.url)
        await bus.connect()
        async with source_process(tmp_path / "one", rules, nats_server):
            await here.becomes("orders", "reading")
        reports = reader_reports.ReaderReports(bus, member="dead", host="gone", redact=str)
        watch = source_runner.SourceWatch()
        watch.become("reading")

        async def gone_reads() -> bool:
            await reports.store({"orders": watch})
            found = await here.source("orders")
            return found["state"] == "reading" and [each["host"] for each in found["readers"]] == ["gone"]

        await until(gone_reads)
        await here.becomes("orders", "unread")
        monkeypatch.setattr(reader_reports, "FORGOTTEN_S", 0.0)
        other = reader_reports.ReaderReports(bus, member="alive", host="here", redact=str)
        assert await other.others() == []
        assert await reader_reports._reports(bus.client) == []
        await bus.close()


async def test_a_cancellation_that_nobody_asked_for_is_a_trouble_and_the_source_is_read_again(
    tmp_path: Path, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, broken = NatsEdge.run, True

    async def runs(self: NatsEdge, intake: MessageIntake) -> None:
        if broken:
            raise asyncio.CancelledError
        await run(self, intake)

    monkeypatch.setattr(NatsEdge, "run", runs)
    rules = f"sources:\n  - {{name: orders, read: {{type: nats, url: '{nats_server.url}', subject: 'orders.*'}}}}\n"
    async with reading(tmp_path, rules, nats_url=nats_server.url) as here:
        await here.becomes("orders", "trouble", "its client was cancelled by itself")
        broken = False
        assert (await here.becomes("orders", "reading"))["problems"] == []


async def test_sources_that_one_process_reads_are_spread_over_processes(
    tmp_path: Path, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_runner, "BALANCE_EVERY_S", 1.0)
    folders = [tmp_path / f"drops-{number}" for number in range(6)]
    for folder in folders:
        folder.mkdir()
    rules = "sources:\n" + "".join(
        f"  - {{name: {folder.name}, read: {{type: folder, path: '{folder}', stable: 0s}}}}\n" for folder in folders
    )
    async with reading(tmp_path, rules, roles=OTHERS, nats_url=nats_server.url) as here, AsyncExitStack() as stack:

        def held(server: Server) -> int:
            runner = server._running._sources
            assert runner is not None
            return sum(watch.state == "reading" for watch in runner.watches.values())

        one = await stack.enter_async_context(source_process(tmp_path / "one", rules, nats_server))

        async def all_by_one() -> bool:
            return held(one) == 6

        await until(all_by_one)
        two = await stack.enter_async_context(source_process(tmp_path / "two", rules, nats_server))

        async def halved() -> bool:
            return (held(one), held(two)) == (3, 3)

        await until(halved, within_s=40)
        for folder in folders:
            (folder / "new").write_text("x")
        events = await here.come(6)
        assert sorted(each["resource"]["folder"] for each in events) == sorted(map(str, folders))


async def test_what_is_remembered_of_a_source_that_left_the_rules_goes_after_a_while(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    drops = tmp_path / "drops"
    drops.mkdir()
    rules = f"sources:\n  - {{name: drops, read: {{type: folder, path: '{drops}', stable: 0s}}}}\n"
    async with reading(tmp_path, rules, nats_url=nats_server.url) as here:
        await here.becomes("drops", "reading")
        runner = here.server._running._sources
        assert runner is not None
        wanted = runner._remembered()
    bus = Bus(nats_server.url)
    await bus.connect()
    bucket = KvBucket(bus.client, SOURCES)

    async def left() -> set[str]:
        return {message.subject.removeprefix(bucket.prefix) async for message in bucket.newest()}

    before = await left()
    assert {key.partition(".")[0] for key in before} == {"state", "lease"}
    assert await forget_states(bucket, wanted, kept_for=timedelta(0)) == []
    assert await left() == before
    assert await forget_states(bucket, (), kept_for=timedelta(0)) == []  # what is marked now goes the next time
    assert await forget_states(bucket, wanted, kept_for=timedelta(0)) == []  # and not if it is wanted again
    assert await left() == before
    for _ in range(2):
        assert await forget_states(bucket, (), kept_for=timedelta(days=1)) == []
    assert sorted(await forget_states(bucket, (), kept_for=timedelta(0))) == sorted(wanted)
    assert await left() == set()
    await bus.close()
