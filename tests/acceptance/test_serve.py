"""`whenthen serve` from start to end: what comes in fires rules, runs deployments, and can be asked about."""

from __future__ import annotations

import hashlib
import hmac
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.patience import eventually
from tests.plain_http import plain_client
from tests.ports import free_port
from whenthen.engine.bus.embedded import find_server

from .conftest import Serving, run_command

pytestmark = pytest.mark.takes(1.5)  # each, one after the other: the file is begun early
PLANTED = "planted-5e1f0c-secret"

RULES = """
webhooks:
  - name: github
    preset: github
    secret: env:PLANTED_SECRET
automations:
  - name: load-on-order
    trigger:
      expect: order.created
      match: {country: "f*"}
      when: event.payload.total > 10
    actions:
      - run-deployment: load
        parameters: {order: $.resource.id, total: $.payload.total}
  - name: tell-the-void
    trigger: {expect: void.called}
    actions:
      - call-webhook: http://127.0.0.1:9/nobody-listens
        headers: {Authorization: Bearer env:PLANTED_SECRET}
        retry: {attempts: 2, delay: 50ms}
  - name: pushed
    trigger: {expect: github.push}
    actions: do-nothing
deployments:
  - name: load
    command: sh -c "echo loading $0 for $1; echo $LOAD_SECRET" {{ order }} {{ total }}
    env: {LOAD_SECRET: env:PLANTED_SECRET}
    schedules:
      - {name: nightly, cron: "0 2 * * *", timezone: Europe/Paris}
  - name: missing-program
    command: no-such-program-anywhere --version
  - name: slow
    command: sleep 600
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    server = Serving(tmp_path_factory.mktemp("serve"), {"rules.yaml": RULES}, env={"PLANTED_SECRET": PLANTED})
    server.start()
    yield server
    assert server.stop() == 0


def test_one_screen_says_what_listens_and_what_was_loaded(server: Serving) -> None:
    screen = server.screen
    assert server.url in screen
    assert f"process {server.pid}" in screen
    assert "nats://127.0.0.1:" in screen
    assert "3 automations, 1 webhooks, 3 deployments" in screen
    assert f"{server.url}/hooks/github" in screen


def test_an_emitted_event_fires_a_rule_that_runs_a_deployment_whose_log_is_shown(server: Serving) -> None:
    said = server.run(
        "emit", "order.created", "-r", "id=order.17,country=fr", "-p", '{"total": 42}', "--id", "order-17"
    )
    assert said == "accepted order.created order-17\n"

    eventually(lambda: [run for run in server.get("/api/runs", deployment="load") if run["state"] == "Completed"])
    firing = server.json("firings", "--automation", "load-on-order")[0]
    assert firing["event"] == "order-17"
    run = server.json("runs", "-d", "load")[0]
    assert run["state"] == "Completed"
    assert run["parameters"] == {"order": "order.17", "total": 42}
    assert run["triggered_by"] == "automation:load-on-order"
    assert server.run("runs", "logs", run["id"]).splitlines()[0] == "loading order.17 for 42"
    assert server.run("runs", "logs", run["id"][:8], "--follow").splitlines()[0] == "loading order.17 for 42"
    assert "Completed" in server.run("runs")
    assert "load-on-order" in server.run("firings")

    again = server.run(
        "emit", "order.created", "-r", "id=order.17,country=fr", "-p", '{"total": 42}', "--id", "order-17"
    )
    assert "it was there already" in again
    assert server.json("events", "show", "order-17")["resource"] == {"id": "order.17", "country": "fr"}


def test_decisions_say_why_a_rule_did_not_fire(server: Serving) -> None:
    server.run("emit", "order.created", "-r", "id=order.18,country=fr", "-p", '{"total": 1}', "--id", "order-18")

    eventually(lambda: _decisions(server, "load-on-order", "order-18"))
    shown = server.json("automations", "show", "load-on-order")["decisions"]
    assert [one["reason"] for one in shown if one["event"] == "order-18"] == ["condition_false"]
    assert "condition_false" in server.run("automations", "show", "load-on-order")
    shown = server.json("automations", "decisions", "load-on-order", "--reason", "condition_false")
    assert [item["event"] for item in shown] == ["order-18"]


def test_a_paused_automation_does_not_fire_until_it_is_resumed(server: Serving) -> None:
    assert server.run("automations", "pause", "pushed") == "pushed is paused\n"
    server.run("emit", "github.push", "-r", "id=repository", "--id", "while-paused")
    decision = eventually(lambda: _decisions(server, "pushed", "while-paused"))[0]
    assert decision["reason"] == "paused"
    assert decision in server.json("automations", "decisions", "pushed")
    assert server.run("automations", "resume", "pushed") == "pushed is active\n"
    server.run("emit", "github.push", "-r", "id=repository", "--id", "after-resume")
    eventually(lambda: "after-resume" in {item["event"] for item in server.get("/api/firings", automation="pushed")})
    assert "while-paused" not in {item["event"] for item in server.json("firings", "-a", "pushed")}


def test_a_signed_push_comes_in_and_a_forged_one_does_not(server: Serving) -> None:
    body = b'{"ref":"refs/heads/main","repository":{"full_name":"acme/shop"}}'
    headers = {
        "Content-Type": "application/json",
        "X-GitHub-Event": "push",
        "X-GitHub-Delivery": "5d1e",
        "X-Hub-Signature-256": "sha256=" + hmac.new(PLANTED.encode(), body, hashlib.sha256).hexdigest(),
    }
    with server.client() as client:
        taken = client.post("/hooks/github", content=body, headers=headers)
        forged = client.post("/hooks/github", content=body + b" ", headers=headers)
        unsigned = client.post("/hooks/github", content=body, headers={"Content-Type": "application/json"})
    assert (taken.status_code, taken.json()["ids"]) == (202, ["github/5d1e"])
    assert (forged.status_code, unsigned.status_code) == (403, 401)
    assert "github.push" in server.run("events", "--event", "github.*")


def test_a_run_whose_command_does_not_exist_fails_and_says_so(server: Serving) -> None:
    refused = run_command("deployments", "run", "missing-program", "--wait", env={"WHENTHEN_URL": server.url})
    assert refused.returncode == 1
    assert "command 'no-such-program-anywhere' not found in PATH" in refused.stdout
    run = server.json("runs", "-d", "missing-program")[0]
    assert run["state"] in ("Failed", "Crashed")
    line = f"flow run {run['id']} of deployment missing-program: {run['state']} at attempt"
    eventually(lambda: line in server.log)
    assert server.log.count(line) == 1


def test_a_deployment_is_run_by_hand_with_typed_parameters(server: Serving) -> None:
    said = server.run("deployments", "run", "load", "-p", "order=by hand", "-p", "total=7", "--wait")
    assert "loading by hand for 7" in said
    assert "Completed" in said
    once = server.json("deployments", "run", "load", "-p", "order=1", "-p", "total=1", "--key", "the-same")
    twice = server.json("deployments", "run", "load", "-p", "order=1", "-p", "total=1", "--key", "the-same")
    assert once["id"] == twice["id"]


def test_a_run_is_cancelled(server: Serving) -> None:
    run = server.json("deployments", "run", "slow")
    eventually(lambda: server.get(f"/api/runs/{run['id']}")["state"] == "Running")
    server.run("runs", "cancel", run["id"])
    eventually(lambda: server.get(f"/api/runs/{run['id']}")["state"] == "Cancelled")
    assert server.json("runs", "show", run["id"])["state"] == "Cancelled"


def test_a_schedule_is_paused_and_resumed(server: Serving) -> None:
    assert "nightly: 0 2 * * * Europe/Paris (paused)" in server.run("deployments", "pause", "load")
    assert "paused" in server.run("deployments")
    assert "(next 2" in server.run("deployments", "resume", "load", "--schedule", "nightly")
    assert "has no schedule 'nihtly'; did you mean 'nightly'" in server.refuse(
        "deployments", "pause", "load", "--schedule", "nihtly"
    )


def test_an_action_that_used_up_its_tries_is_listed_and_redriven(server: Serving) -> None:
    server.run("emit", "void.called", "-r", "id=void", "--id", "void-1")
    eventually(lambda: server.get("/api/actions", outcome="dead", automation="tell-the-void"))
    dead = server.json("actions", "dead", "-a", "tell-the-void")
    assert len(dead) == 1
    assert "tell-the-void" in server.run("actions", "dead")
    assert f"{dead[0]['key']} is tried again" in server.run("actions", "redrive", "--all", "-a", "tell-the-void")
    eventually(lambda: [item for item in server.json("actions", "dead") if item["attempt"] == 4])
    key = dead[0]["key"]
    assert f"{key} is tried again" in server.run("actions", "redrive", f"{key[:8]}.0")
    eventually(lambda: [item for item in server.json("actions", "dead") if item["attempt"] == 6])


def test_ids_are_taken_as_a_table_shows_them(server: Serving) -> None:
    run = server.post("/api/deployments/load/run", {"parameters": {"order": "by id", "total": 1}}).json()
    eventually(lambda: server.json("runs", "show", run["id"])["state"] == "Completed")
    about = ("events", "--resource", f"whenthen.flow-run.{run['id']}")
    eventually(lambda: [item for item in server.json(*about) if item["event"] == "flow-run.Completed"])
    events = server.json(*about)
    shown = server.run("runs", "-n", "1").splitlines()[1].split()
    short = next(word for word in shown if run["id"].startswith(word))
    assert 8 <= len(short) < 32
    assert server.json("runs", "show", short)["id"] == run["id"]
    assert server.run("runs", "logs", short).startswith("loading by id")
    assert run["id"] in server.run("runs", "cancel", short)
    table = server.run("events", "--resource", f"whenthen.flow-run.{run['id']}").splitlines()[1:]
    assert [server.json("events", "show", line.split()[-1])["id"] for line in table] == [item["id"] for item in events]
    assert "there is no flow run 'abc'; a shortened id has at least 6 characters" in server.refuse(
        "runs", "show", "abc"
    )
    assert "give more of the id" in server.refuse("events", "show", run["id"])


def test_what_is_not_there_is_said_with_near_names(server: Serving) -> None:
    assert "there is no automation 'load-on-ordr'; did you mean 'load-on-order'" in server.refuse(
        "automations", "show", "load-on-ordr"
    )
    assert "no flow run" in server.refuse("runs", "show", "0" * 32)
    assert "no event" in server.refuse("events", "show", "never-sent")


def test_bad_events_are_refused_with_the_field(server: Serving) -> None:
    assert "resource.id: missing" in server.refuse("emit", "order.created", "-r", "country=fr")
    assert "occurred" in server.refuse("emit", "order.created", "-r", "id=1", "--occurred", "yesterday")


def test_a_second_server_on_the_same_data_is_refused_naming_the_first(server: Serving) -> None:
    second = run_command("serve", server.rules, "--port", "0", "--data-dir", server.data_dir, env=server.env)
    assert second.returncode == 1
    assert f"in use by process {server.pid}" in second.stderr
    assert "Traceback" not in second.stderr


def test_metrics_count_what_happened(server: Serving) -> None:
    server.run("emit", "counted.once", "-r", "id=counted")
    text = server.open("/metrics").text
    assert 'whenthen_events_received_total{source="api"}' in text
    assert "whenthen_rules_loaded" in text


def test_no_planted_secret_is_in_any_log(server: Serving) -> None:
    """Runs last: everything above used the secret, in a signature, a header, and a run's environment."""
    assert PLANTED not in server.log
    assert PLANTED not in server.screen
    for run in server.json("runs"):
        assert PLANTED not in str(server.get(f"/api/runs/{run['id']}/logs"))
    for listing in ("events", "actions", "deployments", "automations", "firings", "status"):
        assert PLANTED not in str(server.get(f"/api/{listing}"))


