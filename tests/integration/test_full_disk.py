"""A disk that is really full: a small file system of its own under `whenthen serve`, filled to the last byte, and freed again.

It is a tmpfs in a mount namespace of its own, for which Linux asks no privileges (`unshare -Urm`); where that is forbidden,
as in a container without `--security-opt seccomp=unconfined`, there is no such disk, and the end of the run says so.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import nats.errors
import pytest

from tests.chaos.oracle import Oracle
from tests.chaos.processes import Supervised, ready, whenthen
from tests.chaos.receiver import received
from tests.chaos.verdict import Found, look, unfinished
from tests.integration.conftest import eventually
from tests.patience import limit, until
from tests.plain_http import PLAIN
from tests.ports import free_ports
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.datadir import embedded_url
from whenthen.rules import load_rules
from whenthen.schemas.errors import BusUnavailable

pytestmark = [pytest.mark.anyio, pytest.mark.takes(15), pytest.mark.requires("an own file system")]

DISK_MB = 32

RULES = """
automations:
  - name: every-order
    trigger: {{expect: order.created}}
    actions: [{call}]
  - name: three-of-a-kind
    trigger: {{expect: order.created, for_each: id, threshold: 3, within: 1h}}
    actions: [{call}]
"""
CALL = '{{call-webhook: "http://127.0.0.1:{port}/hook", timeout: 5s, retry: {{attempts: 100, delay: 200ms, max_delay: 1s}}}}'


class SmallDisk:
    """A file system of `DISK_MB` at `path`, which only processes see that have the namespaces of `keeper_pid`."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.path = path
        script = f'mount -t tmpfs -o size={DISK_MB}m tmpfs "$0" && echo mounted && exec cat'
        self._keeper = subprocess.Popen(
            ["unshare", "-Urm", "sh", "-c", script, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.readline() == "mounted\n"

    @property
    def seen(self) -> Path:
        """Its root as this process sees it."""
        return Path(f"/proc/{self.keeper_pid}/root{self.path}")

    @property
    def keeper_pid(self) -> int:
        """A process that has the file system mounted."""
        return self._keeper.pid

    def fill(self) -> None:
        """Take every byte that is left."""
        with (self.seen / "ballast").open("ab", buffering=0) as ballast:
            for size in (1 << 20, 4096):
                while _write(ballast.fileno(), b"\0" * size):
                    pass

    def free(self) -> None:
        """Give that back."""
        (self.seen / "ballast").unlink()

    def grow(self) -> None:
        """Twice the size."""
        enter = ["nsenter", "-t", str(self.keeper_pid), "-U", "-m", "--preserve-credentials"]
        subprocess.run([*enter, "mount", "-o", f"remount,size={2 * DISK_MB}m", "tmpfs", str(self.path)], check=True)

    def close(self) -> None:
        self._keeper.communicate()


def _write(file: int, data: bytes) -> bool:
    """Whether there was room for any of it."""
    try:
        return os.write(file, data) > 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False


@dataclass
class Load:
    """What was sent to a server, and what it answered."""

    url: str
    taken: set[str] = field(default_factory=set)
    refused: list[httpx.Response] = field(default_factory=list)
    broken: int = 0  #: requests without an answer
    _number: int = 0

    async def send(self, client: httpx.AsyncClient, *, at_once: int = 8, bytes_each: int = 120_000) -> None:
        """Send some events side by side, each once."""

        async def one(number: int) -> None:
            event = {
                "id": f"order-{number}",
                "event": "order.created",
                "resource": {"id": f"customer-{number % 7}"},
                "payload": {"text": "x" * bytes_each},
            }
            try:
                answer = await client.post(f"{self.url}/api/events", json=event)
            except httpx.TransportError:
                self.broken += 1
                return
            if answer.is_success:
                self.taken.add(f"order-{number}")
            else:
                self.refused.append(answer)

        numbers = range(self._number, self._number + at_once)
        self._number += at_once
        await asyncio.gather(*map(one, numbers))


@dataclass
class House:
    """`whenthen serve` on the small disk, and a receiver elsewhere."""

    disk: SmallDisk
    folder: Path
    rules: Path
    url: str
    processes: dict[str, Supervised]

    @property
    def said(self) -> str:
        return self.processes["server"].log.read_text(errors="replace")

    async def serve(self, *, reserve: str, publish_timeout_s: float = 1) -> None:
        port = self.url.rpartition(":")[2]
        words = whenthen("serve", self.rules, "--data-dir", self.disk.path / "data", "--port", port)
        env = {
            "WHENTHEN_DISK_RESERVE": reserve,
            "WHENTHEN_PUBLISH_TIMEOUT": f"{limit(publish_timeout_s):g}s",
            "WHENTHEN_OPEN_LOOPBACK": "true",
        }
        server = self.processes["server"] = Supervised(
            "server", words, self.folder, env=env, namespaces_of=self.disk.keeper_pid
        )
        server.start()
        await ready(self.url, 60)

    async def settled(self) -> tuple[Oracle, Found]:
        """What must have come of the stream, and what is there, once nothing is under way any more."""
        bus = Bus(embedded_url(self.disk.seen / "data"))
        await bus.connect(timeout_s=30)
        oracle = Oracle(load_rules(self.rules))
        found = Found()

        async def quiet() -> bool:
            nonlocal found
            before = oracle.seq
            try:
                await oracle.follow(bus)
                found = await look(bus, 1)
            except (
                BusUnavailable,
                nats.errors.TimeoutError,
            ):  # nats-server is only now started again; events were taken before that, too
                return False
            return not unfinished(oracle, found) and oracle.seq == before

        try:
            await until(quiet, within_s=90, what="everything that was taken is worked off", every_s=0.3)
        finally:
            await bus.close()
        return oracle, found

    async def check(self, load: Load) -> None:
        """Nothing that was taken is missing, and everything came of it once."""
        oracle, found = await self.settled()
        assert load.taken <= oracle.event_ids.keys()
        assert max(oracle.event_ids.values()) == 1
        assert found.firings == oracle.firings
        assert not found.dead
        calls = {key for _, key in received(self.folder / "received.txt")}
        assert calls == oracle.actions.keys() == found.outcomes.keys()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "disk")
    yield disk
    disk.close()


@pytest.fixture
async def house(disk: SmallDisk, tmp_path: Path) -> AsyncIterator[House]:
    receiver_port, port = free_ports(2)
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "rules.yaml").write_text(RULES.format(call=CALL.format(port=receiver_port)))
    receiver = [*whenthen()[:1], "-m", "tests.chaos.receiver", str(receiver_port), str(tmp_path / "received.txt")]
    house = House(disk, tmp_path, rules, f"http://127.0.0.1:{port}", {})
    house.processes["receiver"] = Supervised("receiver", receiver, tmp_path)
    house.processes["receiver"].start()
    yield house
    for process in reversed(house.processes.values()):
        await process.halt()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(**PLAIN, timeout=limit(30)) as client:  # which repeats nothing by itself
        yield client


