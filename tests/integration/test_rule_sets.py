"""One set of rules for all processes: revisions in NATS, markers in `EVENTS`, and what each process does about them."""

from __future__ import annotations

import asyncio
import base64
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests import forks
from tests.chaos.oracle import Oracle, read_stream
from tests.integration.conftest import NatsServer
from tests.integration.running_server import RunningServer
from tests.patience import limit, until
from whenthen.engine.bus.batches import StaleBatch
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.records import Message
from whenthen.engine.bus.streams import ENGINE, EVENTS, RULES, StreamSettings, ensure_streams
from whenthen.engine.evaluation import NatsEngineStore, read_offset
from whenthen.engine.process.server import Server
from whenthen.engine.process.settings import load_settings
from whenthen.engine.rule_sets import (
    Revision,
    RevisionDamaged,
    RevisionHow,
    RevisionNotUnderstood,
    RevisionStore,
    RevisionTaken,
    RulesFull,
    revision_store,
)
from whenthen.rules import SourceFile, load_rules
from whenthen.schemas.errors import SetupError

pytestmark = pytest.mark.anyio

PAIR = "automations: [{name: pair, trigger: {expect: half.done, threshold: 2, within: 1h}, actions: do-nothing}]\n"
OTHER = "automations: [{name: other, trigger: {expect: x}, actions: do-nothing}]\n"
THIRD = "automations: [{name: third, trigger: {expect: y}, actions: do-nothing}]\n"


def revision(digest: str = "d", **fields: Any) -> Revision:
    return Revision(
        number=0, digest=digest, at="2026-01-31T00:00:00Z", who="ana", host="h", how=RevisionHow.APPLY, **fields
    )


def source(name: str, text: str, **fields: Any) -> SourceFile:
    return SourceFile(name=name, raw=text.encode(), **fields)


