"""The shipped alerts in a real Prometheus that scrapes a real server, and the way back through a real Alertmanager."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.deploy.monitored import Monitored
from tests.patience import eventually

pytestmark = [
    pytest.mark.requires("prometheus", "prometheus-alertmanager", "nats-server"),
    pytest.mark.takes(15),
]

RULES = """
automations:
  - name: load
    trigger: {expect: go}
    actions: [{resume-deployment: "{{ event.payload.deployment }}"}]
  - name: nightly
    trigger: {expect: night}
    expected_every: 1s
    actions: do-nothing
  - name: react
    trigger:
      expect: alertmanager.alert.firing
      match: {alertname: WhenthenAutomationSilent}
      for_each: $.payload.labels.automation
    actions: do-nothing
"""


@pytest.fixture(scope="module")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitored]:
    made = Monitored(tmp_path_factory.mktemp("monitored"), RULES)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def test_the_first_burst_of_failures_is_seen_whole_and_alerts(monitored: Monitored) -> None:
    failed = 'whenthen_actions_total{automation="load",outcome=~"failed|dead"}'
    at_zero = {("load", "dead"): 0.0, ("load", "failed"): 0.0}
    eventually(lambda: monitored.query(f"sum by (automation, outcome) ({failed})") == at_zero)
    for number in range(12):
        monitored.server.emit("go", {"deployment": f"missing-{number}"})

    def increase() -> float:
        return monitored.query(f"sum by (automation) (increase({failed}[10m]))").get(("load",), 0.0)

    # Prometheus extrapolates over half the time between two scrapes, a share that shrinks with each of them
    eventually(lambda: 11.9 < increase() < 12.5)
    alert = {
        "alertname": "WhenthenActionsFailing",
        "automation": "load",
        "type": "resume-deployment",
        "severity": "warning",
    }
    eventually(lambda: alert in monitored.firing())
    assert not [each for each in monitored.firing() if each.get("automation") == "react"]


def test_a_rule_fires_for_the_silence_of_another_through_prometheus_and_alertmanager(monitored: Monitored) -> None:
    eventually(lambda: monitored.server.fired()["react"], within_s=40)
    events = monitored.server.get("/api/events?event=alertmanager.alert.firing&limit=1000")
    labels = {each["id"]: each["payload"]["labels"] for each in events}
    (firing,) = (each for each in monitored.server.get("/api/firings?limit=1000") if each["automation"] == "react")
    assert labels[firing["event"]]["alertname"] == "WhenthenAutomationSilent"
    assert labels[firing["event"]]["automation"] == "nightly"


def test_a_worker_is_scraped_beside_the_server_and_its_end_alerts(monitored: Monitored) -> None:
    both = {("whenthen", monitored.worker), ("whenthen", monitored.server.url.removeprefix("http://"))}
    up = "sum by (job, instance) (up)"
    eventually(lambda: monitored.query(up) == dict.fromkeys(((instance, job) for job, instance in both), 1.0))
    assert monitored.query(f'whenthen_bus_connected{{instance="{monitored.worker}"}}')
    # what it says of automations is not taken for what the server says
    assert not monitored.query(f'whenthen_automation_silent_seconds{{instance="{monitored.worker}"}}')
    monitored.end_worker()
    down = {"alertname": "WhenthenDown", "instance": monitored.worker, "job": "whenthen", "severity": "critical"}
    eventually(lambda: down in monitored.firing())
    assert [each for each in monitored.firing() if each["alertname"] == "WhenthenDown"] == [down]
