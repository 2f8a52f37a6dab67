"""Each reader of a stream, while its pull requests are answered by each status that a server may send, whatever the text says.

The server is a real one. A responder of the test's stands before it: the first pull requests of a reader go to it, and it answers
with the status alone; what comes after them goes to the server. No reader may lose anything, or wait in silence.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.integration.conftest import NatsServer, eventually
from tests.integration.test_execution import ask, task
from tests.patience import limit
from whenthen.cancellation import end_task
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.protocol import Meaning, Position, read_status
from whenthen.engine.bus.pull_consumer import ConsumerSettings, PullConsumer
from whenthen.engine.bus.streams import EVENTS, RUN_STATES, StreamSettings, ensure_streams
from whenthen.engine.evaluation.event_reader import EventReader, Received
from whenthen.engine.evaluation.recent_ids import recent_ids
from whenthen.engine.execution.executor import Executor
from whenthen.engine.flow_runs.flow_streams import FlowStoreSettings, ensure_flow_stores
from whenthen.engine.flow_runs.nats_stores import nats_stores
from whenthen.engine.flow_runs.pulled_message import MessageHandler, PulledMessage
from whenthen.engine.flow_runs.run_events import RunEventPublisher
from whenthen.runs.run_states import new_run
from whenthen.schemas.deployments import Deployment, FlowRun
from whenthen.schemas.errors import BusUnavailable
from whenthen.schemas.events import Event, new_event
from whenthen.schemas.firings import ActionTask

pytestmark = pytest.mark.anyio

Scripts = list[tuple[str, list[str]]]
PULL = "$JS.API.CONSUMER.MSG.NEXT."
LEFT = "Nats-Pending-Messages: 1\r\nNats-Pending-Bytes: 0\r\n"
HEADS = {
    "bad request": "400 Bad Request - nonsense\r\n",
    "no messages": "404 No Messages\r\n",
    "no messages, of a request": f"404 No Messages\r\n{LEFT}",
    "timeout": f"408 Request Timeout\r\n{LEFT}",
    "timeout, other text": f"408 Zeit ist um\r\n{LEFT}",
    "timeout, no text": f"408\r\n{LEFT}",
    "timeout, no number": "408 Request Timeout\r\n",
    "timeout, no such number": "408 Request Timeout\r\nNats-Pending-Messages: many\r\n",
    "timeout, more than was asked for": "408 Request Timeout\r\nNats-Pending-Messages: 99999999\r\n",
    "deleted": "409 Consumer Deleted\r\n",
    "deleted, with a number": f"409 Consumer Deleted\r\n{LEFT}",
    "leadership": "409 Leadership Change\r\n",
    "leadership, with a number": f"409 Leadership Change\r\n{LEFT}",
    "shutdown": "409 Server Shutdown\r\n",
    "push": "409 Consumer is push based\r\n",
    "too many": "409 Exceeded MaxWaiting\r\n",
    "too many messages": "409 Exceeded MaxRequestBatch of 1\r\n",
    "too large": f"409 Message Size Exceeds MaxBytes\r\n{LEFT}",
    "complete": f"409 Batch Completed\r\n{LEFT}",
    "conflict, other text": "409 etwas anderes\r\n",
    "conflict, no text": "409\r\n",
    "pin": "423 Nats-Wrong-Pin-Id\r\n",
    "nobody": "503\r\n",
    "nobody, with a text": "503 No Responders Available For Request\r\n",
    "unknown": "599 Never Heard Of\r\n",
    "no code": " \r\n",
}
#: a heartbeat, and nothing after it: only time shows that something is wrong
ALIVE = "100 Idle Heartbeat\r\nNats-Last-Consumer: 0\r\nNats-Last-Stream: 0\r\n"


class Responder:
    """Answers the next pull requests of a bus with statuses, in the server's place."""

    def __init__(self, bus: Bus, fake: Bus) -> None:
        self.answers: list[str] = []
        self.given = 0
        self._fake = fake
        self._send = bus.client.send
        bus.client.send = self._redirect  # type: ignore[method-assign]

    async def start(self) -> None:
        await self._fake.protocol.subscribe("fake.next", self._answer)
        await self._fake.client.api("INFO")

    def _redirect(self, subject: str, data: bytes, head: bytes = b"", *, reply: str = "") -> None:
        self._send("fake.next" if subject.startswith(PULL) and self.answers else subject, data, head, reply=reply)

    def _answer(self, subject: bytes, reply: bytes, head: bytes, data: bytes) -> None:
        if self.answers:
            self.given += 1
            answer = self.answers.pop(0).replace(LEFT, LEFT.replace("1", str(orjson.loads(data)["batch"])))
            self._fake.protocol.send(reply.decode(), b"", head=f"NATS/1.0 {answer}\r\n".encode())


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path / "nats")
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    bus = Bus(nats_server.url)
    await bus.connect()
    await ensure_streams(bus.js, StreamSettings())
    await ensure_flow_stores(bus.js)
    yield bus
    await bus.close()


