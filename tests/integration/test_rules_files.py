"""Rules files that go away, come back, or are broken at the start: no window is lost, and the process says what is in force."""

from __future__ import annotations

import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.integration.running_server import RunningServer
from tests.patience import until
from tests.plain_http import plain_async_client
from whenthen.engine.bus.records import encode_window
from whenthen.engine.bus.subjects import window_subject
from whenthen.engine.process.server import Server
from whenthen.engine.process.settings import load_settings
from whenthen.schemas.errors import InvalidRules
from whenthen.triggers import SET_ASIDE

pytestmark = pytest.mark.anyio

ORDERS = """
automations:
  - name: unshipped
    trigger: {posture: proactive, after: order.paid, expect: order.shipped, for_each: id, within: 1h}
    actions: do-nothing
  - name: pair
    trigger: {expect: half.done, threshold: 2, within: 1h}
    actions: do-nothing
"""
OTHERS = "automations: [{name: other, trigger: {expect: x}, actions: do-nothing}]\n"


class Running(RunningServer):
    async def emit(self, name: str, id: str) -> None:
        (await self.client.post("/api/events", json={"event": name, "resource": {"id": id}})).raise_for_status()

    async def reload(self) -> list[str]:
        """Read the files now; the names in force."""
        (await self.client.post("/api/rules/reload")).raise_for_status()
        return self.names()

    async def post(self, path: str) -> httpx.Response:
        return await self.client.post(path)

    async def keeps(self, number: int) -> bool:
        """Whether the windows of so many absent triggers are kept."""
        return len(await self.get("/api/orphans")) == number

    async def has_no_requests(self) -> bool:
        """Whether the requests to forget windows are removed, those that were fulfilled."""
        parts = self.server._started()
        await parts.pauses.refresh()
        await parts.pauses.clear_forgotten()
        return not [key for key in await parts.stores.flags.all() if key.startswith("forget/")]

    async def has(self, names: list[str]) -> bool:
        return self.names() == names

    async def decided(self, automation: str, reasons: list[str]) -> bool:
        """Whether the last decisions have these reasons, the newest first; those of earlier starts are on record, too."""
        found = (await self.get(f"/api/automations/{automation}"))["decisions"]
        return [decision["reason"] for decision in found[: len(reasons)]] == reasons


@asynccontextmanager
async def running(folder: Path, **options: Any) -> AsyncIterator[Running]:
    settings = load_settings({"data_dir": folder / "data", "port": 0, **options})
    async with (
        Server(settings, folder / "rules") as server,
        plain_async_client(base_url=server.address) as client,
    ):
        yield Running(server, client)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "orders.yaml").write_text(ORDERS)
    (tmp_path / "rules" / "others.yaml").write_text(OTHERS)
    return tmp_path


@pytest.mark.parametrize("how", ["moved away and back", "emptied and refilled", "away for longer than the grace"])
async def test_the_window_of_a_paid_order_is_found_after_its_file_was_away(folder: Path, how: str) -> None:
    orders, away = folder / "rules" / "orders.yaml", folder / "away"
    longer = how == "away for longer than the grace"
    async with running(folder, rules_file_grace="300ms" if longer else "1h") as now:
        await now.emit("order.paid", "o1")
        await until(lambda: now.decided("unshipped", ["opened"]))
        shutil.copy(orders, away)
        if how == "emptied and refilled":
            orders.write_text("")
        else:
            orders.unlink()
        if longer:
            await until(lambda: now.has(["other"]))
        else:
            assert await now.reload() == ["other", "pair", "unshipped"]
        away.replace(orders)
        await now.reload()
        await until(lambda: now.has(["other", "pair", "unshipped"]))
        await now.emit("order.shipped", "o1")
        await until(lambda: now.decided("unshipped", ["expected"] if longer else ["expected", "opened"]))


