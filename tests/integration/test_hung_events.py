"""Real processes that hang on one event, one action or one request: they are started again, and what hangs them twice is set aside."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests import forks
from tests.chaos.oracle import Oracle, read_stream
from tests.chaos.processes import Supervised, child_of, ready, whenthen
from tests.integration.conftest import NatsServer
from tests.patience import limit, until
from tests.plain_http import plain_async_client
from tests.ports import free_ports
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.datadir import embedded_url
from whenthen.engine.bus.streams import ENGINE, EVENTS, HANGS
from whenthen.engine.process.asyncapi.event_messages import SkipMessage
from whenthen.engine.process.asyncapi.run_messages import HangRecord
from whenthen.rules import load_rules
from whenthen.rules.replay import replay, skips_of

pytestmark = [pytest.mark.anyio, pytest.mark.takes(12)]

HANG_AFTER_S = limit(0.6)  #: for which a busy machine stops no process that is well
HANGING = Path(__file__).parents[1] / "chaos" / "hanging"
RULES = """
webhooks: [{name: shop, verify: none, map: {event: order.placed, resource: {id: $.body.id}}}]
automations:
  - {name: pairs, trigger: {expect: ping, threshold: 2, within: 1h, cooldown: 0s}, actions: [do-nothing]}
  - name: noted
    trigger: {expect: automation.event.set-aside}
    actions: [{emit-event: note.made, payload: {position: $.payload.position}}]
"""


class Server:
    """A `whenthen serve` that hangs where it is told to, and its NATS."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.rules = folder / "rules"
        self.rules.mkdir()
        (self.rules / "rules.yaml").write_text(RULES)
        port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{port}"
        words = whenthen("serve", self.rules, "--data-dir", self.data_dir, "--port", str(port))
        env = {
            "PYTHONPATH": str(HANGING),
            "WHENTHEN_HANG_AFTER": f"{HANG_AFTER_S:g}s",
            "WHENTHEN_OPEN_LOOPBACK": "true",
            "WHENTHEN_EXECUTOR_LOST_AFTER": "2s",
            "XDG_STATE_HOME": str(folder / "state"),
        }
        self.process = Supervised("server", words, folder, env=env)
        self._sent = 0
        self.client = plain_async_client(base_url=self.url)

    async def send(self, *payloads: dict[str, Any]) -> list[str]:
        """Send events called `ping` in one request, which the server may hang on before it answers; gives their ids."""
        ids = [f"ping-{self._sent + number}" for number in range(len(payloads))]
        self._sent += len(payloads)
        events = [
            {"event": "ping", "id": id, "resource": {"id": "r"}, "payload": payload}
            for id, payload in zip(ids, payloads, strict=True)
        ]
        with contextlib.suppress(httpx.TransportError):
            answer = await self.client.post("/api/events", json=events)
            assert answer.status_code == 202, answer.text
        return ids

    async def get(self, path: str) -> Any:
        answer = await self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def status(self) -> dict[str, Any]:
        """As the server tells it, once it answers."""
        found: list[dict[str, Any]] = []

        async def told() -> bool:
            try:
                found.append(await self.get("/api/status"))
            except httpx.TransportError:
                return False
            return True

        await until(told, within_s=30, what="the server answers")
        return found[-1]

    async def until_set_aside(self, count: int = 1) -> list[dict[str, Any]]:
        async def there() -> bool:
            return len((await self.status())["events_set_aside"]) >= count

        await until(there, within_s=60, what="the event is set aside", every_s=0.2)
        found: list[dict[str, Any]] = (await self.status())["events_set_aside"]
        return found

    def said(self, text: str) -> int:
        return self.process.log.read_text(errors="replace").count(text)


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Server]:
    server = Server(folder)
    server.process.start()
    try:
        await ready(server.url, 60)
        yield server
    finally:
        await server.client.aclose()
        await server.process.halt()


async def stored(bus: Bus, stream: str, subjects: str) -> list[dict[str, Any]]:
    return [orjson.loads(message.data) async for message in read_stream(bus, stream, subjects) if message.data]