@pytest.fixture
async def responder(bus: Bus, nats_server: NatsServer) -> AsyncIterator[Responder]:
    fake = Bus(nats_server.url)
    await fake.connect()
    responder = Responder(bus, fake)
    await responder.start()
    yield responder
    await fake.close()


def event(id: str) -> Event:
    return new_event("order.created", id=id, resource={"id": "r"}, now=datetime.now(UTC), source="test")


async def first(reader: EventReader) -> Received:
    while (message := reader.take()) is None:
        await reader.wait(5)
    return message


def a_run(key: str) -> FlowRun:
    return new_run(Deployment(name="d", command=["true"]), key=key, parameters={}, now=datetime.now(UTC))


#: each status once, and some so often that trying again at once has not helped
SCRIPTS = [
    *((name, [head]) for name, head in HEADS.items()),
    ("deleted, again and again", [HEADS["deleted"]] * 5),
    ("complete, again and again", [HEADS["complete"]] * 5),
    ("one after the other", list(HEADS.values())[:8]),
    ("only a heartbeat", [ALIVE]),
]
PARTS = 4


@pytest.fixture(params=range(PARTS))
def scripts(request: pytest.FixtureRequest) -> Scripts:
    """A part of them, so that no test takes long."""
    return SCRIPTS[request.param :: PARTS]


async def test_the_reader_of_events_goes_on_and_misses_none(bus: Bus, responder: Responder, scripts: Scripts) -> None:
    read: list[int] = []
    stored: list[int] = []

    async def reading(reader: EventReader) -> None:
        async with asyncio.timeout(limit(20)):
            while read != stored:
                while (message := reader.take()) is not None:
                    read.append(message.seq)
                if read != stored:
                    await reader.wait(0.5)

    for name, answers in scripts:
        responder.answers, responder.given = list(answers), 0
        read.clear()
        reader = EventReader(bus)
        await reader.start(0, ["events.>"])
        await eventually(lambda answers=answers: responder.given == len(answers))
        stored += [(await bus.publish(event(f"{name} {number}"))).seq for number in range(3)]
        await reading(reader)
        responder.answers = list(answers)
        await reader.start(stored[-1], ["events.>", "ticks.0"])
        stored.append((await bus.publish(event(f"{name} last"))).seq)
        await reading(reader)
        await reader.stop()


async def test_the_executor_goes_on_and_performs_each_task(bus: Bus, responder: Responder, scripts: Scripts) -> None:
    performed: Counter[str] = Counter()

    async def perform(task: ActionTask) -> None:
        performed[task.key] += 1

    for number, (name, answers) in enumerate(scripts):
        responder.answers, responder.given = list(answers), 0
        performed.clear()
        executor = Executor(bus, perform)
        running = asyncio.create_task(executor.run())
        await eventually(lambda answers=answers: responder.given == len(answers))
        await ask(bus, *(task(f"{number}-{one}") for one in range(3)))
        await eventually(lambda: len(performed) == 3)
        executor.stop()
        await asyncio.wait_for(running, limit(20))
        assert set(performed.values()) == {1}, name


async def test_recent_ids_are_complete(bus: Bus, responder: Responder, scripts: Scripts) -> None:
    sent = [f"e {number}" for number in range(5)]
    for id in sent:
        last = await bus.publish(event(id))
    for name, answers in scripts:
        responder.answers = list(answers)
        found = await recent_ids(bus.client, since_us=0, before=last.seq + 1)
        assert [id for id, _ in found] == sent, name


