"""The rules' own tests: what passes, what fails, and what the report says."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from whenthen.rules import load_rules
from whenthen.rules.test_runner import TestReport, TestResult, junit, load_tests, run_tests
from whenthen.schemas.errors import InvalidInput, InvalidRules

RULES = """
automations:
  - name: pager
    trigger: {expect: job.failed, match: {team: "data-*"}, for_each: id, threshold: 3, within: 60s}
    actions:
      - send-notification: ops
        body: "{{ event.resource.id }} failed {{ events | length }} times, last {{ event.payload.code }}"
  - name: silent
    trigger: {expect: beat, after: beat, posture: proactive, within: 10s, for_each: id, resolve_on: back}
    actions_on_resolve: [do-nothing]
  - name: untested
    trigger: {expect: x}
notifiers:
  - {name: ops, urls: "json://127.0.0.1:9/"}
"""

FAILURES = """
      - {at: 0s, event: job.failed, resource: {id: job-7, team: data-x}, payload: {code: 1}}
      - {at: 20s, event: job.failed, resource: {id: job-7, team: data-x}, payload: {code: 2}}
      - {at: 40s, event: job.failed, resource: {id: job-7, team: data-x}, payload: {code: 3}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rules.yaml").write_text(RULES)
    return tmp_path


def report(folder: Path, tests: str) -> TestReport:
    (folder / "story.test.yaml").write_text("tests:\n" + tests)
    return run_tests(load_rules(folder), load_tests(folder))


def only_failure(folder: Path, tests: str) -> str:
    results = report(folder, tests).results
    assert len(results) == 1
    assert len(results[0].failures) == 1
    return results[0].failures[0]


def test_a_story_with_everything_expected_passes(folder: Path) -> None:
    result = report(
        folder,
        f"""
  - name: three failures page once
    steps: {FAILURES}
      - {{at: 2h}}
    fires:
      - automation: pager
        at: 40s
        step: 2
        key: {{id: job-7}}
        events: [0, 1, 2]
        actions: [{{type: send-notification, notifier: ops, body: "job-7 failed 3 times, last 3"}}]
    not_fired:
      - {{automation: pager, step: 1, reason: below_threshold}}
""",
    )
    assert result.passed
    assert result.uncovered == ("silent", "untested")


def test_a_firing_that_nobody_expected_fails_the_test(folder: Path) -> None:
    failure = only_failure(
        folder,
        f"""
  - name: wrong
    steps: {FAILURES}
    not_fired: [{{automation: pager, step: 0}}]
""",
    )
    assert failure == "pager fired unexpectedly at 40s for step 2 (id=job-7)"


def test_a_missing_firing_is_reported_with_the_reason_and_the_value(folder: Path) -> None:
    failure = only_failure(
        folder,
        """
  - name: wrong
    steps: [{at: 0s, event: job.failed, resource: {team: web}}]
    fires: [{automation: pager}]
""",
    )
    assert failure == 'fires[0]: pager did not fire: step 0: label_mismatch (match.team: "web" is not "data-*")'


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        ("{automation: pager, at: 41s}", "at is 40s, not 41s"),
        ("{automation: pager, step: 1}", "it fired for step 2, not 1"),
        ("{automation: pager, key: {id: other}}", "key is {'id': 'job-7'}, not {'id': 'other'}"),
        ("{automation: pager, events: [2]}", "events are those of steps [0, 1, 2], not [2]"),
        ("{automation: pager, state: Resolved}", "state is Triggered, not Resolved"),
        ("{automation: pager, actions: []}", "1 actions, not 0; `partial: true` lets others be there"),
        ("{automation: pager, actions: [{notifier: dev}]}", "actions[0].notifier is 'ops', not 'dev'"),
    ],
)
def test_a_firing_that_differs_says_in_what(folder: Path, expected: str, said: str) -> None:
    results = report(folder, f"\n  - name: wrong\n    steps: {FAILURES}\n    fires: [{expected}]\n").results
    assert results[0].failures[0] == f"fires[0]: pager fired (id=job-7), but {said}"


