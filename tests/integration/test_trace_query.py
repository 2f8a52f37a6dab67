"""`trace`: from any id back to the event that began it, and forward to the last run, over a real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests import forks
from tests.integration.served import TOKEN, Served, environment, serving
from tests.patience import eventually

pytestmark = pytest.mark.takes(15)

RULES = """
deployments:
  - {name: load, command: "true"}
automations:
  - name: started
    trigger: {expect: file.arrived}
    actions: [{run-deployment: load}, {emit-event: file.noted, resource: {id: noted}}]
  - name: after-load
    trigger: {expect: flow-run.Completed, match: {deployment: load}}
    actions: [do-nothing]
  - name: pairs
    trigger: {expect: file.noted, threshold: 2, within: 1h, cooldown: 0s}
    actions: [do-nothing]
"""
MANY = 1500
BRANCHES = "automations:\n" + "".join(
    f"  - {{name: many-{number}, trigger: {{expect: many.things}}, actions: [do-nothing]}}\n" for number in range(MANY)
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("trace"), {"rules.yaml": RULES, "many.yaml": BRANCHES}) as served:
        for name in ("first", "second"):
            event = {"id": name, "event": "file.arrived", "resource": {"id": name}}
            served.http.post("/api/events", json=event).raise_for_status()
        eventually(lambda: served.fired() == {"started": 2, "after-load": 2, "pairs": 1}, within_s=60)
        eventually(lambda: not served.get("/api/actions?outcome=waiting"), within_s=60)
        yield served


def names(report: dict[str, Any]) -> set[tuple[str, str, str]]:
    return {
        (item["kind"], item["name"], item["state"])
        for item in report["items"]
        if item["kind"] not in ("event", "decision") or not item["name"].startswith(("flow-run", "automation."))
    }


EVERYTHING = {
    ("event", "file.arrived", ""),
    ("firing", "started", "Triggered"),
    ("action", "run-deployment", "executed"),
    ("action", "emit-event", "executed"),
    ("run", "load", "Completed"),
    ("event", "file.noted", ""),
    ("firing", "after-load", "Triggered"),
    ("firing", "pairs", "Triggered"),
    ("action", "do-nothing", "executed"),
}


def ends(report: dict[str, Any], start: str) -> set[str]:
    """What can be reached over the links from an item."""
    found, new = {start}, {start}
    while new:
        new = {link["target"] for link in report["links"] if link["source"] in new} - found
        found |= new
    return found


def test_an_event_leads_forward_to_the_last_firing(server: Served) -> None:
    report = server.get("/api/trace/first")
    assert report["id"] == "event:first"
    assert names(report) >= EVERYTHING
    reached = ends(report, "event:first")
    assert {each.partition(":")[0] for each in reached} == {"event", "decision", "firing", "action", "run"}
    firings = {item["name"]: item["id"] for item in report["items"] if item["kind"] == "firing"}
    assert {f"firing:{firings[name]}" for name in ("started", "after-load", "pairs")} <= reached
    assert not report["cut"]


def test_a_run_an_action_and_the_last_firing_lead_back_to_the_event(server: Served) -> None:
    report = server.get("/api/trace/first")
    (run,) = [item["id"] for item in report["items"] if item["kind"] == "run"]
    (last,) = [item["id"] for item in report["items"] if item["kind"] == "firing" and item["name"] == "after-load"]
    started = next(item["id"] for item in report["items"] if item["name"] == "run-deployment")
    for wanted, kind in ((run, "run"), (last, "firing"), (started, "action"), (f"{last}.0", "action")):
        back = server.get(f"/api/trace/{wanted}")
        assert back["id"] == f"{kind}:{wanted}"
        assert f"{kind}:{wanted}" in ends(back, "event:first"), (kind, back)


def test_an_event_of_a_run_leads_back_over_the_run_and_its_action(server: Served) -> None:
    (event,) = [
        item
        for item in server.get("/api/trace/first")["items"]
        if item["kind"] == "event" and item["name"] == "flow-run.Completed"
    ]
    back = server.get(f"/api/trace/{event['id']}")
    kinds = {item["kind"] for item in back["items"]}
    assert {"event", "firing", "action", "run"} <= kinds
    assert f"event:{event['id']}" in ends(back, "event:first")


def test_a_run_that_somebody_started_leads_to_its_events_and_what_they_fired(server: Served) -> None:
    started = server.http.post("/api/deployments/load/run", json={}).json()["id"]
    eventually(lambda: server.fired()["after-load"] == 3, within_s=60)
    report = server.get(f"/api/trace/{started}")
    assert {
        ("run", "load", "Completed"),
        ("event", "flow-run.Scheduled", ""),
        ("event", "flow-run.Completed", ""),
        ("firing", "after-load", "Triggered"),
    } <= {(item["kind"], item["name"], item["state"]) for item in report["items"]}
    (last,) = [item["id"] for item in report["items"] if item["name"] == "flow-run.Completed"]
    assert f"event:{last}" in ends(report, f"run:{started}")
    assert f"event:{last}" in ends(server.get(f"/api/trace/{last}"), f"run:{started}")


def test_a_trace_of_many_branches_is_bounded_and_says_so(server: Served) -> None:
    server.http.post(
        "/api/events", json={"id": "wide", "event": "many.things", "resource": {"id": "m"}}
    ).raise_for_status()
    eventually(lambda: sum(server.fired().values()) >= 1000, within_s=60)
    report = server.get("/api/trace/wide")
    assert report["cut"]
    assert len(report["items"]) == 1000
    assert any(" things are shown; left out are " in note for note in report["notes"])
    printed = forks.run(
        ["trace", "wide", "--url", server.url], env=environment(WHENTHEN_API_TOKEN=TOKEN), within_s=60
    ).stdout.splitlines()
    assert len(printed) < 100, "a tree that can be read"
    assert "many.things" in printed[0]
    assert any(line.strip().startswith("... and ") for line in printed if "--json has them" in line)
    assert any(" things are shown; left out are " in line for line in printed)
    (last,) = [item for item in report["items"] if item["kind"] == "firing"][-1:]
    printed = forks.run(
        ["trace", last["id"], "--url", server.url], env=environment(WHENTHEN_API_TOKEN=TOKEN), within_s=60
    ).stdout.splitlines()
    assert any(last["id"] in line and "<- asked for" in line for line in printed)


@pytest.mark.parametrize("wanted", ["nothing.of/this kind", "0" * 32, f"{'0' * 32}.7", "..", "%2e%2e"])
def test_an_id_that_nothing_has_is_not_found(server: Served, wanted: str) -> None:
    answer = server.http.get(f"/api/trace/{wanted}".replace("..", "%2E%2E"))
    assert answer.status_code == 404, answer.text
    assert "error" in answer.json()
