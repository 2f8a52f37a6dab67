"""Rules that are swapped while events come: thousands of automations change, and what is remembered does not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest

from tests.patience import limit, until
from tests.plain_http import plain_async_client
from whenthen.engine.process.server import Server
from whenthen.engine.process.settings import load_settings

pytestmark = pytest.mark.anyio

AUTOMATIONS = 2000
SWAPS = 3
WATCHED = range(0, AUTOMATIONS, 40)
ROUNDS = 2 * SWAPS  # two events make a firing; they lie before and after a swap


def write_rules(folder: Path, revision: int) -> None:
    """A set in which each automation has changed, but not its trigger; one more comes with each revision."""
    automations = [
        {
            "name": f"steady-{number}",
            "description": f"as of revision {revision}",
            "trigger": {"expect": f"tick.{number}", "threshold": 2, "within": "1h", "cooldown": "0s"},
            "actions": ["do-nothing"],
        }
        for number in range(AUTOMATIONS)
    ]
    automations += [
        {"name": f"added-{number}", "trigger": {"expect": "added.*"}, "actions": ["do-nothing"]}
        for number in range(revision)
    ]
    # JSON is YAML, and quicker to read
    (folder / "rules.yaml").write_bytes(orjson.dumps({"automations": automations}))


@pytest.mark.takes(30)
async def test_windows_of_two_thousand_automations_outlive_swaps_of_the_rules_under_load(tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.mkdir()
    write_rules(rules, 0)
    settings = load_settings({"data_dir": tmp_path / "data", "port": 0})
    async with (
        Server(settings, rules) as server,
        plain_async_client(base_url=server.address, timeout=limit(60)) as client,
    ):

        async def take(events: list[dict[str, object]]) -> None:
            """Send them until they are taken, as a sender does: a server that is slow answers 503."""
            while (answer := await client.post("/api/events", json=events)).status_code == 503:
                await asyncio.sleep(0.1)
            answer.raise_for_status()

        async def send(revision: int) -> None:
            for number in range(ROUNDS):
                await take(
                    [
                        {"event": f"tick.{each}", "resource": {"id": "r"}, "id": f"{revision}-{number}-{each}"}
                        for each in WATCHED
                    ]
                )

        for revision in range(1, SWAPS + 1):
            sending = asyncio.create_task(send(revision))
            await asyncio.to_thread(write_rules, rules, revision)
            found = (await client.post("/api/rules/reload")).raise_for_status().json()
            assert found["problems"] == []
            await sending
            status = (await client.get("/api/status")).raise_for_status().json()
            assert status["rules"]["automations"] == AUTOMATIONS + revision
        await take([{"event": "added.last", "resource": {"id": "r"}, "id": "added"}])

        async def fired(automation: str) -> int:
            answer = await client.get("/api/firings", params={"automation": automation, "limit": 1000})
            return len(answer.raise_for_status().json())

        async def all_are_there() -> bool:
            return await fired(f"added-{SWAPS - 1}") == 1

        await until(all_are_there, within_s=30, what="the firing of the automation that came last")
        counts = {number: await fired(f"steady-{number}") for number in WATCHED}
        assert counts == dict.fromkeys(WATCHED, SWAPS * ROUNDS // 2)