def test_an_action_that_can_not_be_rendered_fails_with_its_field(folder: Path) -> None:
    steps = FAILURES.replace("{code: 3}", "{}")
    results = report(
        folder, f"\n  - name: wrong\n    steps: {steps}\n    fires: [{{automation: pager, actions: [{{}}]}}]\n"
    ).results
    assert "actions[0].body: " in results[0].failures[0]


def test_another_reason_than_the_expected_one_fails(folder: Path) -> None:
    failure = only_failure(
        folder,
        """
  - name: wrong
    steps: [{at: 0s, event: job.failed, resource: {team: data-x}}]
    not_fired: [{automation: pager, reason: cooldown}]
""",
    )
    assert failure == "not_fired[0]: no decision cooldown: step 0: below_threshold for id=test (1 of 3 within 60 s)"


def test_silence_fires_by_the_clock_and_resolves(folder: Path) -> None:
    result = report(
        folder,
        """
  - name: silence
    steps:
      - {at: 0s, event: beat, resource: {id: a}}
      - {at: 5s, event: beat, resource: {id: a}}
      - {at: 1m}
      - {at: 2m, event: back, resource: {id: a}}
    fires:
      - {automation: silent, at: 15s, key: {id: a}}
      - {automation: silent, state: Resolved, at: 2m, step: 3}
""",
    )
    assert result.results[0].failures == ()


def test_an_unknown_automation_fails_its_test(folder: Path) -> None:
    failure = only_failure(folder, "\n  - name: w\n    steps: [{at: 0s}]\n    fires: [{automation: pagr}]\n")
    assert failure == "there is no automation 'pagr' in the rules; did you mean 'pager'?"


def test_a_deadline_after_the_last_step_is_told(folder: Path) -> None:
    (folder / "absence.yaml").write_text(
        "automations:\n  - name: unpaid\n    trigger: {expect: paid, after: sent, posture: proactive, within: 5m}\n"
        "    actions: [do-nothing]\n"
    )
    failure = only_failure(
        folder,
        "\n  - name: w\n    steps: [{at: 0s, event: sent}, {at: 1m}]\n    fires: [{automation: unpaid}]\n",
    )
    assert "opened" in failure
    assert failure.endswith("; the clock stops at the last step, 1m: for a later deadline add a step such as {at: 1h}")


def test_a_bad_event_in_a_step_names_the_step(folder: Path) -> None:
    failure = only_failure(
        folder, '\n  - name: w\n    steps: [{at: 0s, event: ""}]\n    fires: [{automation: pager}]\n'
    )
    assert failure == "steps[0].event: empty"


def test_a_misspelt_field_is_refused_with_its_place(folder: Path) -> None:
    (folder / "story.test.yaml").write_text("tests:\n  - name: w\n    stepz: []\n")
    with pytest.raises(InvalidRules) as refused:
        load_tests(folder)
    text = str(refused.value)
    assert "story.test.yaml:3:5: tests[0].stepz" in text
    assert "steps" in text


def test_a_file_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(InvalidInput, match=r"gone\.test\.yaml: No such file or directory; name a file of tests"):
        load_tests(folder / "gone.test.yaml")


def test_steps_that_go_back_in_time_are_refused(folder: Path) -> None:
    (folder / "story.test.yaml").write_text(
        "tests:\n  - name: w\n    steps: [{at: 5s}, {at: 1s}]\n    fires: [{automation: pager}]\n"
    )
    with pytest.raises(InvalidRules, match=r"steps\[1\] is earlier"):
        load_tests(folder)


def test_the_junit_report_counts_and_names_failures(folder: Path) -> None:
    result = report(folder, f"\n  - name: wrong\n    steps: {FAILURES}\n    fires: [{{automation: silent}}]\n")
    suite = ElementTree.fromstring(junit(result))
    assert suite.attrib["tests"] == "1"
    assert suite.attrib["failures"] == "1"
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert "silent did not fire" in failure.attrib["message"]


def test_the_junit_report_is_xml_whatever_a_failure_holds() -> None:
    failed = TestResult(file="a.test.yaml", name="a", failures=("it fired (id=\x01\ud800é)",))
    case = ElementTree.fromstring(junit(TestReport(results=(failed,), uncovered=()))).find("testcase/failure")
    assert case is not None
    assert case.attrib["message"] == case.text == "it fired (id=??é)"


