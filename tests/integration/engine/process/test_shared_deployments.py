"""Two servers that were started on different rules for deployments of the same names: one set is in force, and nothing starts twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import NatsServer
from tests.integration.test_rule_sets import Running, folder_of, running
from tests.patience import until
from whenthen.engine.process.roles import Role

pytestmark = [pytest.mark.anyio, pytest.mark.takes(4)]

SOME = frozenset({Role.API, Role.SCHEDULER, Role.WORKER})
ALL = SOME | {Role.EVALUATOR, Role.EXECUTOR}
RULES = """
deployments:
  - name: shared
    command: [sh, -c, 'echo "$WHENTHEN_RUN_ID {who}" >> {file}']
    schedules: [{{name: often, interval: 3s}}]
automations:
  - name: begin
    trigger: {{expect: order.made}}
    actions: [run-deployment: shared]
"""


async def runs_of(server: Running) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await server.get("/api/runs?deployment=shared&limit=1000")
    return found


def is_scheduled(run: dict[str, Any]) -> bool:
    return (run["triggered_by"] or "").startswith("schedule:")


async def is_at(server: Running, number: int) -> bool:
    return bool((await server.get("/api/status"))["rules"]["number"] == number)


async def test_the_rules_that_were_published_last_count_for_both_and_each_run_is_one(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    ran.touch()
    folders = {who: folder_of(tmp_path / who, RULES.format(who=who, file=ran)) for who in ("first", "second")}

    def lines() -> list[tuple[str, str]]:
        """Which runs ran, and by whose rules."""
        return [(run, who) for run, _, who in (line.partition(" ") for line in ran.read_text().splitlines())]

    def ran_more_than(count: int) -> Callable[[], Awaitable[bool]]:
        async def more() -> bool:
            return len(lines()) > count

        return more

    async with running(nats_server, folders["first"], tmp_path / "a", roles=ALL) as first:
        await until(ran_more_than(0), within_s=60)
        async with running(nats_server, folders["second"], tmp_path / "b", roles=SOME) as second:
            for server in (first, second):
                await until(partial(is_at, server, 2), within_s=60)
            earlier = {run["id"] for run in await runs_of(first)}
            for number in range(4):
                await (first, second)[number % 2].emit("order.made", f"order-{number}")

            async def all_ended() -> bool:
                begun = [run for run in await runs_of(second) if not is_scheduled(run)]
                return len(begun) == 4 and {run["state"] for run in begun} == {"Completed"}

            await until(all_ended, within_s=60)
        # one alone goes on
        await until(ran_more_than(len(lines())), within_s=60)
        known = await runs_of(first)
    times = Counter(run["scheduled_for"] for run in known if is_scheduled(run))
    assert set(times.values()) == {1}
    assert set(Counter(run for run, _ in lines()).values()) == {1}
    assert {who for run, who in lines() if run not in earlier} == {"second"}
