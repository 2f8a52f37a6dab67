"""Topics of MQTT as a source: a real mosquitto that keeps the session while nobody reads."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmqtt

from tests.integration.sources.brokers import Program, mosquitto
from tests.integration.sources.reading import reading
from tests.patience import until
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.datadir import embedded_url
from whenthen.engine.bus.streams import EVENTS

pytestmark = [pytest.mark.anyio, pytest.mark.requires("mosquitto")]

MANY = 200  #: messages: twice what is read at one time; mosquitto writes its file for each, which takes long on a busy disk


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Program]:
    made = mosquitto(tmp_path / "mosquitto")
    made.start()
    yield made
    made.kill()


async def publish(port: int, *numbers: int, body: bytes | None = None, **login: str) -> None:
    # without a keepalive: what is published waits for its acknowledgement, however long a busy broker takes
    async with zmqtt.create_client("127.0.0.1", port, keepalive=0, **login) as client:
        for number in numbers:
            await client.publish("gauges/one", body or b'{"n": %d}' % number, qos=zmqtt.QoS.AT_LEAST_ONCE)


async def test_topics_are_read_over_restarts_of_both_sides(tmp_path: Path, server: Program) -> None:
    text = f"""
sources:
  - name: gauges
    read: {{type: mqtt, url: "mqtt://127.0.0.1:{server.port}", topic: "gauges/+"}}
    map: {{event: gauge.read, resource: {{id: "gauge.{{{{ body.n }}}}", topic: $.message.topic}}, id: $.body.n}}
"""
    async with reading(tmp_path, text) as here:

        async def reads() -> bool:
            return await here.metric('whenthen_source_reading{source="gauges"}') == 1.0

        await until(reads)
        await publish(server.port, *range(20))
        events = await here.come(20)
        assert events[0]["resource"]["topic"] == "gauges/one"
        await publish(server.port, 1000, body=b"\xffpoison")
        (kept,) = await here.aside()
        assert (kept["source"], kept["shape"]) == ("source:gauges", "no text: 7 bytes")
    await publish(server.port, 20, 21)
    async with reading(tmp_path, text) as here:
        await here.come(22)
        await until(reads)
        server.kill()
        server.start()
        await publish(server.port, 22)
        events = await here.come(23, within_s=60)
        assert sorted(int(each["resource"]["id"][6:]) for each in events) == list(range(23))


@pytest.mark.takes(20)
async def test_more_than_a_client_keeps_of_a_session_is_read_when_the_source_comes_back(tmp_path: Path) -> None:
    count = 1200
    server = mosquitto(tmp_path / "mosquitto", much=True)
    server.start()
    text = f"""
sources:
  - name: gauges
    read: {{type: mqtt, url: "mqtt://127.0.0.1:{server.port}", topic: "gauges/+"}}
    map: {{event: gauge.read, resource: {{id: "gauge.{{{{ body.n }}}}"}}, id: $.body.n}}
"""
    try:
        async with reading(tmp_path, text) as here:
            await here.becomes("gauges", "reading")
        await publish(server.port, *range(count))
        async with reading(tmp_path, text) as here:

            async def all_came() -> bool:
                info = await bus.js.stream_info(EVENTS, subjects_filter="events.gauge.read")
                return (info.state.subjects or {}) == {"events.gauge.read": count}

            bus = Bus(embedded_url(tmp_path / "data"))
            await bus.connect()
            await until(all_came, within_s=60)
            await bus.close()
            assert (await here.becomes("gauges", "reading"))["problems"] == []
    finally:
        server.kill()


async def test_more_than_a_broker_gives_at_one_time_waits_for_a_source_that_comes_back(
    tmp_path: Path, server: Program
) -> None:
    text = f"""
sources:
  - name: gauges
    read: {{type: mqtt, url: "mqtt://127.0.0.1:{server.port}", topic: "gauges/+"}}
    map: {{event: gauge.read, resource: {{id: "gauge.{{{{ body.n }}}}"}}, id: $.body.n}}
"""
    async with reading(tmp_path, text) as here:

        async def reads() -> bool:
            return await here.metric('whenthen_source_reading{source="gauges"}') == 1.0

        await until(reads)
    await publish(server.port, *range(MANY))
    async with reading(tmp_path, text) as here:
        events = await here.come(MANY, within_s=60)
        assert sorted(int(each["resource"]["id"][6:]) for each in events) == list(range(MANY))


class Silent:
    """A broker that answers all but a ping; `pinged` once it has been asked."""

    def __init__(self) -> None:
        self.pinged = asyncio.Event()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                kind, size = await reader.readexactly(2)  # what a source sends is short: its size is one byte
                body = await reader.readexactly(size)
                if kind == 0x10:  # CONNECT
                    writer.write(b"\x20\x03\x00\x00\x00")
                elif kind == 0x82:  # SUBSCRIBE
                    writer.write(b"\x90\x04" + body[:2] + b"\x00\x01")
                elif kind == 0xC0:  # PINGREQ
                    self.pinged.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def test_a_source_that_ends_while_the_broker_is_asked_whether_it_is_there_leaves_no_error(tmp_path: Path) -> None:
    silent = Silent()
    server = await asyncio.start_server(silent.talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    text = f"sources:\n  - {{name: gauges, read: {{type: mqtt, url: 'mqtt://127.0.0.1:{port}', topic: 'gauges/+'}}}}\n"
    errors: list[object] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    try:
        async with reading(tmp_path, text):
            await silent.pinged.wait()
        gc.collect()  # an error that nobody looked at is told once its future goes
        await asyncio.sleep(0)
    finally:
        loop.set_exception_handler(before)
        server.close()
    assert errors == []
