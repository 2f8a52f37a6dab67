"""Steps of tests that are requests to a webhook, and `whenthen hooks try`: the events are those that a server would make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from whenthen.cli.main import app
from whenthen.rules import load_rules
from whenthen.rules.test_runner import load_tests, run_tests

RULES = """
webhooks:
  - {name: github, preset: github, secret: env:GITHUB_SECRET}
  - name: shop
    verify: {type: bearer, token: env:SHOP}
    map:
      each: $.body.orders
      when: item.paid
      event: order.paid
      resource: {id: "order.{{ item.number }}"}
      id: $.item.number
automations:
  - name: deploy
    trigger: {expect: github.push, match: {branch: main}}
    actions: [do-nothing]
  - name: ship
    trigger: {expect: order.paid}
    actions: [do-nothing]
"""
PUSH = {"ref": "refs/heads/main", "repository": {"full_name": "acme/app"}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rules.yaml").write_text(RULES)
    return tmp_path


def failures(folder: Path, test: str) -> tuple[str, ...]:
    (folder / "a.test.yaml").write_text("tests:\n  - name: one\n" + test)
    [result] = run_tests(load_rules(folder), load_tests(folder)).results
    return result.failures


def test_step_that_is_a_request_fires_as_its_events_would(folder: Path) -> None:
    step = f"{{at: 5s, webhook: github, headers: {{X-GitHub-Event: push}}, body: {json.dumps(PUSH)}}}"
    assert failures(folder, f"    steps: [{step}]\n    fires: [{{automation: deploy, at: 5s, step: 0}}]\n") == ()
    other = step.replace("heads/main", "heads/other")
    [failure] = failures(folder, f"    steps: [{other}]\n    fires: [{{automation: deploy}}]\n")
    assert failure.startswith("fires[0]: deploy did not fire: step 0:")
    assert '"other" is not "main"' in failure


def test_request_of_several_events_is_one_step_and_a_redelivery_fires_once(folder: Path) -> None:
    body = {"orders": [{"number": 1, "paid": True}, {"number": 2, "paid": True}, {"number": 3, "paid": False}]}
    step = f"{{at: 0s, webhook: shop, headers: {{content-type: application/json}}, body: {json.dumps(body)}}}"
    again = step.replace("at: 0s", "at: 1s")
    fires = "[{automation: ship, step: 0, at: 0s}, {automation: ship, step: 0, at: 0s}]"
    assert failures(folder, f"    steps: [{step}, {again}]\n    fires: {fires}\n") == ()


def test_request_of_which_nothing_comes_says_why_where_a_firing_is_missed(folder: Path) -> None:
    step = "{at: 0s, webhook: shop, body: {orders: [{number: 1, paid: false}]}}"
    [failure] = failures(folder, f"    steps: [{step}]\n    fires: [{{automation: ship}}]\n")
    assert failure == "fires[0]: ship did not fire: step 0: no event: items[0].map.when: does not hold"


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (
            "{at: 0s, webhook: githb, body: {}}",
            "steps[0].webhook: there is no webhook 'githb' in the rules; did you mean",
        ),
        ("{at: 0s, webhook: github, body: {}}", "steps[0].headers.x-github-event: missing"),
        ("{at: 0s, webhook: github, body: '{'}", "steps[0].body: not JSON at line 1"),
        ("{at: 0s, webhook: github, method: GET}", "steps[0].method: GET: this webhook is called with POST"),
    ],
)
def test_request_that_would_be_refused_fails_the_test_with_its_field(folder: Path, step: str, said: str) -> None:
    [failure] = failures(folder, f"    steps: [{step}]\n    fires: [{{automation: deploy}}]\n")
    assert failure.startswith(said)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("{at: 0s, webhook: github, event: x}", "either `event` or `webhook`"),
        ("{at: 0s, body: {a: 1}}", "say which `webhook`"),
        ("{at: 0s, webhook: github, resource: {id: x}}", "leave it out beside `webhook`"),
    ],
)
def test_step_that_is_two_things_is_refused(folder: Path, step: str, said: str) -> None:
    with pytest.raises(Exception, match=said):
        failures(folder, f"    steps: [{step}]\n    fires: [{{automation: deploy}}]\n")


def hooks_try(folder: Path, *arguments: str, body: Any = PUSH) -> Any:
    file = folder / "body.json"
    file.write_text(json.dumps(body))
    command = ["hooks", "try", "github", "--rules", str(folder / "rules.yaml"), "--body", str(file), *arguments]
    return CliRunner().invoke(app, command)


def test_hooks_try_shows_the_event_and_needs_no_server_and_no_secret(folder: Path) -> None:
    result = hooks_try(folder, "-H", "X-GitHub-Event: push")
    assert result.exit_code == 0, result.output
    assert "github.push" in result.output
    assert "branch: main" in result.output
    [event] = json.loads(hooks_try(folder, "-H", "X-GitHub-Event: push", "--json").output)["events"]
    assert event["resource"]["repository"] == "acme/app"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 1, "headers.x-github-event: missing"),
        (("-H", "nothing"), 2, "`name:value` is expected"),
        (("-X", "PUT"), 1, "is called with POST"),
        (("--rules", "/nowhere"), 1, "/nowhere"),
    ],
)
def test_hooks_try_says_what_a_request_would_be_refused_for(
    folder: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    result = hooks_try(folder, *arguments)
    assert result.exit_code == code
    assert said in " ".join(result.output.split())
