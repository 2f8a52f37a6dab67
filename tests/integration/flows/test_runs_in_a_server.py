"""Flows in a real server and its worker: what they tell is listed and becomes events with lineage, what they ask is answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.integration.served import Served, serving
from tests.patience import eventually

RULES = """
deployments:
  - {name: parent, entrypoint: "flows.py:parent", task_run_events: true, env: {WHENTHEN_LIMIT_DB: "1"}}
  - {name: child, entrypoint: "flows.py:child", env: {WHENTHEN_LIMIT_DB: "1"}}
  - {name: noted, command: "true"}
automations:
  - name: begin
    trigger: {expect: order.placed}
    actions: [{run-deployment: parent, parameters: {order: $.resource.id}}]
  - name: shipped
    trigger: {expect: order.shipped, for_each: id}
    actions: [{run-deployment: noted}]
  - name: refused
    trigger: {expect: task-run.Failed, match: {task: pack}}
    actions: do-nothing
"""
FLOWS = """
from whenthen import flow, get_run_logger, task
from whenthen.concurrency.sync import concurrency
from whenthen.deployments import run_deployment
from whenthen.events import emit_event
from whenthen.runtime import deployment, flow_run

@task
def pack(fails):
    get_run_logger().warning("packing")
    if fails:
        raise ValueError("no box")

@flow
def child(n: int):
    with concurrency("db"):
        return n + 1

@flow
def parent(order: str):
    pack(False)
    pack.submit(True).wait()
    with concurrency("db"):
        started = run_deployment("child", parameters={"n": "1"}, timeout=0)
    found = run_deployment("child", parameters={"n": "41"}, poll_interval=0.1)
    emit_event("order.shipped", {"prefect.resource.id": order}, payload={"boxes": 1})
    emit_event("flow-run.Completed", {"id": "forged"})
    return [found.state.result(), flow_run.id.replace("-", ""), deployment.name]
"""


def _logs(served: Served, run: str) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = served.get(f"/api/runs/{run}/logs?limit=1000")["lines"]
    return lines


def test_a_flow_tells_asks_and_emits_with_the_lineage_of_its_firing(tmp_path: Path) -> None:
    with serving(tmp_path, {"rules.yaml": RULES, "flows.py": FLOWS}) as served:
        served.emit("order.placed", resource={"id": "order.7"})
        eventually(lambda: served.get("/api/runs?deployment=parent&state=Completed"), within_s=60)
        (run,) = served.get("/api/runs?deployment=parent")
        assert run["result"] == [42, run["id"], "parent"], _logs(served, run["id"])
        below = served.get(f"/api/runs/{run['id']}/task-runs")
        tasks = [one for one in below["task_runs"] if one["kind"] == "task"]
        assert [(one["of"], one["state"]) for one in tasks] == [("pack", "Completed"), ("pack", "Failed")]
        logged = [line for line in _logs(served, run["id"]) if line.get("level")]
        assert (logged[0]["text"], logged[0]["level"], logged[0]["name"]) == ("packing", 30, tasks[0]["name"])
        assert any("'flow-run.Completed' was not emitted" in line["text"] for line in _logs(served, run["id"]))

        eventually(lambda: served.get("/api/runs?deployment=noted"))
        (emitted,) = served.get("/api/events?event=order.shipped")
        assert emitted["resource"] == {"id": "order.7"}
        assert emitted["lineage"]["automations"] == ["begin"]
        assert {"role": "flow-run", "id": f"whenthen.flow-run.{run['id']}"}.items() <= emitted["related"][0].items()
        eventually(lambda: served.fired()["refused"] == 1)
        children = served.get("/api/runs?deployment=child")
        assert {child["triggered_by"] for child in children} == {f"run:{run['id']}"}
        deeper = {**run["lineage"], "depth": run["lineage"]["depth"] + 1}
        assert all(child["lineage"] == deeper for child in children)
