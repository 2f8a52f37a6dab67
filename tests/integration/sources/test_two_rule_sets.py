"""Two servers of one NATS whose files differ: both read the sources of the newest files, nothing is lost or told twice, and each says so."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import nats
import pytest

from tests.integration.conftest import NatsServer
from tests.integration.sources.reading import Reading, reading
from tests.patience import until

pytestmark = pytest.mark.anyio

MESSAGES = 300


def rules(server: NatsServer, event: str, *more: str) -> str:
    """The source `orders` with this name of its events, and others of subjects."""
    read = f"{{type: nats, url: '{server.url}', stream: ORDERS, existing: report}}"
    orders = (
        f'  - {{name: orders, read: {read}, map: {{event: {event}, resource: {{id: "order.{{{{ body.n }}}}"}}}}}}\n'
    )
    others = [
        f"  - {{name: {each}, read: {{type: nats, url: '{server.url}', subject: '{each}.*'}}}}\n" for each in more
    ]
    return "".join(["sources:\n", orders, *others])


async def reads(here: Reading, *names: str) -> None:
    """Wait until these are the sources that this very process reads."""

    async def so() -> bool:
        watches = here.server._running._sources.watches  # type: ignore[union-attr]
        return {name: watch.state for name, watch in watches.items()} == dict.fromkeys(names, "reading")

    await until(so, within_s=40, what=f"{names}")


async def test_two_servers_whose_files_differ_read_the_sources_of_the_newest_and_each_message_once(
    tmp_path: Path, nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "whenthen.engine.sources")
    theirs = await nats.connect(nats_server.url)
    js = theirs.jetstream()
    await js.add_stream(name="ORDERS", subjects=["orders.>"])
    sent = 0

    async def send(count: int) -> None:
        nonlocal sent
        for _ in range(count):
            await js.publish("orders.new", json.dumps({"n": sent}).encode())
            sent += 1

    for each in ("one", "two"):
        (tmp_path / each).mkdir()
    one = rules(nats_server, "order.one", "gauges")
    two = rules(nats_server, "order.two", "clicks")
    async with reading(tmp_path / "one", one, nats_url=nats_server.url) as first:
        await reads(first, "orders", "gauges")
        await send(50)
        await first.come(50)
        sending = asyncio.create_task(send(MESSAGES - 100))
        async with reading(tmp_path / "two", two, nats_url=nats_server.url) as second:
            for each in (first, second):
                await reads(each, "orders", "clicks")
            await sending
            await send(50)
            events = await first.come(MESSAGES)
            assert sorted(int(event["resource"]["id"][6:]) for event in events) == list(range(MESSAGES))
            assert {event["event"] for event in events} == {"order.one", "order.two"}
            assert {event["event"] for event in events[-50:]} == {"order.two"}
            assert "source gauges: it is not in the rules any more, and is read no longer" in caplog.text
            status = (await first.client.get("/api/status")).json()
            said = " ".join(status["notes"])
            assert "are not in force: revision 2" in said
            assert "`whenthen apply` publishes them" in said
            assert await first.metric("whenthen_rules_files_differ") == 1.0
            assert (await second.client.get("/api/status")).json()["notes"] == []
        # the one that is left goes on with what was published
        await reads(first, "orders", "clicks")
    async with reading(tmp_path / "one", one, nats_url=nats_server.url) as again:
        await reads(again, "orders", "clicks")
        (tmp_path / "one" / "rules.yaml").write_text(one + "# any change of the files publishes them\n")
        await reads(again, "orders", "gauges")
        await js.publish("orders.new", json.dumps({"n": MESSAGES}).encode())
        assert (await again.come(MESSAGES + 1))[-1]["event"] == "order.one"
    await theirs.close()
