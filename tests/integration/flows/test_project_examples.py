"""examples/dbt and examples/sla in a real server: an event for each model, and a run that takes longer than its deployment expects."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.flows.programs import ROOT
from tests.integration.served import Served
from tests.patience import eventually

pytestmark = [pytest.mark.requires("nats-server"), pytest.mark.takes(20)]

NOWHERE = "json://127.0.0.1:9"
#: what dbt 1.8 leaves of one model, one that fails, and a test, shortened
DBT = """
import json, pathlib, sys
project = pathlib.Path(sys.argv[sys.argv.index("--project-dir") + 1])
(project / "target").mkdir(parents=True, exist_ok=True)
def result(unique_id, status, message, failures=None, **adapter):
    return {"unique_id": unique_id, "status": status, "message": message, "failures": failures, "execution_time": 0.21,
            "thread_id": "Thread-1", "timing": [], "adapter_response": adapter, "compiled": True, "relation_name": None}
results = [
    result("model.shop.orders", "success", "OK", rows_affected=3, code="SELECT"),
    result("model.shop.customers", "error", "Runtime Error in model customers: no such column"),
    result("test.shop.not_null_orders_cents.5c1b4e0d7f", "fail", "Got 1 result, configured to fail if != 0", failures=1),
]
metadata = {"dbt_schema_version": "https://schemas.getdbt.com/dbt/run-results/v6.json", "dbt_version": "1.8.7"}
(project / "target" / "run_results.json").write_text(json.dumps({"metadata": metadata, "results": results, "elapsed_time": 1.5}))
sys.exit(1)
"""


@contextmanager
def example(name: str, folder: Path, settings: dict[str, str], within: str = "2h") -> Iterator[Served]:
    rules = Path(shutil.copytree(ROOT / "examples" / name, folder / "rules"))
    text = (rules / "rules.yaml").read_text(encoding="utf-8")
    (rules / "rules.yaml").write_text(text.replace("within: 2h", f"within: {within}"), encoding="utf-8")
    served = Served(folder, settings)
    try:
        served.wait_until_ready()
        yield served
    finally:
        served.kill()


def built(served: Served) -> dict[str, Any]:
    """The ended run of a build that an event began."""
    served.emit("orders.loaded")

    def ended() -> dict[str, Any]:
        found = served.get("/api/runs?deployment=dbt-build")
        return found[0] if found and found[0]["state"] in ("Completed", "Failed") else {}

    return eventually(ended, within_s=90)


def events(served: Served, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = served.get(f"/api/events?event={name}&limit=100")
    return found


def test_each_model_of_dbt_is_an_event(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "dbt").write_text(f"#!{sys.executable}\n{DBT}")
    (programs / "dbt").chmod(0o755)
    settings = {"PATH": f"{programs}:{Path(sys.executable).parent}:/usr/bin:/bin", "DATA_TEAM_URL": NOWHERE}
    with example("dbt", tmp_path, settings) as served:
        run = built(served)
        assert run["state"] == "Failed"
        assert "dbt ended with 1: {'success': 1, 'error': 1, 'fail': 1}" in run["message"]
        [orders] = eventually(lambda: events(served, "dbt.model.success"))
        assert orders["resource"] == {"id": "dbt.model.shop.orders", "name": "orders", "project": "shop"}
        assert orders["payload"] == {"seconds": 0.21, "rows": 3, "message": "OK"}
        eventually(lambda: served.fired()["tell-what-failed"] == 2)

        def reported() -> list[Any]:
            found = served.get("/api/runs?deployment=report")
            return [each["parameters"] for each in found if each["state"] == "Completed"]

        assert eventually(reported, within_s=60) == [{"model": "orders", "rows": 3}]


if shutil.which("dbt") is not None:  # it is optional, so that a machine without it lacks nothing

    def test_the_project_is_built_by_dbt_itself(tmp_path: Path) -> None:
        shutil.copytree(ROOT / "examples" / "dbt_shop", tmp_path / "dbt_shop")
        with example("dbt", tmp_path, {"DATA_TEAM_URL": NOWHERE}) as served:
            assert built(served)["state"] == "Failed"  # the test of an order without an amount
            eventually(lambda: events(served, "dbt.model.success") and events(served, "dbt.test.fail"), within_s=60)


def test_a_run_that_takes_too_long_is_late_and_gives_its_place_to_another(tmp_path: Path) -> None:
    started: list[tuple[float, str]] = []

    with example("sla", tmp_path, {"ON_CALL_URL": NOWHERE}, within="8s") as served:

        def late() -> list[dict[str, Any]]:
            if (
                not started or time.monotonic() - started[-1][0] > 30
            ):  # one that is over before the first look is left out
                body = {"parameters": {"seconds": 600}}
                answer = served.http.post("/api/deployments/load-sales/run", json=body).raise_for_status()
                started.append((time.monotonic(), answer.json()["id"]))
            return events(served, "deployment.late")

        [event] = eventually(late, within_s=120)
        run = event["payload"]["flow_run"]
        assert run in [id for _, id in started]
        assert (event["payload"]["state"], event["resource"]["deployment"]) == ("Running", "load-sales")
        eventually(lambda: served.get(f"/api/runs/{run}")["state"] == "Cancelled", within_s=60)

        def replaced() -> bool:
            found = served.get("/api/runs?deployment=load-sales&state=Completed")
            return [each["parameters"] for each in found] == [{"seconds": 0}]

        eventually(replaced, within_s=60)
        assert served.fired() == {"takes-too-long": 1}