# Servers of their own


def test_rules_are_read_again_without_a_restart_and_a_bad_file_changes_nothing(serving: Callable[..., Serving]) -> None:
    server = serving({"one.yaml": "automations: [{name: one, trigger: {expect: a.b}, actions: do-nothing}]"})
    server.write("two.yaml", "automations: [{name: two, trigger: {expect: a.b}, actions: do-nothing}]")
    eventually(lambda: {item["name"] for item in server.get("/api/automations")} == {"one", "two"})

    server.write("two.yaml", "automations:\n  - name: three\n    trigger: {expct: a.b}\n    actions: do-nothing\n")
    problems = eventually(lambda: server.get("/api/status")["problems"])
    assert (problems[0]["file"], problems[0]["line"], problems[0]["column"]) == ("two.yaml", 3, 15)
    assert 'did you mean "expect"' in problems[0]["message"]
    assert "two.yaml:3:15" in server.log
    assert {item["name"] for item in server.get("/api/automations")} == {"one", "two"}
    assert "whenthen_rules_rejected_total 1.0" in server.open("/metrics").text
    server.run("emit", "a.b", "-r", "id=x")
    eventually(lambda: {item["automation"] for item in server.get("/api/firings")} == {"one", "two"})

    (server.rules / "two.yaml").unlink()
    eventually(lambda: {item["name"] for item in server.get("/api/automations")} == {"one"})
    assert not server.get("/api/status")["problems"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_drains_and_goes_on_where_it_was(serving: Callable[..., Serving], number: int) -> None:
    server = serving(
        {
            "rules.yaml": """
automations:
  - {name: pair, trigger: {expect: half.done, threshold: 2, within: 1h}, actions: do-nothing}
"""
        }
    )
    server.run("emit", "half.done", "-r", "id=x", "--id", "first-half")
    assert server.stop(number) == 0
    with pytest.raises(httpx.TransportError):
        server.post("/api/events", {})
    server.start()
    server.run("emit", "half.done", "-r", "id=x", "--id", "second-half")
    firing = eventually(lambda: server.get("/api/firings"))[0]
    assert firing["events"] == ["first-half", "second-half"]


def test_bad_rules_do_not_start(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("automations:\n  - {name: a, trigger: {expct: x}, actions: do-nothing}\n")
    done = run_command("serve", tmp_path, "--port", "0", "--data-dir", tmp_path / "data")
    assert done.returncode == 1
    assert "rules.yaml:2:" in done.stderr
    assert 'did you mean "expect"' in done.stderr
    assert "Traceback" not in done.stderr


def test_other_machines_are_let_in_with_a_token_only(serving: Callable[..., Serving], tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("automations: []")
    refused = run_command("serve", tmp_path, "--host", "0.0.0.0", "--port", "0", "--data-dir", tmp_path / "data")
    assert refused.returncode == 1
    assert "there is no API token" in refused.stderr

    server = serving({"rules.yaml": "automations: []"}, env={"WHENTHEN_API_TOKEN": "sixteen-letters-x"})
    assert server.json("automations") == []
    without = run_command("automations", env={"WHENTHEN_URL": server.url})
    assert without.returncode == 1
    assert "set WHENTHEN_API_TOKEN" in without.stderr
    assert server.get("/healthz") == {"ok": True}
    assert "sixteen-letters-x" not in server.log + server.screen


def test_a_server_without_a_token_makes_one_that_only_commands_of_its_user_find(
    serving: Callable[..., Serving],
) -> None:
    server = serving({"rules.yaml": "automations: []"})
    second = serving({"rules.yaml": "automations: []"})
    token = (server.data_dir / "api-token").read_text().strip()
    assert (server.data_dir / "api-token").stat().st_mode & 0o777 == 0o600
    assert token not in server.log + server.screen
    assert server.open("/api/status").status_code == 401
    for asked in (server, second):
        assert asked.json("automations") == []
    elsewhere = run_command("automations", env={"WHENTHEN_URL": server.url, "XDG_STATE_HOME": str(server.data_dir)})
    assert elsewhere.returncode == 1
    assert "set WHENTHEN_API_TOKEN to the server's API token: the file api-token" in elsewhere.stderr
    named = run_command(
        "automations",
        env={
            "WHENTHEN_URL": server.url,
            "XDG_STATE_HOME": str(server.data_dir),
            "WHENTHEN_API_TOKEN": f"file:{server.data_dir}/api-token",
        },
    )
    assert named.returncode == 0

    server.stop()
    server.start()
    assert (server.data_dir / "api-token").read_text().strip() == token
    assert server.json("automations") == []


def test_a_page_of_another_site_starts_no_run(serving: Callable[..., Serving]) -> None:
    server = serving({"rules.yaml": "automations: []"}, env={"WHENTHEN_OPEN_LOOPBACK": "true"})
    assert server.json("status")["roles"]
    event = b'{"event": "a.b", "resource": {"id": "x"}}'
    for headers, status in (
        ({"Origin": "https://evil.example", "Content-Type": "application/json"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Content-Type": "application/json"}, 403),
        ({"Host": f"evil.example:{server.port}", "Content-Type": "application/json"}, 403),
        ({"Content-Type": ""}, 415),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/json", "Host": f"localhost:{server.port}"}, 202),
    ):
        with plain_client(base_url=server.url) as client:
            answer = client.post("/api/events", content=event, headers=headers)
        assert answer.status_code == status, answer.text
    assert len(server.get("/api/events")) == 1


def test_a_nats_server_that_lacks_what_is_needed_is_refused_naming_it(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("automations: []")
    port = free_port()
    with subprocess.Popen([str(find_server()), "-a", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL) as nats:
        eventually(lambda: _listens(port))
        url = f"nats://127.0.0.1:{port}"
        done = run_command("serve", tmp_path, "--port", "0", "--data-dir", tmp_path / "data", "--nats", url)
        nats.terminate()
    assert done.returncode == 1
    assert "JetStream" in done.stderr
    assert "Traceback" not in done.stderr


def _decisions(server: Serving, automation: str, event: str) -> list[Any]:
    """What was decided about an event for an automation, by now."""
    found = server.get(f"/api/automations/{automation}/decisions")
    return [decision for decision in found if decision["event"] == event]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_no_server_is_said_with_what_to_start() -> None:
    done = run_command("events", "--url", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert "whenthen serve RULES" in done.stderr
    assert "Traceback" not in done.stderr