async def test_the_run_queue_gives_each_run_once(bus: Bus, responder: Responder, scripts: Scripts) -> None:
    queue = nats_stores(bus.client).queue
    for number, (name, answers) in enumerate(scripts):
        run = f"{number:032x}"
        assert await queue.put(run, pool="p", deployment="d")
        responder.answers = list(answers)
        taken = None
        async with asyncio.timeout(limit(20)):
            while taken is None:
                try:
                    taken = await queue.fetch("p", wait=timedelta(seconds=0.2))
                except BusUnavailable:
                    assert name == "only a heartbeat" or "no" in name
        assert (taken.run_id, taken.deliveries) == (run, 1), name
        await taken.ack()
    responder.answers = []
    assert await queue.fetch("p", wait=timedelta(seconds=0.2)) is None


async def test_the_events_of_runs_are_published_in_order(bus: Bus, responder: Responder, scripts: Scripts) -> None:
    runs = nats_stores(bus.client).runs
    published: list[str] = []

    async def publish(event: Event) -> None:
        published.append(event.resource["id"])

    wanted: list[str] = []
    for name, answers in scripts:
        responder.answers, responder.given = list(answers), 0
        running = asyncio.create_task(RunEventPublisher(bus.client, publish).run())
        await eventually(lambda answers=answers: responder.given == len(answers))
        for number in range(2):
            run = a_run(f"{name} {number}")
            await runs.create(run)
            wanted.append(f"whenthen.flow-run.{run.id}")
        await eventually(lambda: published == wanted)
        await end_task(running)


@pytest.mark.parametrize("most_pending", [1, 4])
async def test_a_handler_asks_for_the_next_message_by_itself_and_not_when_it_looks_around(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, most_pending: int
) -> None:
    monkeypatch.setattr("whenthen.engine.bus.pull_consumer.HEARTBEAT_S", 3600.0)
    runs = nats_stores(bus.client).runs
    handled: list[int] = []

    async def handle(message: PulledMessage) -> None:
        handled.append(message.position.seq)

    handler = MessageHandler(
        bus.client, handle, stream=f"KV_{RUN_STATES}", durable="by-itself", most_pending=most_pending,
        ack_wait=timedelta(seconds=30), retry_pause=timedelta(seconds=0.5), what="a revision",
    )  # fmt: skip
    running = asyncio.create_task(handler.run())
    for number in range(10):
        await runs.create(a_run(f"by itself {number}"))
    await eventually(lambda: len(handled) == 10)
    assert handled == sorted(handled)
    await end_task(running)


@pytest.mark.parametrize("text", ["Consumer Deleted", "", "Leadership Change", "etwas anderes"])
def test_no_text_changes_what_a_status_means(text: str) -> None:
    def meaning(code: int, more: str = "") -> Meaning:
        status = read_status(f"NATS/1.0 {code} {text}\r\n{more}\r\n".encode())
        assert status is not None
        return status.meaning

    assert meaning(100) is Meaning.ALIVE
    assert [meaning(code, LEFT) for code in (404, 408, 409)] == [Meaning.ENDED] * 3
    assert [meaning(code) for code in (400, 404, 408, 409, 423, 500, 999)] == [Meaning.UNCLEAR] * 7
    assert [meaning(503), meaning(503, LEFT)] == [Meaning.GONE] * 2


@pytest.mark.parametrize(
    "head", [b"", b"NATS/1.0\r\n\r\n", b"NATS/1.0 abc def\r\n\r\n", b"NATS/1.0\r\nStatus: x\r\n\r\n"]
)
def test_what_is_no_status_is_none(head: bytes) -> None:
    assert read_status(head) is None


