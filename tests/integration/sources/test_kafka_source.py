"""A topic of Kafka as a source: what was committed there is stored here, however often we are stopped, and processes share the work."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiokafka
import pytest
from aiokafka.consumer.group_coordinator import GroupCoordinator

from tests.integration.conftest import NatsServer
from tests.integration.sources.kafka import Cluster, cluster
from tests.integration.sources.reading import Reading, reading
from tests.patience import until
from whenthen.engine.sources.edges.kafka_edge import KafkaEdge
from whenthen.engine.sources.message_intake import SourceTrouble
from whenthen.schemas.event_sources import KafkaReading

pytestmark = pytest.mark.anyio


@pytest.fixture
def kafka() -> Iterator[Cluster]:
    with cluster() as made:
        yield made


def rules(kafka: Cluster, read: str = "existing: report", more: str = "") -> str:
    mapping = 'map: {event: order.placed, resource: {id: "order.{{ body.n }}", key: $.message.key}}'
    return f"sources:\n  - {{name: orders, read: {{type: kafka, servers: {kafka.servers}, topic: orders, {read}}}, {more or mapping}}}\n"


def numbers(events: list[dict[str, object]]) -> list[int]:
    return sorted(int(event["resource"]["id"][6:]) for event in events)  # type: ignore[index]


async def reads(here: Reading) -> None:
    async def does() -> bool:
        return await here.metric('whenthen_source_reading{source="orders"}') == 1.0

    await until(does, within_s=60)


def detail(here: Reading) -> str:
    runner = here.server._running._sources  # type: ignore[union-attr]
    assert runner is not None
    return runner.watches["orders"].detail if "orders" in runner.watches else ""


async def test_a_topic_is_read_over_restarts_and_a_poison_message_is_kept_aside(tmp_path: Path, kafka: Cluster) -> None:
    kafka.orders(*range(40))
    async with reading(tmp_path, rules(kafka)) as here:
        events = await here.come(40, within_s=60)
        assert numbers(events) == list(range(40))
        assert {event["resource"]["key"] for event in events} == {str(number) for number in range(40)}
        assert all(event["id"].startswith("source:orders/orders/") for event in events)
        kafka.produce("orders", b"poison", None, partition=0)
        kafka.orders(40)
        await here.come(41)
        assert await here.metric('whenthen_events_refused_total{reason="invalid_json",source="source:orders"}') == 1.0

        async def all_committed() -> bool:
            return await asyncio.to_thread(kafka.committed, "whenthen", "orders") == 43

        await until(all_committed, within_s=60)
    kafka.orders(41, 42)
    async with reading(tmp_path, rules(kafka)) as here:
        events = await here.come(43, within_s=60)
        assert numbers(events) == list(range(43))

        async def two_came() -> bool:  # and nothing was read again
            return await here.metric('whenthen_events_received_total{source="source:orders"}') == 2.0

        await until(two_came)


async def test_what_is_there_is_skipped_and_what_comes_while_nobody_reads_is_not(
    tmp_path: Path, kafka: Cluster
) -> None:
    kafka.orders(*range(8))
    text = rules(kafka, "group: skipping")
    async with reading(tmp_path, text) as here:
        await reads(here)
    kafka.orders(8, 9)
    async with reading(tmp_path, text) as here:
        await here.come(2, within_s=60)
        kafka.orders(10)
        assert numbers(await here.come(3)) == [8, 9, 10]


@pytest.fixture
def leader_that_is_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mock cluster gives each member its partitions when the leader has told them, and fails those that ask later, as no broker does."""
    assign = GroupCoordinator._perform_assignment

    async def last(self: Any, response: Any) -> Any:
        await asyncio.sleep(1)
        return await assign(self, response)

    monkeypatch.setattr(GroupCoordinator, "_perform_assignment", last)


