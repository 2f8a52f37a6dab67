"""Rule tests that follow what actions emit: when it comes, what it carries, and where a chain ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from whenthen.rules import load_rules
from whenthen.rules.following import playing
from whenthen.rules.test_runner import TestReport, load_tests, run_tests
from whenthen.schemas.errors import InvalidRules

RULES = """
deployments:
  - {name: load, command: [sh, load.sh]}
automations:
  - name: first
    trigger: {expect: a, for_each: id}
    actions:
      - emit-event: b
        resource: {id: "{{ event.resource.id }}-b"}
        payload: {n: $.payload.n}
  - name: second
    trigger: {expect: b, for_each: id}
    actions: [{emit-event: c, payload: $.payload}]
  - name: quiet
    trigger: {expect: c, posture: proactive, after: b, within: 5m, for_each: $.payload.n}
  - name: runs
    trigger: {expect: run}
    actions: [{run-deployment: load, parameters: {n: "$.payload.n", m: "{{ event.id }}!"}}]
  - name: after-run
    trigger: {expect: "flow-run.*", match: {deployment: load}, when: event.payload.parameters.n == 7}
    actions: [{emit-event: "ran.{{ event.payload.state }}"}]
  - name: told
    trigger: {expect: "automation.action.*", when: event.payload.action == "run-deployment"}
  - name: ring-one
    trigger: {expect: "ring", when: event.payload.go}
    actions: [{emit-event: ring2, payload: $.payload}]
  - name: ring-two
    trigger: {expect: ring2, when: event.payload.go}
    actions: [{emit-event: ring, payload: $.payload}]
  - name: late
    trigger: {expect: wait, collect: {wait: 30s}}
    actions: [{emit-event: waited, resource: {id: w}}]
  - name: waited
    trigger: {expect: waited, threshold: 2, within: 30s}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rules.yaml").write_text(RULES)
    return tmp_path


def report(folder: Path, test: str) -> TestReport:
    (folder / "story.test.yaml").write_text(yaml.safe_dump({"tests": [{"name": "t", **yaml.safe_load(test)}]}))
    return run_tests(load_rules(folder), load_tests(folder))


def failures(folder: Path, test: str) -> tuple[str, ...]:
    return report(folder, test).results[0].failures


def test_what_an_action_emits_comes_back_at_the_time_of_the_firing(folder: Path) -> None:
    assert not failures(
        folder,
        """
follow: true
steps: [{at: 1m, event: a, resource: {id: x}, payload: {n: 1}}, {at: 2m, event: a, resource: {id: y}, payload: {n: 2}}]
only: [quiet]
fires:
  - {automation: first, step: 0}
  - {automation: second, at: 1m, key: {id: x-b}, events: [null], actions: [{event: c, payload: {n: 1}}]}
  - {automation: first, step: 1}
  - {automation: second, at: 2m, key: {id: y-b}}
""",
    )


def test_without_follow_nothing_comes_back(folder: Path) -> None:
    assert not failures(
        folder, "{steps: [{at: 0s, event: a}], fires: [{automation: first}], not_fired: [{automation: second}]}"
    )


def test_a_firing_at_a_deadline_emits_at_the_deadline_and_not_at_the_next_step(folder: Path) -> None:
    steps = "[{at: 0s, event: wait}, {at: 40s, event: wait}, {at: 1h}]"
    wanted = "[{automation: late, at: 30s}, {automation: late, at: 70s}]"
    assert not failures(
        folder, f"{{follow: true, steps: {steps}, fires: {wanted}, not_fired: [{{automation: waited}}]}}"
    )
    steps = "[{at: 0s, event: wait}, {at: 31s, event: waited}, {at: 1h}]"
    assert not failures(
        folder, f"{{follow: true, steps: {steps}, fires: [{{automation: waited, at: 31s, events: [null, 1]}}]}}"
    )


def test_an_outcome_brings_its_event_and_that_of_the_run(folder: Path) -> None:
    assert not failures(
        folder,
        """
follow: true
outcomes: [{automation: runs, action: run-deployment, run: Completed, after: 10m}]
steps: [{at: 0s, event: run, id: e1, payload: {n: 7}}, {at: 10m}]
fires:
  - {automation: runs, step: 0, actions: [{deployment: load, parameters: {n: 7, m: "e1!"}}]}
  - {automation: told, at: 10m}
  - {automation: after-run, at: 10m, actions: [{event: ran.Completed}]}
""",
    )


def test_a_failed_action_has_its_reason_and_no_run(folder: Path) -> None:
    assert not failures(
        folder,
        """
follow: true
outcomes: [{automation: runs, outcome: failed, reason: timeout}]
steps: [{at: 0s, event: run, payload: {n: 7}}]
fires: [{automation: told, at: 0s}]
not_fired: [{automation: after-run}]
""",
    )


def test_an_outcome_after_the_last_step_does_not_come(folder: Path) -> None:
    assert not failures(
        folder,
        """
follow: true
outcomes: [{automation: runs, run: Failed, after: 10m}]
steps: [{at: 0s, event: run, payload: {n: 7}}, {at: 9m}]
not_fired: [{automation: after-run}, {automation: told}]
""",
    )