async def test_a_start_with_broken_files_goes_on_with_the_last_good_rules_and_says_so(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(folder) as now:
        await now.emit("half.done", "x")
        revision = (await now.get("/api/status"))["rules"]["revision"]
        assert (await now.get("/api/status"))["rules"]["kept_since"] is None
    orders = folder / "rules" / "orders.yaml"
    orders.write_text(ORDERS.replace("threshold", "treshold"))
    with caplog.at_level(logging.ERROR):
        async with running(folder) as now:
            status = await now.get("/api/status")
            assert status["rules"]["revision"] == revision
            assert status["rules"]["kept_since"]
            assert status["problems"][0]["file"] == "orders.yaml"
            assert "whenthen_rules_refused 1.0" in await now.metrics()
            assert f"(revision 1, digest {revision}) are in force instead" in caplog.text
            await now.emit("half.done", "x")
            await until(lambda: now.decided("pair", ["fired"]))
            orders.write_text(ORDERS)
            await now.reload()
            status = await now.get("/api/status")
            assert (status["rules"]["kept_since"], status["problems"]) == (None, [])
            assert "whenthen_rules_refused 0.0" in await now.metrics()


async def test_a_start_without_files_goes_on_with_the_last_good_rules(folder: Path) -> None:
    async with running(folder):
        pass
    shutil.rmtree(folder / "rules")
    async with running(folder) as now:
        assert now.names() == ["other", "pair", "unshipped"]
        assert "no such file" in (await now.get("/api/status"))["problems"][0]["message"]


async def test_a_first_start_with_broken_files_and_one_with_another_path_are_refused(folder: Path) -> None:
    orders = folder / "rules" / "orders.yaml"
    orders.write_text("automations: [{nam: x}]\n")
    with pytest.raises(InvalidRules):
        async with running(folder):
            pass
    orders.write_text(ORDERS)
    async with running(folder):
        pass
    settings = load_settings({"data_dir": folder / "data", "port": 0})
    with pytest.raises(InvalidRules, match="no such file"):
        async with Server(settings, folder / "ruels"):
            pass


async def test_a_start_without_an_automation_deletes_nothing_and_lists_what_it_keeps(folder: Path) -> None:
    orders = folder / "rules" / "orders.yaml"
    async with running(folder) as now:
        await now.emit("order.paid", "o1")
        await until(lambda: now.decided("unshipped", ["opened"]))
    orders.unlink()
    async with running(folder) as now:
        await until(lambda: now.keeps(1))
        (orphan,) = await now.get("/api/orphans")
        assert (orphan["keys"], orphan["automation"]) == (1, "unshipped")
        assert orphan["bytes"] > 0
        orders.write_text(ORDERS)
        await now.reload()
        await until(lambda: now.keeps(0))
        await now.emit("order.shipped", "o1")
        await until(lambda: now.decided("unshipped", ["expected"]))


async def test_kept_windows_are_forgotten_on_request(folder: Path) -> None:
    async with running(folder) as now:
        await now.emit("order.paid", "o1")
        await until(lambda: now.decided("unshipped", ["opened"]))
        (folder / "rules" / "orders.yaml").write_text(
            "automations: [{name: b, trigger: {expect: x}, actions: do-nothing}]\n"
        )
        await now.reload()
        await until(lambda: now.keeps(1))
        assert (await now.get("/api/orphans"))[0]["automation"] == "unshipped"
        refused = await now.post("/api/orphans/nobody/forget")
        assert refused.status_code == 404
        assert "whenthen automations orphans lists them" in refused.text
        (forgotten,) = (await now.post("/api/orphans/unshipped/forget")).raise_for_status().json()
        assert forgotten["automation"] == "unshipped"
        await until(lambda: now.keeps(0))
        await until(now.has_no_requests)
        (folder / "rules" / "orders.yaml").write_text(ORDERS)
        await now.reload()
        await now.emit("order.shipped", "o1")
        await until(lambda: now.decided("unshipped", ["waiting_for_after"]))


async def test_the_status_names_what_is_set_aside_in_the_shards_of_other_processes(folder: Path) -> None:
    async with running(folder) as now:
        assert (await now.get("/api/status"))["set_aside"] == {}
        state = orjson.dumps([1, "meaning", 2, "a window is too large"])
        bus = now.server._started().bus
        subject = window_subject(77, SET_ASIDE, "pair")
        await bus.js.publish(subject, encode_window(SET_ASIDE, "pair", state))
        assert (await now.get("/api/status"))["set_aside"] == {"pair": "a window is too large"}
        assert (await now.get("/api/automations/pair"))["state"] == "set-aside"
        await bus.js.publish(subject, encode_window(SET_ASIDE, "pair", b""))
        assert (await now.get("/api/status"))["set_aside"] == {}