@pytest.mark.usefixtures("leader_that_is_last")
@pytest.mark.takes(60)
async def test_processes_share_a_topic(tmp_path: Path, kafka: Cluster, nats_server: NatsServer) -> None:
    kafka.orders(*range(4))
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    url = nats_server.url
    async with (
        reading(tmp_path / "one", rules(kafka), nats_url=url) as one,
        reading(tmp_path / "two", rules(kafka), nats_url=url) as two,
    ):
        sent = 4

        async def both_read() -> bool:
            nonlocal sent
            kafka.orders(*range(sent, sent + 4))
            sent += 4
            found = [
                await each.metric('whenthen_source_heard_timestamp_seconds{source="orders"}') for each in (one, two)
            ]
            return all(found)

        await until(both_read, within_s=90)
        assert numbers(await one.come(sent, within_s=60)) == list(range(sent))


async def test_a_topic_that_is_not_there_is_said_and_not_made(tmp_path: Path, kafka: Cluster) -> None:
    async with reading(tmp_path, rules(kafka)) as here:

        async def said() -> bool:
            return "there is no topic orders" in detail(here)

        await until(said, within_s=60)
        kafka.orders(0)
        assert numbers(await here.come(1, within_s=90)) == [0]


@pytest.mark.takes(60)
async def test_a_broker_that_goes_away_while_it_is_read_is_said_and_read_on_when_it_is_back(
    tmp_path: Path, kafka: Cluster
) -> None:
    count = 400
    kafka.orders(*range(count))
    async with reading(tmp_path, rules(kafka)) as here:
        await here.come(1, within_s=60)
        kafka.go_away()
        await here.becomes("orders", "trouble", "Kafka can not be read")
        kafka.come_back()
        kafka.orders(count)
        events = await here.come(count + 1, within_s=90)
        assert numbers(events) == list(range(count + 1))
        assert (await here.becomes("orders", "reading"))["problems"] == []

        async def all_committed() -> bool:
            return await asyncio.to_thread(kafka.committed, "whenthen", "orders") == count + 1

        await until(all_committed, within_s=60)


async def test_headers_of_any_bytes_are_read(tmp_path: Path, kafka: Cluster) -> None:
    event = b'{"event": "own", "resource": {"id": "one"}}'
    kafka.produce("orders", event, headers=[("x", b"\xff"), ("y", None)])
    cloudevent = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "order.placed"}
    named = [(f"ce_{name}", value) for name, value in cloudevent.items()]
    kafka.produce("orders", b'{"n": 1}', headers=[*named, ("content-type", "application/json")])
    async with reading(tmp_path, rules(kafka, more="map: null")) as here:
        events = await here.come(2, within_s=60)
        assert sorted((each["event"], each["payload"]) for each in events) == [
            ("order.placed", {"n": 1}),
            ("own", {}),
        ]


async def test_a_message_kept_aside_is_sent_again_once_the_mapping_is_mended(tmp_path: Path, kafka: Cluster) -> None:
    kafka.orders(0)
    mistaken = 'map: {event: order.placed, resource: {id: "order.{{ body.nmber }}"}}'
    async with reading(tmp_path, rules(kafka, more=mistaken)) as here:
        await reads(here)
        (kept,) = await here.aside()
        assert (kept["source"], kept["field"], kept["whole"]) == ("source:orders", "map.resource.id", True)

        async def committed() -> bool:
            return await asyncio.to_thread(kafka.committed, "whenthen", "orders") == 1

        await until(committed, within_s=60)
    async with reading(tmp_path, rules(kafka)) as here:
        report = await here.resend(source="source:orders")
        assert (report["sent"], report["events"], report["refused"]) == (1, ["source:orders/orders/0/0"], [])
        (event,) = await here.come(1)
        assert event["resource"] == {"id": "order.0", "key": "0"}
        await here.aside(0)


async def test_of_transactions_what_was_committed_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the consumer alone: the brokers of the tests mark nothing as taken back."""
    asked: list[str] = []

    class Consumer(aiokafka.AIOKafkaConsumer):
        def __init__(self, *topics: str, **options: Any) -> None:
            super().__init__(*topics, **options)
            asked.append(str(options.get("isolation_level")))

    monkeypatch.setattr(aiokafka, "AIOKafkaConsumer", Consumer)
    read = KafkaReading(type="kafka", servers=["127.0.0.1:1"], topic="orders")
    with pytest.raises(SourceTrouble):
        await KafkaEdge(read, "orders", resolve_secret=str).run(SimpleNamespace())  # type: ignore[arg-type]
    assert set(asked) == {"read_committed"}