async def test_a_heartbeat_shows_that_the_message_sent_last_was_lost(
    bus: Bus, responder: Responder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The consumer says that it has sent a message, and none has come: reading begins again after the last that came."""
    monkeypatch.setattr("whenthen.engine.bus.consumer_settings.SILENCE_S", 1000.0)
    responder.answers = ["100\r\nNats-Last-Consumer: 7\r\n"]
    reader = EventReader(bus)
    await reader.start(0, ["events.>"])
    sent = await bus.publish(event("one"))
    assert (await asyncio.wait_for(first(reader), limit(10))).seq == sent.seq
    assert reader.consumers == 2
    await reader.stop()


async def test_flow_control_is_answered(bus: Bus, responder: Responder) -> None:
    asked = asyncio.Event()
    await bus.protocol.subscribe("flow.control", lambda *_: asked.set())
    await bus.client.api("INFO")
    consumer = PullConsumer(bus.client, ConsumerSettings(stream=EVENTS, config={}), lambda *_: None, demand=lambda _: 0)
    consumer.start()
    await eventually(lambda: consumer.live)
    consumer._take_status(b"flow.control", b"NATS/1.0 100 FlowControl Request\r\n\r\n")
    await asyncio.wait_for(asked.wait(), limit(5))
    await consumer.stop()


async def failing_reader(bus: Bus, error: Exception) -> EventReader:
    reader = EventReader(bus)

    def deliver(position: Position, *_: bytes) -> None:
        raise error

    reader._deliver = deliver  # type: ignore[method-assign]
    await reader.start(0, ["events.>"])
    return reader


async def test_an_exception_while_a_message_is_taken_reaches_who_waits_for_it(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    reader = await failing_reader(bus, LookupError("a defect"))
    await bus.publish(event("one"))
    with pytest.raises(LookupError, match="a defect"):
        await asyncio.wait_for(first(reader), limit(10))
    with pytest.raises(LookupError, match="a defect"):
        await reader.wait(5)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    await reader.stop()


@pytest.mark.parametrize("how", ["defect", "cancelled"])
async def test_an_end_of_the_task_that_keeps_a_consumer_ends_the_executor(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    executor = Executor(bus, lambda task: asyncio.sleep(0))
    running = asyncio.create_task(executor.run())
    await eventually(executor.ready.is_set)
    if how == "defect":
        monkeypatch.setattr(executor._consumer, "_demand", _divide)
        executor._consumer.wake()
        expected: type[Exception] = ZeroDivisionError
    else:
        task = executor._consumer._task
        assert task is not None
        task.cancel()
        expected = RuntimeError
    with pytest.raises(expected):
        await asyncio.wait_for(running, limit(10))


def _divide(asked: int) -> int:
    return 1 // 0


async def test_a_failed_publisher_of_run_events_says_so_to_who_keeps_it(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = RunEventPublisher(bus.client, _nothing)
    monkeypatch.setattr(publisher._messages, "_deliver", _defect)
    await nats_stores(bus.client).runs.create(a_run("k"))
    with pytest.raises(LookupError):
        await asyncio.wait_for(publisher.run(), limit(10))


async def _nothing(event: Event) -> None:
    pass


def _defect(*_: Any) -> None:
    raise LookupError("a defect")


async def test_a_cancelled_taker_leaves_no_run_behind(bus: Bus) -> None:
    """What arrives for one that was cancelled is offered again at once, and not when the ack wait is over."""
    queue = nats_stores(bus.client, FlowStoreSettings(queue_ack_wait=timedelta(hours=1))).queue
    for number in range(20):
        taking = asyncio.create_task(queue.fetch("p", wait=timedelta(seconds=5)))
        await asyncio.sleep(0)
        putting = asyncio.create_task(queue.put(f"{number:032x}", pool="p", deployment="d"))
        for _ in range(number):
            await asyncio.sleep(0)
        await putting
        await end_task(taking)
        taken = None if taking.cancelled() else taking.result()
        async with asyncio.timeout(limit(10)):
            while taken is None:
                taken = await queue.fetch("p", wait=timedelta(seconds=1))
        assert taken.run_id == f"{number:032x}"
        await taken.ack()


async def test_requests_that_end_at_once_are_not_repeated_without_a_pause(bus: Bus, responder: Responder) -> None:
    responder.answers = [HEADS["complete"]] * 10_000
    reader = EventReader(bus)
    started = time.monotonic()
    await reader.start(0, ["events.>"])
    await eventually(lambda: responder.given == 6)
    assert time.monotonic() - started > 1.0
    responder.answers = []
    sent = await bus.publish(event("one"))
    assert (await asyncio.wait_for(first(reader), limit(10))).seq == sent.seq
    await reader.stop()


async def test_a_message_larger_than_a_pull_request_of_the_reader_comes(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the server takes at most decides, so that no message stops the reader for good."""
    monkeypatch.setattr("whenthen.engine.bus.stream_reader.PULL_BYTES", 1000)
    sent = await bus.store("events.large", b"x" * (bus.nc.max_payload - 100))
    reader = EventReader(bus)
    await reader.start(0, ["events.>"])
    assert (await asyncio.wait_for(first(reader), limit(20))).seq == sent.seq
    await reader.stop()