def folder_of(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rules.yaml").write_text(text)
    return folder


async def markers(bus: Bus) -> list[int]:
    return [int(each.subject.partition(".")[2]) async for each in read_stream(bus, EVENTS, "rules.*")]


# -- the store


@pytest.fixture
async def small_bus(tmp_path: Path) -> AsyncIterator[Bus]:
    """A stock server: messages of 1 MiB."""
    server = NatsServer(tmp_path / "small", extra="max_payload: 1048576")
    server.start()
    bus = Bus(server.url)
    await bus.connect()
    await ensure_streams(bus.js, StreamSettings())
    yield bus
    await bus.close()
    server.stop()


async def test_files_of_any_size_come_back_as_they_were_from_a_stock_server(small_bus: Bus) -> None:
    store = RevisionStore(small_bus)
    assert await store.current() is None
    noise = base64.b64encode(random.Random(1).randbytes(3 << 20)).decode()
    files = [source("a.yaml", noise), source("b/ü.yaml", "x: 1\n", held=True), source("c.yaml", "")]
    first = await store.publish(revision("one"), files, after=None)
    assert (first.number, first.listing.parts) == (1, 1)
    again = await store.current()
    assert again == first
    found = await store.files(first)
    assert [(file.name, file.raw, file.held) for file in found] == [(file.name, file.raw, file.held) for file in files]
    before = (await small_bus.js.stream_info(RULES)).state.bytes
    second = await store.publish(revision("two"), [*files, source("d.yaml", "more")], after=first)
    assert second.number == 2
    # texts that the revision before has are not stored again
    assert (await small_bus.js.stream_info(RULES)).state.bytes - before < 10_000
    await small_bus.store("rulesets.revision.x", b"{}")  # is nobody's record
    assert await store.current() == second
    assert [each.number for each in await store.revisions()] == [2, 1]
    assert await store.revision(1) == first


async def test_of_two_that_publish_at_once_one_wins_and_the_other_is_told_who(bus: Bus) -> None:
    stores = [RevisionStore(bus), RevisionStore(bus)]
    first = await stores[0].publish(revision("one"), [], after=None)
    results = await asyncio.gather(
        *(store.publish(revision(f"by {number}"), [], after=first) for number, store in enumerate(stores)),
        return_exceptions=True,
    )
    (won,) = [each for each in results if isinstance(each, Revision)]
    (lost,) = [each for each in results if isinstance(each, RevisionTaken)]
    assert (won.number, lost.winner) == (2, won)
    assert "by ana on h" in str(lost)
    with pytest.raises(RevisionTaken):
        await stores[0].publish(revision("late"), [], after=first)


async def test_a_marker_is_written_once_and_before_the_next_revision(bus: Bus) -> None:
    store = RevisionStore(bus)
    first = await store.publish(revision("one"), [], after=None)
    assert (await markers(bus), await store.published_as("one")) == ([], 0)
    assert await store.settle(first) > 0
    assert await store.settle(first) == 0
    assert (await markers(bus), await store.published_as("one")) == ([1], 1)
    second = await store.publish(revision("two"), [], after=first)  # whose publisher dies here
    third = await store.publish(revision("three"), [], after=second)
    assert await markers(bus) == [1, 2]
    await asyncio.gather(*(RevisionStore(bus).settle(third) for _ in range(5)))
    assert await markers(bus) == [1, 2, 3]

    async def marked_again() -> bool:
        await store.settle(third)
        return await markers(bus) == [3]

    await ensure_streams(bus.js, StreamSettings(duplicate_window=timedelta(milliseconds=200)))
    await bus.js.purge_stream(EVENTS)  # expired unread
    await until(marked_again)


@pytest.mark.parametrize("damage", ["cut off", "another text", "gone", "no list", "no record", "a later format"])
async def test_what_is_damaged_is_said_and_never_taken_for_rules(bus: Bus, damage: str) -> None:
    store = RevisionStore(bus)
    stored = await store.publish(revision("one"), [source("a.yaml", "x: 1\n" * 100)], after=None)
    subjects = (await bus.js.stream_info(RULES, subjects_filter="rulesets.text.>")).state.subjects or {}
    (text,) = [each for each in subjects if stored.listing.digest not in each]
    data = (await bus.js.get_last_msg(RULES, text)).data or b""
    record = "rulesets.revision.1"
    changes = {
        "cut off": (text, data[: len(data) // 2]),
        "another text": (text, (await bus.js.get_last_msg(RULES, f"rulesets.text.{stored.listing.digest}.0")).data),
        "no list": (f"rulesets.text.{stored.listing.digest}.0", data),
        "no record": (record, b"{"),
        "a later format": (record, orjson.dumps({"format": 9})),
    }
    if damage == "gone":
        await bus.js.purge_stream(RULES, subject=text)
    else:
        subject, changed = changes[damage]
        await bus.store(subject, changed or b"")
    found = await store.current()
    assert found is not None
    with pytest.raises(
        RevisionNotUnderstood if damage == "a later format" else RevisionDamaged, match="revision 1 of the rules"
    ):
        await store.files(found)
    files = [source("a.yaml", "x: 1\n" * 100)]
    follower = await store.publish(revision("two"), files, after=found, store_all=True)
    assert (follower.number, len(await store.files(follower))) == (2, 1)


async def test_the_last_revisions_are_kept_and_those_that_a_shard_needs(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revision_store, "REVISIONS_KEPT", 3)
    monkeypatch.setattr(revision_store, "SLACK", 1)
    store = RevisionStore(bus)
    last: Revision | None = None
    for number in range(1, 9):
        last = await store.publish(
            revision(f"r{number}"), [source("a.yaml", f"n: {number}"), source("same.yaml", "s")], after=last
        )
        await store.settle(last)
    assert await store.collect(needed_from=4) == 3
    assert [each.number for each in await store.revisions()] == [8, 7, 6, 5, 4]
    assert await store.collect(needed_from=99) == 2
    kept = await store.revisions()
    assert [each.number for each in kept] == [8, 7, 6]
    for each in kept:
        assert len(await store.files(each)) == 2
    subjects = (await bus.js.stream_info(RULES, subjects_filter="rulesets.text.>")).state.subjects or {}
    assert len(subjects) == 7  # three lists, three files, and the one that all have
    assert await store.published_as("r1") == 1


async def texts_of(bus: Bus) -> set[str]:
    """The texts that are stored, by digest."""
    subjects = (await bus.js.stream_info(RULES, subjects_filter="rulesets.text.>")).state.subjects or {}
    return {subject.split(".")[2] for subject in subjects}


async def test_texts_that_no_revision_names_go_and_those_of_a_publication_under_way_are_stored_again(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, others = RevisionStore(bus), RevisionStore(bus)
    first = await mine.publish(revision("one"), [source("a.yaml", "n: 1")], after=None)
    before = await texts_of(bus)
    await bus.store("rulesets.text.ffff.0", b"of a publisher that died")
    store_record, refused = mine._store_record, 0

    async def collected_meanwhile(record: Message, position: int) -> None:
        nonlocal refused
        if not refused:
            assert len(await texts_of(bus)) == len(before) + 3  # a file, the list, and the one of nobody
            await others.collect_texts()
            assert await texts_of(bus) == before
        try:
            await store_record(record, position)
        except StaleBatch:
            refused += 1
            raise

    monkeypatch.setattr(mine, "_store_record", collected_meanwhile)
    second = await mine.publish(revision("two"), [source("a.yaml", "n: 2")], after=first)
    assert refused == 1
    assert [file.raw for file in await others.files(second)] == [b"n: 2"]
    assert await others.current() == second
    assert await others.revisions() == [second, first]


async def test_texts_stored_after_a_collection_has_begun_are_left_alone(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, others = RevisionStore(bus), RevisionStore(bus)
    first = await mine.publish(revision("one"), [source("a.yaml", "n: 1")], after=None)
    texts = others._texts
    published: list[Revision] = []

    async def published_meanwhile() -> set[str]:
        found = await texts()
        # `others` has read which texts revisions name
        published.append(await mine.publish(revision("two"), [source("a.yaml", "n: 2")], after=first))
        return found | await texts()

    monkeypatch.setattr(others, "_texts", published_meanwhile)
    await others.collect_texts()
    (second,) = published
    assert [file.raw for file in await others.files(second)] == [b"n: 2"]


async def test_a_set_of_rules_that_does_not_fit_is_refused_and_nothing_is_stored(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    server.start()
    bus = Bus(server.url)
    await bus.connect()
    try:
        await ensure_streams(bus.js, StreamSettings(rules_max_bytes=2 << 20))
        store = RevisionStore(bus)

        def noise(seed: int) -> SourceFile:
            return source("a.yaml", base64.b64encode(random.Random(seed).randbytes(800 << 10)).decode())

        first = await store.publish(revision("one"), [noise(1)], after=None)
        second = await store.publish(revision("two"), [noise(2)], after=first)
        await store.settle(second)
        before = (await bus.js.stream_info(RULES)).state
        with pytest.raises(
            RulesFull, match=r"need 1\.1 MB more, .* free beside the 2 revisions that it keeps; raise `rules_bytes`"
        ):
            await store.publish(revision("three"), [noise(3)], after=second)
        after = (await bus.js.stream_info(RULES)).state
        assert after.messages == before.messages
        assert abs(after.bytes - before.bytes) < 100  # the record was stored once more, and its position may be longer
        assert await store.current() == second
        # what fits without texts that nobody needs is taken
        small = [source("b.yaml", base64.b64encode(random.Random(4).randbytes(100 << 10)).decode())]
        await asyncio.gather(*(bus.store(f"rulesets.text.dead.{part}", bytes(50 << 10)) for part in range(4)))
        assert (await store.publish(revision("small"), small, after=second)).number == 3
        assert "dead" not in await texts_of(bus)
    finally:
        await bus.close()
        server.stop()


# -- processes


class Running(RunningServer):
    async def post(self, path: str, body: Any) -> httpx.Response:
        return await self.client.post(path, json=body)

    async def emit(self, name: str, resource: str = "r") -> None:
        event = {"event": name, "resource": {"id": resource}}
        while (answer := await self.client.post("/api/events", json=event)).status_code == 503:
            await asyncio.sleep(0.05)
        answer.raise_for_status()

    async def reload(self) -> dict[str, Any]:
        return dict((await self.client.post("/api/rules/reload")).raise_for_status().json())

    async def has(self, *names: str) -> bool:
        return self.names() == sorted(names)

    async def fires(self, automation: str) -> bool:
        return bool(await self.get(f"/api/firings?automation={automation}&limit=1"))

    async def fired(self, automation: str, times: int) -> bool:
        return len(await self.get(f"/api/firings?automation={automation}&limit=1000")) == times


@asynccontextmanager
async def running(nats: NatsServer, rules: Path | None, folder: Path, **options: Any) -> AsyncIterator[Running]:
    roles = options.pop("roles", None)
    settings = load_settings({"data_dir": folder / "data", "port": 0, "nats_url": nats.url, **options})
    async with Server(settings, rules, **({"roles": roles} if roles else {})) as server:
        client = httpx.AsyncClient(base_url=server.address or "http://none", trust_env=False, timeout=limit(60))
        async with client:
            yield Running(server, client)


async def test_a_start_publishes_what_was_never_published_and_follows_otherwise(
    nats_server: NatsServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = folder_of(tmp_path / "old", PAIR), folder_of(tmp_path / "new", OTHER)
    async with running(nats_server, old, tmp_path / "a") as now:
        assert (await now.get("/api/status"))["rules"]["number"] == 1
    async with running(nats_server, new, tmp_path / "a") as now:
        status = await now.get("/api/status")
        assert (status["rules"]["number"], status["notes"], now.names()) == (2, [], ["other"])
    caplog.clear()
    async with running(nats_server, old, tmp_path / "a") as now:
        status = await now.get("/api/status")
        assert (status["rules"]["number"], now.names()) == (2, ["other"])
        digests = load_rules(old).revision, load_rules(new).revision
        for said in (status["notes"][0], caplog.text):
            assert f"(digest {digests[0]}) are not in force: revision 2 ({digests[1]}) is" in said
            assert "`whenthen apply` publishes them" in said
        assert "whenthen_rules_files_differ 1.0" in await now.metrics()
        # a change of the files is published, whatever was published before
        folder_of(old, THIRD)
        await now.reload()  # unless the watcher took it already
        assert now.names() == ["third"]
        folder_of(old, PAIR)
        await now.reload()
        status = await now.get("/api/status")
        assert (status["rules"]["number"], status["notes"], now.names()) == (4, [], ["pair"])
        assert "whenthen_rules_files_differ 0.0" in await now.metrics()
        assert "whenthen_rules_revision 4.0" in await now.metrics()


async def test_a_process_without_a_rules_folder_runs_on_the_stored_rules_and_follows_them(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    rules = folder_of(tmp_path / "rules", PAIR)
    async with running(nats_server, rules, tmp_path / "a") as a, running(nats_server, None, tmp_path / "b") as b:
        assert b.names() == ["pair"]
        folder_of(rules, OTHER)
        await a.reload()
        await until(lambda: b.has("other"))
        assert (await b.get("/api/status"))["rules"]["path"] == ""


async def test_without_files_and_without_a_revision_a_process_says_what_is_missing(
    nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from whenthen.engine.process.revisions import rules_at_start

    monkeypatch.setattr(rules_at_start, "WAIT_S", 0.2)
    with pytest.raises(SetupError, match="no rules are published"):
        async with running(nats_server, None, tmp_path):
            pass


async def test_a_process_with_older_rules_that_takes_a_shard_uses_the_revision_of_its_offset_and_deletes_nothing(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    old, new = folder_of(tmp_path / "old", OTHER), folder_of(tmp_path / "new", OTHER)
    (new / "pair.yaml").write_text(PAIR)
    async with running(nats_server, old, tmp_path / "a") as a, running(nats_server, new, tmp_path / "b") as b:
        await b.emit("half.done")
        await until(lambda: a.has("other", "pair"))
    async with running(nats_server, old, tmp_path / "a") as a:
        assert a.names() == ["other", "pair"]
        await a.emit("half.done")
        await until(lambda: a.fired("pair", 1))
        assert await a.get("/api/orphans") == []
        assert (await a.get("/api/status"))["shard_rules"] == {"0": 2}


async def test_a_publisher_that_is_killed_before_the_marker_leaves_it_to_the_others(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    rules, new = folder_of(tmp_path / "rules", PAIR), folder_of(tmp_path / "new", OTHER)
    program = f"""
import asyncio, os, signal
from pathlib import Path
from whenthen.engine.bus.connection import Bus
from whenthen.engine.execution import SpecStore
from whenthen.engine.process.revisions.rule_publishing import RulePublisher
from whenthen.engine.rule_sets import RevisionHow, RevisionStore
from whenthen.rules import load_rules

class Dying(RevisionStore):
    async def settle(self, revision):
        if revision.number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return await super().settle(revision)

async def main():
    bus = Bus({nats_server.url!r})
    await bus.connect()
    store = Dying(bus)
    publisher = RulePublisher(store, SpecStore(bus.client), path=Path({str(new)!r}))
    await publisher.publish(load_rules({str(new)!r}), RevisionHow.APPLY, after=await store.current())

asyncio.run(main())
"""
    async with running(nats_server, rules, tmp_path / "a") as now:
        ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], timeout=limit(60), check=False)
        assert ended.returncode == -signal.SIGKILL
        await until(lambda: now.has("other"))
        await now.emit("x")
        await until(lambda: now.fired("other", 1))
        assert await markers(now.server.bus) == [1, 2]


async def test_a_current_revision_that_is_damaged_leaves_the_last_good_one_in_force_and_files_mend_it(
    nats_server: NatsServer, tmp_path: Path, bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = folder_of(tmp_path / "old", PAIR), folder_of(tmp_path / "new", OTHER)
    async with running(nats_server, old, tmp_path / "a"):
        pass
    store = RevisionStore(bus)
    rules = load_rules(new)
    second = await store.publish(revision(rules.revision), rules.files_read, after=await store.current())
    for subject in (await bus.js.stream_info(RULES, subjects_filter="rulesets.text.>")).state.subjects or {}:
        if second.listing.digest in subject:
            await bus.store(subject, b"cut off")
    await store.settle(second)
    async with running(nats_server, None, tmp_path / "b") as now:
        assert now.names() == ["pair"]
        await until(lambda: _noted(now, "is damaged"))
        assert "revision 1 of the rules stays in force here" in (await now.get("/api/status"))["notes"][0]
        assert "whenthen_rules_unusable 1.0" in await now.metrics()
        assert "`whenthen apply`" in caplog.text
        await now.emit("half.done")
        await now.emit("half.done")
        await until(lambda: now.fired("pair", 1))  # shards pass its marker
        # a process that has the very files mends it
        async with running(nats_server, new, tmp_path / "c") as mender:
            await until(lambda: now.has("other"))
            await mender.emit("x")
            await until(lambda: mender.fired("other", 1))
            assert (await now.get("/api/status"))["notes"] == []
            assert [each.number for each in await store.revisions()] == [3, 2, 1]


async def _noted(now: Running, text: str) -> bool:
    return text in " ".join((await now.get("/api/status"))["notes"])


async def test_rules_of_a_later_version_stop_shards_at_their_marker_and_processes_say_so(
    nats_server: NatsServer, tmp_path: Path, bus: Bus
) -> None:
    rules = folder_of(tmp_path / "rules", PAIR)
    async with running(nats_server, rules, tmp_path / "a") as now:
        store = RevisionStore(bus)
        current = await store.current()
        newer = PAIR.replace("threshold", "treshhold_of_tomorrow")
        published = await store.publish(
            revision(_digest(tmp_path / "n", newer)), [source("rules.yaml", newer)], after=current
        )
        await store.settle(published)
        await now.emit("half.done")
        await until(lambda: _noted(now, "published by another version"))
        await until(lambda: _stalled(now))
        assert now.names() == ["pair"]
        assert any("revision 2 of the rules, which this version can not use" in each for each in now.server.missing())
        offset = await read_offset(NatsEngineStore(bus.client), 0)
        assert offset.rules == 1
        assert [each.seq > offset.seq async for each in read_stream(bus, EVENTS, "rules.2")] == [True]


async def _stalled(now: Running) -> bool:
    return bool(now.server.missing())


def _digest(folder: Path, text: str) -> str:
    """Of a set that this version refuses."""
    import hashlib

    digest = hashlib.sha256()
    raw = text.encode()
    digest.update(f"10:rules.yaml:{len(raw)}:".encode() + raw)
    return digest.hexdigest()[:16]


# -- on request


def command(now: Running, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """A `whenthen` command against a server."""
    arguments = [*map(str, words), "--url", now.server.address]
    return forks.run(arguments, env=os.environ, within_s=60)


async def test_plan_apply_and_rollback_say_what_changes_and_every_process_follows(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    rules, new = folder_of(tmp_path / "rules", PAIR), folder_of(tmp_path / "new", THIRD)
    (new / "more.yaml").write_text(PAIR.replace("threshold: 2", "threshold: 3") + HOOKS)
    async with running(nats_server, rules, tmp_path / "a") as a, running(nats_server, None, tmp_path / "b") as b:
        planned = await asyncio.to_thread(command, a, "plan", new)
        assert planned.returncode == 0, planned.stderr
        lines = planned.stdout.splitlines()
        assert lines[0].startswith("! automation pair: trigger changed; starts afresh")
        assert lines[0].endswith("; changed is trigger.threshold: 2 -> 3; no open windows")
        assert "+ automation third: new" in lines
        assert "+ webhook shop: new" in lines
        assert lines[-1].startswith("revision 1 is in force; `whenthen apply ")
        assert a.names() == ["pair"]
        applied = await asyncio.to_thread(command, a, "apply", new, "--expect", "1", "--json")
        item = orjson.loads(applied.stdout)
        assert (item["number"], item["current"], item["how"], item["automations"]) == (2, True, "apply", 2)
        assert "@" in item["who"]
        await until(lambda: b.has("pair", "third"))
        again = await asyncio.to_thread(command, a, "apply", new)
        assert again.stdout.startswith("revision 2 is in force")
        late = await asyncio.to_thread(command, b, "apply", new, "--expect", "1")
        assert late.returncode == 1
        assert "revision 1 is not the current one any more: revision 2" in late.stderr
        assert item["who"] in late.stderr
        back = await asyncio.to_thread(command, b, "rollback", "1")
        assert back.stdout.startswith("revision 3 is in force"), back.stderr
        await until(lambda: a.has("pair"))
        listed = await a.get("/api/rules/revisions")
        assert [(each["number"], each["how"], each["current"], each.get("rolled_back_to")) for each in listed] == [
            (3, "rollback", True, 1),
            (2, "apply", False, None),
            (1, "start", False, None),
        ]
        shown = await asyncio.to_thread(command, a, "revisions")
        assert "3 (current)" in shown.stdout
        assert "rollback to 1" in shown.stdout
        unknown = await asyncio.to_thread(command, a, "rollback", "99")
        assert "revision 99 of the rules is not kept; `whenthen revisions` lists" in unknown.stderr
        await a.emit("half.done")
        await b.emit("half.done")
        await until(lambda: a.fired("pair", 1))
        # a change of watched files replaces what was rolled back to
        folder_of(rules, OTHER)
        await a.reload()
        await until(lambda: b.has("other"))
        # the files of the server are applied without a name
        await asyncio.to_thread(command, a, "rollback", "1")
        await until(lambda: a.has("pair"))
        assert (await asyncio.to_thread(command, a, "apply")).returncode == 0
        assert a.names() == ["other"]
        assert "no rules folder of its own" in (await asyncio.to_thread(command, b, "apply")).stderr


HOOKS = "webhooks: [{name: shop, verify: none, map: {event: $.body.event, resource: {id: $.body.id}}}]\n"


async def test_a_plan_counts_the_open_windows_of_what_it_changes_or_removes(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    chain = (
        "{name: chain, trigger: {type: sequence, within: 1h, triggers: [{expect: half.done}, {expect: whole.done}]}, "
        "actions: do-nothing}"
    )
    each = PAIR.replace("within: 1h", "within: 1h, for_each: id").replace("]\n", f", {chain}]\n")
    rules = folder_of(tmp_path / "rules", each)
    async with running(nats_server, rules, tmp_path / "a", shards=2) as server:
        for resource in ("a", "b", "c", "c"):  # that of c remembers that it fired
            await server.emit("half.done", resource)
        await until(lambda: server.fired("pair", 1))

        async def planned() -> dict[str, int | None]:
            plan = await server.post(
                "/api/rules/plan",
                {
                    "files": [
                        {"name": "r.yaml", "text": each.replace("threshold: 2", "threshold: 5").replace(chain, "")}
                    ]
                },
            )
            return {change["name"]: change.get("windows") for change in plan.raise_for_status().json()["changes"]}

        async def counted() -> bool:
            found = await planned()
            return found["pair"] == 3 and bool(found["chain"])

        await until(counted)


async def test_a_server_that_can_not_listen_publishes_nothing(
    nats_server: NatsServer, bus: Bus, tmp_path: Path
) -> None:
    rules = folder_of(tmp_path / "rules", PAIR)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=rf"can not listen on 127\.0\.0\.1:{port}: .*; choose another --port"):
            async with running(nats_server, rules, tmp_path / "a", port=port):
                pass
    streams = await bus.js.streams_info()
    assert all(stream.state.messages == 0 for stream in streams if stream.config.name in (RULES, EVENTS))
    async with running(nats_server, rules, tmp_path / "a") as server:
        assert server.server.rule_registry.now.number == 1


async def test_plans_store_nothing_and_rules_without_room_are_refused_with_the_remedy(
    nats_server: NatsServer, bus: Bus, tmp_path: Path
) -> None:
    rules = folder_of(tmp_path / "rules", PAIR)

    def body(seed: int, count: int) -> dict[str, Any]:
        comment = base64.b64encode(random.Random(seed).randbytes(1 << 20)).decode()
        return {
            "files": [
                {"name": f"{number}.yaml", "text": f"# {comment}\n" + (OTHER if not number else "")}
                for number in range(count)
            ]
        }

    async with running(nats_server, rules, tmp_path / "a", rules_bytes="16MiB") as server:
        before = (await bus.js.stream_info(RULES)).state
        plans = await asyncio.gather(*(server.post("/api/rules/plan", body(seed, 1)) for seed in range(6)))
        assert {plan.status_code for plan in plans} <= {200, 503}
        assert 200 in {plan.status_code for plan in plans}
        after = (await bus.js.stream_info(RULES)).state
        assert (after.messages, after.bytes) == (before.messages, before.bytes)
        for number in range(30):
            answer = await server.post("/api/rules/apply", body(100 + number, 1))
            if answer.status_code != 200:
                break
        assert answer.status_code == 409, answer.text
        assert answer.json()["error"]["reason"] == "rules_full"
        assert "raise `rules_bytes`" in answer.json()["error"]["message"]
        listed = await server.get("/api/rules/revisions")
        assert listed[0]["number"] == number + 1
        assert server.server.rule_registry.now.number == number + 1
        # files that changed are told of likewise, and the set in force stays
        folder_of(rules, body(999, 1)["files"][0]["text"])
        reloaded = await server.post("/api/rules/reload", {})
        assert reloaded.status_code == 400
        assert "raise `rules_bytes`" in reloaded.text
        assert server.server.rule_registry.now.number == number + 1


async def test_where_rules_come_from_files_alone_requests_change_none(
    nats_server: NatsServer, bus: Bus, tmp_path: Path
) -> None:
    rules = folder_of(tmp_path / "rules", PAIR)
    body = {"files": [{"name": "r.yaml", "text": OTHER}]}
    async with running(nats_server, rules, tmp_path / "a", rules_from="files") as server:
        before = (await bus.js.stream_info(RULES)).state.last_seq
        assert [each["name"] for each in (await server.post("/api/rules/plan", body)).json()["changes"]] == [
            "other",
            "pair",
        ]
        for path in ("/api/rules/apply", "/api/rules/revisions/1/rollback"):
            answer = await server.post(path, body if path.endswith("apply") else {})
            assert answer.status_code == 403
            error = answer.json()["error"]
            assert error["reason"] == "rules_from_files"
            assert f"change those at {rules}" in error["message"]
            assert 'with `rules_from: "files, api"` (WHENTHEN_RULES_FROM)' in error["message"]
        told = await asyncio.to_thread(command, server, "apply", folder_of(tmp_path / "new", OTHER))
        assert told.returncode == 1
        assert "rules come from files alone here" in told.stderr
        assert server.names() == ["pair"]
        assert (await bus.js.stream_info(RULES)).state.last_seq == before
        # those on disk are files
        folder_of(rules, OTHER)
        assert (await server.post("/api/rules/apply", {})).status_code == 200
        assert server.names() == ["other"]


async def test_of_two_that_apply_at_once_one_is_told_who_won(nats_server: NatsServer, tmp_path: Path) -> None:
    rules = folder_of(tmp_path / "rules", PAIR)
    async with running(nats_server, rules, tmp_path / "a") as a, running(nats_server, None, tmp_path / "b") as b:
        body = [
            {"files": [{"name": "r.yaml", "text": text}], "who": who, "expected": 1}
            for text, who in ((OTHER, "ana@one"), (THIRD, "ben@two"))
        ]
        answers = await asyncio.gather(a.post("/api/rules/apply", body[0]), b.post("/api/rules/apply", body[1]))
        assert sorted(answer.status_code for answer in answers) == [200, 409]
        lost = next(answer for answer in answers if answer.status_code == 409)
        won = next(answer for answer in answers if answer.status_code == 200)
        assert won.json()["who"] in lost.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"files": [{"name": "x.yaml", "text": PAIR}], "who": "ana\nroot"}, 400, "without control characters"),
        ({"files": [{"name": "../x.yaml", "text": ""}]}, 400, "a path below the rules folder"),
        ({"files": [{"name": "/x.yaml", "text": ""}]}, 400, "a path below the rules folder"),
        ({"files": [{"name": "x.txt", "text": ""}]}, 400, "the name of a YAML file"),
        ({"files": [{"name": "x.yaml", "text": ""}, {"name": "x.yaml", "text": "a"}]}, 400, "two files have the name"),
        ({"files": []}, 400, "no rules files"),
        ({"files": [{"name": "x.yaml", "text": 5}]}, 400, "string"),
        ({"filez": []}, 400, "Extra inputs"),
        ([], 400, "the body is an object"),
        ({"files": [{"name": "x.yaml", "text": "automations: [{nam: x}]"}]}, 400, "x.yaml:1:16"),
        ({"files": [{"name": "x.yaml", "text": " " * (33 << 20)}]}, 413, "the rules have more than"),
    ],
)
async def test_what_is_no_set_of_rules_is_refused_with_the_reason(
    rules_server: Running, body: Any, status: int, said: str
) -> None:
    answer = await rules_server.post("/api/rules/apply", body)
    assert answer.status_code == status
    assert said in answer.text
    assert rules_server.names() == ["pair"]


@pytest.fixture
async def rules_server(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Running]:
    async with running(nats_server, folder_of(tmp_path / "rules", PAIR), tmp_path / "a") as now:
        yield now


# -- a rolling deploy


def load_rules_of(number: int) -> str:
    """Rules whose windows and actions differ from deploy to deploy; one automation stays."""
    automations = [
        {
            "name": "steady",
            "trigger": {"expect": "order.*", "threshold": 3, "within": "1h", "cooldown": "0s", "for_each": ["id"]},
        },
        {"name": f"of-{number}", "trigger": {"expect": "order.placed"}},
        {
            "name": "growing",
            "trigger": {"expect": "order.placed", "threshold": number + 1, "within": "1h", "cooldown": "0s"},
        },
        {
            "name": "absent",
            "trigger": {
                "after": "order.placed",
                "expect": "order.paid",
                "posture": "proactive",
                "within": f"{number}s",
                "for_each": ["id"],
            },
        },
    ]
    return orjson.dumps({"automations": [{**each, "actions": ["do-nothing"]} for each in automations]}).decode()


@pytest.mark.takes(40)
async def test_firings_of_a_rolling_deploy_under_load_equal_the_replay_of_the_stream_with_its_markers(
    nats_server: NatsServer, tmp_path: Path, bus: Bus
) -> None:
    shards = 3
    folders = [folder_of(tmp_path / f"rules-{number}", load_rules_of(number)) for number in (1, 2, 3)]
    options = {"shards": shards, "lease": "2s"}
    done = asyncio.Event()
    sent = 0

    async def load(to: Sequence[Running]) -> None:
        nonlocal sent
        chance = random.Random(7)
        while not done.is_set():
            name = chance.choice(["order.placed", "order.placed", "order.paid", "order.sent"])
            await to[0].emit(name, f"o{chance.randrange(6)}")
            sent += 1

    async with running(nats_server, folders[0], tmp_path / "front", **options) as front:
        loading = asyncio.create_task(load([front]))
        await until(lambda: front.fires("of-1"))
        async with running(nats_server, folders[1], tmp_path / "b", **options) as b:  # the new deploy comes up
            await until(lambda: front.has(*b.names()))
            await until(lambda: front.fires("of-2"))
            async with running(nats_server, folders[0], tmp_path / "c", **options) as c:  # an old one is started again
                assert c.names() == b.names()
                shutil.copy(folders[2] / "rules.yaml", folders[0] / "rules.yaml")  # files of a running one change
                await c.reload()
                await until(lambda: b.has(*c.names()))
                await until(lambda: front.fires("of-3"))
        target = sent + 50
        await until(lambda: _reached(lambda: sent >= target or loading.done()))
        done.set()
        await loading
        oracle = Oracle(load_rules(folders[0]), shards)
        stored: dict[str, Any] = {}

        async def equal() -> bool:
            await oracle.follow(bus)
            stored.clear()
            async for message in read_stream(bus, ENGINE, "engine.firing.>"):
                firing = orjson.loads(message.data)
                stored[firing["id"]] = firing
            return oracle.next_deadline_us() is None and stored.keys() >= oracle.firings.keys()

        await until(equal, within_s=30, what="the stream's replay and the stored firings agree")
        assert stored == oracle.firings
        assert oracle.doubled == []
        assert oracle.number == 3
        kinds = {firing["automation"] for firing in stored.values()}
        assert {"steady", "of-1", "of-2", "of-3", "absent"} <= kinds


async def _reached(condition: Any) -> bool:
    return bool(condition())