async def sample(client: httpx.AsyncClient, url: str, name: str) -> float:
    """The sum of a metric's series whose line begins with `name`."""
    text = (await client.get(f"{url}/metrics")).text
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


def reasons(load: Load) -> set[str]:
    """Why events were refused; each refusal is one that a sender can repeat."""
    for answer in load.refused:
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["Retry-After"]) > 0
    return {answer.json()["error"]["reason"] for answer in load.refused}


async def test_events_are_refused_before_the_disk_is_full_and_all_that_were_taken_are_worked_off(
    house: House, disk: SmallDisk, client: httpx.AsyncClient
) -> None:
    await house.serve(reserve="8MB", publish_timeout_s=10)  # NATS on a busy machine is not what refuses
    load = Load(house.url)
    while not load.refused:
        await load.send(client)
    assert len(load.taken) > 60
    assert reasons(load) == {"disk_full"}
    assert re.search(r"disk of \S+data is full: \d+\.\d MB are free, and 8\.0 MB are reserved", load.refused[0].text)
    refused = await sample(client, house.url, 'whenthen_events_refused_total{reason="disk_full"')
    assert refused == len(load.refused)
    assert 0 < await sample(client, house.url, "whenthen_disk_free_bytes") < 8e6
    assert await sample(client, house.url, "whenthen_disk_reserve_bytes") == 8e6
    await house.check(load)
    disk.grow()
    taken = len(load.taken)

    async def takes_again() -> bool:
        await load.send(client, at_once=1)
        return len(load.taken) > taken

    await until(takes_again, within_s=20, what="events are taken again")
    await house.check(load)
    assert "restarting nats-server" not in house.said


async def test_nats_server_that_dies_on_a_full_disk_comes_back_when_there_is_room(
    house: House, disk: SmallDisk, client: httpx.AsyncClient
) -> None:
    await house.serve(reserve="2MB")
    load = Load(house.url)
    while len(load.taken) < 60:
        await load.send(client)
    disk.fill()
    while not load.refused:
        await load.send(client)
    pid = int((disk.seen / "data" / "nats" / "pid").read_text())
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: "died with code -9; starting it again" in house.said)
    for _ in range(3):
        await load.send(client)
    disk.free()
    taken = len(load.taken)

    async def takes_again() -> bool:
        await load.send(client, at_once=1)
        return len(load.taken) > taken + 20

    await until(takes_again, within_s=90, what="events are taken again")
    await house.check(load)


@pytest.mark.parametrize("filled_by", ["its own events", "somebody else"])
async def test_a_disk_that_is_full_to_the_last_byte_loses_nothing_and_doubles_nothing(
    house: House, disk: SmallDisk, client: httpx.AsyncClient, filled_by: str
) -> None:
    await house.serve(reserve="0" if filled_by == "its own events" else "2MB")
    load = Load(house.url)
    while len(load.taken) < 60:
        await load.send(client)
    if filled_by == "somebody else":
        disk.fill()
    while len(load.refused) < 24:
        await load.send(client)
    if filled_by == "somebody else":
        assert "disk_full" in reasons(load)
        await eventually(lambda: "can not write any more" in house.said, within_s=60)
        disk.free()
    else:
        assert reasons(load) <= {
            "bus_timeout",
            "bus_disconnected",
            "no_stream",
            "stream_full",
            "bus_busy",
            "bus_refused",
        }
        disk.grow()
    taken = len(load.taken)

    async def takes_again() -> bool:
        await load.send(client, at_once=1)
        return len(load.taken) > taken + 20

    await until(takes_again, within_s=90, what="events are taken again")
    assert "no space left on device" in house.said
    again = re.compile(r"MB free; restarting nats-server \(pid \d+\) so that it can write again")
    await eventually(lambda: again.search(house.said), within_s=30)
    await house.check(load)
    await house.processes.pop("server").halt()
    await house.serve(reserve="0")
    await house.check(load)