async def test_what_hung_processes_is_not_evaluated_again_for_a_question(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        [_, hung] = await server.send({"n": 1}, {"hang": "spin"})
        await server.until_set_aside()
        restarts = (await server.status())["restarts"]
        why = await server.get(f"/api/why?automation=pairs&event={hung}")
        assert why["reason"] == "set_aside"
        answer = await server.client.get(f"/api/record?automation=pairs&event={hung}")
        assert answer.status_code == 404
        assert "processes hung on it" in answer.json()["error"]["message"]
        assert (await server.status())["restarts"] == restarts


@pytest.mark.parametrize("how", ["spin", "hold", "crash"])
async def test_an_event_that_hangs_two_processes_is_set_aside_and_the_others_go_on(tmp_path: Path, how: str) -> None:
    async with serving(tmp_path) as server:
        ids = await server.send({"n": 1}, {"hang": how}, {"n": 2}, {"n": 3})
        [aside] = await server.until_set_aside()
        reason = "crashed" if how == "crash" else "hung"
        assert (aside["event"], aside["shard"], aside["tries"], aside["reason"]) == (ids[1], 0, 2, reason)
        assert (await server.status())["restarts"] == 2
        assert server.process.ended_by_itself == []
        assert (await server.client.get("/healthz")).status_code == 200
        metrics = (await server.client.get("/metrics")).text
        assert re.search(r'^whenthen_events_set_aside_total\{shard="0"\} 1.0$', metrics, re.MULTILINE)

        bus = Bus(embedded_url(server.data_dir))
        await bus.connect()
        try:

            async def told() -> bool:
                return bool(await stored(bus, EVENTS, "events.note.made"))

            await until(told, within_s=30, what="a rule reacts to the event that tells of it")
            [note] = await stored(bus, EVENTS, "events.note.made")
            assert note["payload"] == {"position": aside["position"]}
            [skip] = await stored(bus, EVENTS, "skips.0")
            assert SkipMessage.model_validate(skip).skip.position == aside["position"]
            # while C code holds the interpreter, and after a crash, nobody can tell
            assert aside["automation"] == ("pairs" if how == "spin" else None)
            [counted] = await stored(bus, f"KV_{HANGS}", f"$KV.{HANGS}.event.0.{aside['position']}")
            assert HangRecord.model_validate(counted).tries == 2
            # one pair of the three that were evaluated, as a replay of the stream finds it
            fired = await stored(bus, ENGINE, "engine.firing.pairs.>")
            assert [firing["refs"][-1][0] for firing in fired] == [ids[2]]
            rules = load_rules(server.rules)
            oracle = Oracle(rules)
            await oracle.follow(bus)
            assert {firing["id"] for firing in fired} <= oracle.firings.keys()
            exported = [m.data async for m in read_stream(bus, EVENTS) if m.data]
            again = [
                one["firing"]
                for one in replay(rules, exported, skips=skips_of(exported))
                if one["automation"] == "pairs"
            ]
            assert again == [firing["id"] for firing in fired]
        finally:
            await bus.close()
        await server.process.halt()
        server.process.start()  # a new start knows it too, and passes nothing over twice
        await ready(server.url, 60)
        await server.send({"n": 4})
        assert server.said("is set aside and passed over") == 1


async def test_an_action_that_hangs_two_processes_becomes_a_dead_letter(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await server.send({"n": 1}, {"n": 2, "hang_action": "spin"})

        async def dead() -> bool:
            try:
                return bool(await server.get("/api/actions?outcome=dead"))
            except httpx.TransportError:
                return False

        await until(dead, within_s=90, what="the action is a dead letter", every_s=0.2)
        [letter] = await server.get("/api/actions?outcome=dead")
        assert letter["automation"] == "pairs"
        assert "2 processes hung on it" in letter["error"]
        await server.send({"n": 3}, {"n": 4})
        assert (await server.status())["restarts"] == 2
        assert server.process.ended_by_itself == []


async def test_a_request_that_hangs_is_not_answered_and_the_log_says_to_which_webhook_it_was(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        with pytest.raises(httpx.TransportError):
            await server.client.post("/hooks/shop", json={"id": "o-0", "hang_request": True}, timeout=60)
        await ready(server.url, 60)
        assert server.said("hung on a request to /hooks/shop") == 1
        assert (await server.client.post("/hooks/shop", json={"id": "o-1"})).status_code == 202
        assert (await server.status())["events_set_aside"] == []


async def test_a_server_that_is_stopped_for_longer_than_hang_after_goes_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        pid = (await server.status())["pid"]
        assert pid == child_of(server.process.pid)
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(httpx.TransportError):
                await server.client.get("/healthz", timeout=4 * HANG_AFTER_S)
        finally:
            os.kill(pid, signal.SIGCONT)
        status = await server.status()
        assert (status["pid"], status["restarts"]) == (pid, 0)


async def test_tries_count_over_processes_and_the_second_one_sets_the_event_aside(
    tmp_path: Path, nats_server: NatsServer, bus: Bus
) -> None:
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "rules.yaml").write_text(RULES)
    env = {"PYTHONPATH": str(HANGING), "WHENTHEN_HANG_AFTER": f"{HANG_AFTER_S:g}s"}
    words = whenthen("serve", rules, "--nats", nats_server.url, "--role", "evaluator")
    processes = [Supervised(f"evaluator-{number}", words, tmp_path, env=env) for number in range(2)]
    try:
        for process in processes:
            process.start()
        event = {"event": "ping", "id": "bad", "resource": {"id": "r"}, "payload": {"hang": "spin"}, "occurred": AT}
        await bus.store("events.ping", orjson.dumps({**event, "received": AT, "source": "test"}), "bad")

        async def told() -> bool:
            return bool(await stored(bus, EVENTS, "skips.0"))

        await until(told, within_s=90, what="the event is set aside", every_s=0.2)
        [skip] = await stored(bus, EVENTS, "skips.0")
        assert skip["skip"]["event"] == "bad"
        # a process that took the shard before the hang of the other one was counted may have tried once more
        assert skip["skip"]["tries"] >= 2
        hung = sum(process.log.read_text().count("the process hangs on") for process in processes)
        assert skip["skip"]["tries"] <= hung <= 4
        assert [process.ended_by_itself for process in processes] == [[], []]
    finally:
        await asyncio.gather(*(process.halt() for process in processes))


AT = "2026-01-31T08:00:00.000000Z"


def test_without_a_watchdog_there_is_one_process(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    words = ["serve", str(tmp_path / "rules.yaml"), "--data-dir", str(tmp_path / "data"), "--port", "0"]
    (tmp_path / "whenthen.yaml").write_text("watchdog: false\nopen_loopback: true\n")
    ours, theirs = os.pipe()
    with open(ours, "rb") as screen, (tmp_path / "out.txt").open("w+b") as out:
        with open(theirs, "wb") as stdout:
            process = forks.start(words, env=os.environ, cwd=tmp_path, stdout=stdout, stderr=out)
        try:
            line = screen.readline().decode()
            assert f"(process {process.pid})" in line
            assert child_of(process.pid) not in (None, process.pid)  # its nats-server
        finally:
            process.terminate()
            process.wait()