def test_tests_in_hidden_folders_are_no_tests_of_the_rules(folder: Path) -> None:
    """As rules in them are none: a mounted folder of Kubernetes has each file there a second time."""
    (folder / "..2026").mkdir()
    (folder / "..2026" / "copy.test.yaml").write_text("nonsense: [")
    (folder / "story.test.yaml").write_text(
        "tests:\n  - {name: w, steps: [{at: 5s}], not_fired: [{automation: pager}]}\n"
    )
    assert [file for file, _ in load_tests(folder)] == ["story.test.yaml"]


def test_an_event_that_no_rule_asks_for_is_explained_as_well(folder: Path) -> None:
    failure = only_failure(
        folder, "\n  - name: w\n    steps: [{at: 0s, event: job.faild}]\n    fires: [{automation: pager}]\n"
    )
    assert failure.startswith("fires[0]: pager did not fire: step 0: expect: job.failed, found job.faild")


def test_only_adds_automations_and_takes_none_of_those_named_away(folder: Path) -> None:
    test = f"\n  - name: both\n    only: [silent]\n    steps: {FAILURES}\n    fires: [{{automation: pager}}]\n"
    assert report(folder, test).passed
    beat = "[{at: 0s, event: beat, resource: {id: a}}, {at: 1m}]"
    test = f"\n  - name: both\n    only: [silent]\n    steps: {beat}\n    not_fired: [{{automation: pager}}]\n"
    assert "silent fired unexpectedly at 10s" in only_failure(folder, test)


def test_actions_may_be_matched_in_part(folder: Path) -> None:
    (folder / "rules.yaml").write_text(
        """
automations:
  - name: many
    trigger: {expect: up}
    actions:
      - do-nothing
      - {emit-event: a, payload: {x: {y: 1, z: 2}, l: [1, 2]}}
      - {emit-event: b}
"""
    )

    def run(actions: str, *, partial: str = "true") -> bool:
        fires = f"[{{automation: many, partial: {partial}, actions: {actions}}}]"
        steps = "[{at: 0s, event: up}]"
        return report(folder, f"\n  - name: part\n    steps: {steps}\n    fires: {fires}\n").passed

    assert run("[{event: b}]")
    assert run("[{event: a, payload: {x: {z: 2}}}, {event: b}]")
    assert run("[]")
    assert not run("[{event: b}, {event: a}]"), "in order"
    assert not run("[{payload: {x: {z: 3}}}]")
    assert not run("[{payload: {l: [1]}}]"), "lists are whole"
    assert not run("[{event: b}]", partial="false")


def test_tests_can_be_picked_by_name(folder: Path) -> None:
    steps = "[{at: 0s, event: x}]"
    names = ["one", "two", "three"]
    text = "".join(f"\n  - name: {name}\n    steps: {steps}\n    fires: [{{automation: untested}}]\n" for name in names)
    (folder / "story.test.yaml").write_text("tests:\n" + text)
    picked = run_tests(load_rules(folder), load_tests(folder / "story.test.yaml"), name="t*")
    assert [result.name for result in picked.results] == ["two", "three"]


def test_keys_that_begin_with_x_hold_anchors_in_rules_and_tests(folder: Path) -> None:
    (folder / "rules.yaml").write_text(
        "x-quick: &quick {threshold: 2, within: 1m}\nx-unread: [anything, {at: all}]\n"
        "automations:\n  - {name: a, trigger: {expect: up, <<: *quick}, actions: do-nothing}\n"
    )
    (folder / "a.test.yaml").write_text(
        "x-steps: &steps [{at: 0s, event: up}, {at: 1s, event: up}]\n"
        "tests: [{name: t, steps: *steps, fires: [{automation: a, at: 1s}]}]\n"
    )
    assert run_tests(load_rules(folder), load_tests(folder)).passed
    (folder / "rules.yaml").write_text("y-quick: 1\nautomations: []\n")
    with pytest.raises(InvalidRules, match="y-quick"):
        load_rules(folder)