def test_a_chain_that_does_not_end_fails_the_test_and_is_named(folder: Path) -> None:
    test = "{follow: true, steps: [{at: 3s, event: ring, payload: {go: true}}], fires: [{automation: ring-one}]}"
    (failure,) = failures(folder, test)
    assert failure.startswith(
        "ring-one would fire without end: 8 firings led to it at 3s, ring-one -> ring-two -> ring-one"
    )
    assert failure.endswith("expect it: not_fired: [{automation: ring-one, reason: loop}]")


def test_a_chain_that_is_expected_to_be_stopped_is_no_failure(folder: Path) -> None:
    fires = ", ".join(["{automation: ring-one}, {automation: ring-two}"] * 4)
    ring = "follow: true, steps: [{at: 0s, event: ring, payload: {go: true}}]"
    assert not failures(folder, f"{{{ring}, fires: [{fires}], not_fired: [{{automation: ring-one, reason: loop}}]}}")
    (failure,) = failures(folder, f"{{{ring}, fires: [{fires}], not_fired: [{{automation: ring-two, reason: loop}}]}}")
    assert failure.startswith("ring-one would fire without end")


def test_a_failure_names_the_event_that_came_back_and_the_key(folder: Path) -> None:
    unexpected, failure = failures(
        folder,
        "{follow: true, steps: [{at: 5s, event: a, resource: {id: x}, payload: {n: 1}}], not_fired: [{automation: second}]}",
    )
    assert unexpected == "second fired unexpectedly at 5s for b of first at 5s (id=x-b)"
    assert failure == "not_fired[0]: second fired at 5s for b of first at 5s (id=x-b)"
    test = "{follow: true, steps: [{at: 0s, event: wait}, {at: 1h}], fires: [{automation: waited}]}"
    (failure,) = failures(folder, test)
    assert failure == "fires[0]: waited did not fire: waited of late at 30s: below_threshold (1 of 2 within 30 s)"


def test_what_an_action_can_not_emit_is_said_where_a_firing_is_missing(folder: Path) -> None:
    (failure,) = failures(folder, "{follow: true, steps: [{at: 0s, event: a}], fires: [{automation: second}]}")
    assert failure.startswith("fires[0]: second did not fire: nothing came of first: actions[0].payload.n: $.payload.n")


@pytest.mark.takes(2)
def test_more_events_than_a_test_takes_are_an_error(tmp_path: Path) -> None:
    fan = [{"name": f"fan-{n}", "trigger": {"expect": "x.*"}, "actions": [{"emit-event": f"x.{n}"}]} for n in range(12)]
    for each in fan:
        each["trigger"] = {"expect": "x.*", "when": "event.payload == event.payload"}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"automations": fan}))
    (failure,) = failures(tmp_path, "{follow: true, steps: [{at: 0s, event: x.y}], fires: [{automation: fan-0}]}")
    assert failure.startswith("more than 10,000 events came back of firings until 0s; narrow")


def test_more_deadlines_than_a_test_takes_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playing, "MOST_STOPS", 60)
    minutely = {"name": "minutely", "trigger": {"type": "schedule", "cron": "* * * * *"}, "actions": ["do-nothing"]}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"automations": [minutely]}))
    assert not failures(
        tmp_path, "{follow: true, steps: [{at: 2m}], fires: [{automation: minutely}, {automation: minutely}]}"
    )
    (failure,) = failures(tmp_path, "{follow: true, steps: [{at: 3650d}], fires: [{automation: minutely}]}")
    assert failure == "more than 60 deadlines passed until 1h1m; end the test sooner, or leave out `follow`"


@pytest.mark.parametrize(
    ("test", "said"),
    [
        ("{outcomes: [{automation: runs}]}", "`outcomes` are played by a test with `follow: true`"),
        ("{follow: true, outcomes: [{automation: runs, outcome: failed, run: Failed}]}", "`run` is the state of a run"),
        (
            "{follow: true, outcomes: [{automation: runs, action: emit-event, run: Failed}]}",
            "`run` is the state of a run",
        ),
        ("{follow: true, outcomes: [{automation: runs, run: Done}]}", "Completed"),
    ],
)
def test_outcomes_that_can_not_be_are_refused(folder: Path, test: str, said: str) -> None:
    more = {"steps": [{"at": "0s"}], "fires": [{"automation": "runs"}]}
    content = {"tests": [{"name": "t", **yaml.safe_load(test), **more}]}
    (folder / "story.test.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(InvalidRules, match=said):
        load_tests(folder)


def test_an_outcome_of_an_unknown_automation_is_a_failure(folder: Path) -> None:
    test = "{follow: true, outcomes: [{automation: rnus}], steps: [{at: 0s}], not_fired: [{automation: runs}]}"
    assert failures(folder, test) == ("there is no automation 'rnus' in the rules; did you mean 'runs'?",)
