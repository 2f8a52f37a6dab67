"""Loading a folder of rules: what is taken, what is refused, and how it is told."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from whenthen.rules import load_rules
from whenthen.rules.folder import MAX_PROBLEMS, Checker, check_rules
from whenthen.rules.reading import documents
from whenthen.schemas.automations import Automation
from whenthen.schemas.errors import InvalidRules

GOOD = """
automations:
  - name: load
    trigger: {expect: s3.file.uploaded, match: {bucket: raw}}
    actions:
      - run-deployment: loader
      - send-notification: ops
deployments:
  - {name: loader, command: echo hello, schedules: [{name: nightly, cron: "0 3 * * *"}]}
notifiers:
  - {name: ops, urls: "env:OPS_URL"}
"""


def problems(folder: Path, text: str | bytes) -> list[str]:
    file = folder / "a.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    return [str(problem) for problem in check_rules(file)]


def in_automation(folder: Path, line: str) -> list[str]:
    return problems(folder, f"automations:\n  - name: a\n    trigger: {{expect: x}}\n    {line}\n")


def test_a_good_folder_loads_whole(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "more.yml").write_text("automations: [{name: b, trigger: {expect: y}}]\nwebhooks:\n")
    (tmp_path / "rules.yaml").write_text(GOOD)
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    rules = load_rules(tmp_path)
    assert [automation.name for automation in rules.automations] == ["b", "load"]
    assert rules.files == ("deep/more.yml", "empty.yaml", "rules.yaml")
    assert rules.base == tmp_path
    assert rules.deployments[0].schedules[0].name == "nightly"


def test_hidden_files_tests_and_other_files_are_left_alone(tmp_path: Path) -> None:
    for name in (".hidden.yaml", "a.test.yaml", "notes.txt", "data.json"):
        (tmp_path / name).write_text("{")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.yaml").write_text("{")
    assert load_rules(tmp_path).files == ()


def test_the_revision_changes_with_the_content_and_only_with_it(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(GOOD)
    first = load_rules(tmp_path).revision
    file.write_text(GOOD)
    assert load_rules(tmp_path).revision == first
    file.write_text(GOOD + "# more\n")
    assert load_rules(tmp_path).revision != first


def test_a_missing_path_is_a_problem_and_not_a_crash(tmp_path: Path) -> None:
    (problem,) = check_rules(tmp_path / "nowhere" / "rules.yaml")
    assert problem.file == str(tmp_path / "nowhere" / "rules.yaml")
    assert "there is no such file or folder" in problem.detail


def test_nothing_of_a_bad_set_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "b.yaml").write_text("automations: [{name: b, trigger: {expct: y}}]")
    with pytest.raises(InvalidRules) as refused:
        load_rules(tmp_path)
    assert [str(problem) for problem in refused.value.problems] == [
        'b.yaml:1:35: automations[0].trigger.expct: unknown field; did you mean "expect"?'
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("enabled: maybe", '4:14: automations[0].enabled: wanted true or false, found the text "maybe"'),
        ("expected_every: soon", "4:21: automations[0].expected_every: 'soon' is not a duration; write 90s,"),
        ("resolve_on: down", "4:5: automations[0].resolve_on: unknown field; `resolve_on` belongs in `trigger`"),
        ("expected-every: 5m", '4:5: automations[0].expected-every: unknown field; did you mean "expected_every"?'),
        (
            "actions: [run-deploymnt: x]",
            '4:15: automations[0].actions[0]: unknown action "run-deploymnt"; did you mean "run-',
        ),
        (
            "actions: [{type: emit-evnt}]",
            '4:22: automations[0].actions[0].type: unknown type "emit-evnt"; did you mean "emit-event"?',
        ),
        ("actions: [{type: 3}]", "4:22: automations[0].actions[0].type: wanted one of run-deployment,"),
        (
            "actions: [7]",
            "4:15: automations[0].actions[0]: wanted an action such as `run-deployment: name`, found the number 7",
        ),
        ("actions: [{emit-event: [x]}]", "4:28: automations[0].actions[0].emit-event: wanted text, found a list"),
        (
            "actions: [{emit-event: x, paylod: 1}]",
            '4:31: automations[0].actions[0].paylod: unknown field; did you mean "payload"?',
        ),
        (
            "actions: {do-nothing: , retry: {jitter: 2}}",
            "4:45: automations[0].actions.retry.jitter: wanted at most 1, found the number 2",
        ),
        (
            "actions: {do-nothing: , call-webhook: x}",
            "4:14: automations[0].actions: two actions in one: do-nothing and call-webhook;",
        ),
        (
            "actions: [{call-webhook: x, method: GIT}]",
            '4:41: automations[0].actions[0].method: wanted GET, POST, PUT, PATCH or DELETE (did you mean "GET"?)',
        ),
        ("tags: {a: b}", "4:11: automations[0].tags: wanted a list, found a mapping"),
        (
            "description: no",
            "4:18: automations[0].description: wanted text, found no (which YAML reads as false); put it in quotes",
        ),
        ("name: b", "4:5: automations[0].name: the key name comes twice in this mapping (first in line 2); remove one"),
    ],
)
def test_a_bad_field_is_told_in_words(tmp_path: Path, line: str, expected: str) -> None:
    told = in_automation(tmp_path, line)
    assert any(text.startswith(f"a.yaml:{expected}") for text in told), told


@pytest.mark.parametrize(
    ("trigger", "expected"),
    [
        ("{type: compond}", '1:41: automations[0].trigger.type: unknown type "compond"; did you mean "compound"?'),
        (
            "{type: compound, require: 0.5, triggers: [{expect: y}]}",
            "wanted any or all or a whole number, found the number 0.5",
        ),
        ("{type: sequence, triggers: [{expect: y}]}", "triggers: wanted at least 2 items, found 1 item"),
        (
            "{type: sequence, triggers: [{expect: y}, {expct: z}]}",
            'trigger.triggers[1].expct: unknown field; did you mean "expect"?',
        ),
        ("{event: y, threshold: x}", 'threshold: wanted a whole number, found the text "x"'),
        (
            "{expect: y, match: {state: off}}",
            "match.state: wanted text, found off (which YAML reads as false); put it in quotes",
        ),
        ("{expect: y, resolve_on: {expct: z}}", 'trigger.resolve_on.expct: unknown field; did you mean "expect"?'),
        ("{expect: y, threshold: 3}", "1:34: automations[0].trigger: threshold 3 needs `within`"),
        (
            "{type: metric, aggregate: count, operator: '>', threshold: 1, within: 1m, fr: 2m}",
            'fr: unknown field; did you mean "for"?',
        ),
        (
            "{type: metric, aggregate: count, operator: '>', threshold: 1}",
            "trigger.within: missing; add `within:` (The span of events",
        ),
        (
            "nonsense",
            "trigger: wanted a mapping with fields such as expect, match, match_related, when, found the text",
        ),
        ("{expect: y, when: 'event.payload.a >'}", "trigger.when: not a condition, at its character "),
        ("{expect: y, when: 'evnt.x'}", "trigger.when: not a condition, at its character 1: "),
        ("{type: schedule, cron: '* * *'}", "cron has 5"),
    ],
)
def test_a_bad_trigger_is_told_in_words(tmp_path: Path, trigger: str, expected: str) -> None:
    told = problems(tmp_path, f"automations: [{{name: a, trigger: {trigger}}}]")
    assert any(expected in text for text in told), told


@pytest.mark.parametrize(
    ("webhook", "expected"),
    [
        ("{name: w, verify: nne, preset: s3}", 'verify: wanted none (did you mean "none"?) or a mapping'),
        ("{name: w, verify: {type: hmacc}, preset: s3}", 'verify.type: unknown type "hmacc"; did you mean "hmac"?'),
        (
            "{name: w, verify: {type: hmac, secret: hunter2}, preset: s3}",
            "verify.secret: a secret is a reference, never the secret",
        ),
        ("{name: w, verify: {type: hmac, secret: env:A}, preset: s3}", "verify.header: missing; add `header:`"),
        ("{name: w, preset: github}", "webhooks[0]: say how requests prove who they are: `secret: env:NAME`"),
    ],
)
def test_a_bad_webhook_is_told_in_words(tmp_path: Path, webhook: str, expected: str) -> None:
    told = problems(tmp_path, f"webhooks: [{webhook}]")
    assert any(expected in text for text in told), told
    assert not any("hunter2" in text for text in told)


def test_no_message_speaks_of_the_validator(tmp_path: Path) -> None:
    text = (
        "automations: [{trigger: {}, name: 3}, 4, {name: a, trigger: {type: metric}, actions: x}]\n"
        "deployments: {a: b}\nwebhooks: [{name: w, verify: 3, map: []}]\nnotifiers: [{name: n, urls: []}]\nx: 1\n"
    )
    told = problems(tmp_path, text)
    assert len(told) > 8
    for line in told:
        assert not any(
            word in line for word in ("pydantic", "http", "Input should", "validation", "tagged-union", "NoneType")
        )


def test_every_problem_of_a_set_is_told_in_one_run_in_file_order(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "automations:\n  - {name: a, trigger: {expct: x}, actions: [run-deployment: lodr]}\n  - 3\n"
    )
    (tmp_path / "b.yaml").write_text("deployments:\n  - {name: loader, command: x}\n  - {name: l2, comand: x}\n")
    (tmp_path / "c.yaml").write_text(
        "automations: [{name: c, trigger: {expect: x}, actions: [run-deployment: laoder]}]\n"
    )
    (tmp_path / "d.yaml").write_text("automations: {\n")
    told = [(problem.file, problem.field) for problem in check_rules(tmp_path)]
    assert told[:3] == [
        ("a.yaml", "automations[0].trigger.expct"),
        ("a.yaml", "automations[1]"),
        ("b.yaml", "deployments[1].comand"),
    ]
    assert told[-1] == ("d.yaml", "")


def test_names_that_nothing_has_are_told_with_the_nearest(tmp_path: Path) -> None:
    text = GOOD.replace("- run-deployment: loader", "- run-deployment: laoder").replace(
        "notification: ops", "notification: opps"
    )
    text = text.replace(
        "    actions:\n",
        "    actions:\n      - {pause-schedule: nightli, deployment: loader}\n      - pause-automation: lod\n",
    )
    told = problems(tmp_path, text)
    assert [line.partition(": ")[2] for line in told] == [
        'automations[0].actions[0].pause-schedule: deployment "loader" has no schedule "nightli"; '
        'did you mean "nightly"?',
        'automations[0].actions[1].pause-automation: no automation is named "lod"; did you mean "load"?',
        'automations[0].actions[2].run-deployment: no deployment is named "laoder"; did you mean "loader"?',
        'automations[0].actions[3].send-notification: no notifier is named "opps"; did you mean "ops"?',
    ]


def test_a_schedule_of_a_deployment_without_any_is_called_so(tmp_path: Path) -> None:
    told = problems(
        tmp_path,
        "automations: [{name: a, trigger: {expect: x}, actions: [{pause-schedule: nos, deployment: d}]}]\n"
        "deployments: [{name: d, command: x}]\n",
    )
    assert told[0].endswith('deployment "d" has no schedule "nos"; it has no schedules')


def test_a_name_that_is_a_template_is_left_to_run_time(tmp_path: Path) -> None:
    for name in ('"{{ event.resource.name }}"', "$.resource.name"):
        assert in_automation(tmp_path, f"actions: [run-deployment: {name}]") == []


def test_a_name_in_a_part_with_problems_still_counts_as_defined(tmp_path: Path) -> None:
    told = problems(
        tmp_path,
        "automations: [{name: a, trigger: {expect: x}, actions: [run-deployment: d]}]\n"
        "deployments: [{name: d, comand: x}]\n",
    )
    assert not any("no deployment is named" in line for line in told)


def test_a_name_that_comes_twice_names_both_places(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "automations:\n  - {name: x, trigger: {expect: a}}\ndeployments: [{name: x, command: y}]\n"
    )
    (tmp_path / "b.yaml").write_text("automations:\n  - {name: x, trigger: {expect: b}}\n")
    (problem,) = check_rules(tmp_path)
    assert str(problem) == (
        'b.yaml:2:12: automations[0].name: automation "x" is defined twice; rename or remove one; '
        "the first one is at a.yaml:2:12"
    )


def test_two_deployments_of_one_name_are_refused_with_both_places(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("deployments:\n  - {name: etl/nightly, command: one}\n")
    (tmp_path / "b.yaml").write_text(
        "deployments:\n  - {name: etl/hourly, command: y}\n  - {name: etl/nightly, command: two}\n"
    )
    (problem,) = check_rules(tmp_path)
    assert str(problem) == (
        'b.yaml:3:12: deployments[1].name: deployment "etl/nightly" is defined twice; rename or remove one; '
        "the first one is at a.yaml:2:12"
    )


def test_a_problem_inside_an_alias_points_at_its_use(tmp_path: Path) -> None:
    told = problems(
        tmp_path,
        "automations:\n  - name: a\n    trigger: &t {expct: x}\n  - name: b\n    trigger: *t\n",
    )
    assert [line.split(" ")[0] for line in told] == ["a.yaml:3:18:", "a.yaml:5:14:"]


def test_checkers_are_asked_about_every_sound_part_and_placed(tmp_path: Path) -> None:
    def checker(model: BaseModel) -> Iterator[tuple[tuple[str | int, ...], str]]:
        if isinstance(model, Automation):
            yield ("actions", 0, "deployment"), "not today"

    file = tmp_path / "a.yaml"
    file.write_text(GOOD)
    checkers: list[Checker] = [checker]
    (problem,) = check_rules(file, checkers=checkers)
    assert str(problem) == "a.yaml:6:25: automations[0].actions[0].run-deployment: not today"


def test_the_number_of_problems_told_is_bounded(tmp_path: Path) -> None:
    told = problems(tmp_path, "automations: [" + "3," * 5000 + "]")
    assert len(told) == 1001
    assert "more problems" in told[-1]


WORDS = st.sampled_from(
    [
        "automations",
        "name",
        "trigger",
        "type",
        "event",
        "compound",
        "triggers",
        "actions",
        "expect",
        "match",
        "when",
        "webhooks",
        "verify",
        "hmac",
        "deployments",
        "command",
        "schedules",
        "cron",
        "run-deployment",
        "emit-event",
        "within",
        "retry",
        "notifiers",
        "urls",
        "map",
        "resource",
        "sequence",
        "require",
        "*",
        "5m",
        "resolve_on",
        "collect",
    ]
)
STRUCTURES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=3), inner, max_size=5),
    max_leaves=25,
)
FILES = st.fixed_dictionaries(
    {},
    optional={
        kind: st.lists(
            st.fixed_dictionaries(
                {"name": WORDS},
                optional={
                    "trigger": STRUCTURES,
                    "actions": STRUCTURES,
                    "verify": STRUCTURES,
                    "map": STRUCTURES,
                    "schedules": STRUCTURES,
                },
            )
            | STRUCTURES,
            max_size=3,
        )
        for kind in ("automations", "webhooks", "deployments", "notifiers")
    },
)


@pytest.mark.takes(2)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(structure=FILES | STRUCTURES)
def test_no_structure_crashes_the_check(tmp_path: Path, structure: object) -> None:
    told = problems(tmp_path, yaml.safe_dump(structure))
    assert all("pydantic" not in line for line in told)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.binary() | st.text())
def test_no_text_crashes_the_check(tmp_path: Path, text: str | bytes) -> None:
    problems(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        "automations: &a [{name: x, trigger: {expect: y}, actions: *a}]",
        "automations: [{name: x, trigger: " + "{type: compound, triggers: [" * 40 + "{expect: y}" + "]}" * 40 + "}]",
        "automations: [{name: x, trigger: {expect: '" + "*" * 4000 + "'}, actions: [emit-event: " + "a" * 4000 + "]}]",
        "a: " * 500,
        "automations: [{name: '\\ud800', trigger: {}}]",
        'automations: [{name: "a\\0b", trigger: {expect: x}}]',
        'automations: [{name: "\\ud800", trigger: {expect: x}}]',
    ],
)
def test_no_trick_crashes_the_check(tmp_path: Path, text: str) -> None:
    problems(tmp_path, text)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "command: x, working_dir: ../..",
            "deployments[0].working_dir: '../..' leads out of the rules folder; move it there",
        ),
        ("command: x, working_dir: /etc", "'/etc' leads out of the rules folder; move it there"),
        ("command: x, working_dir: link", "'link' leads out of the rules folder (through a link)"),
        ("command: x, working_dir: jobs/../../x", "leads out of the rules folder"),
        (
            "entrypoint: ../../etc/flow.py:f",
            "deployments[0].entrypoint: '../../etc/flow.py' leads out of the rules folder",
        ),
        ("entrypoint: link/flow.py:f", "'link/flow.py' leads out of the rules folder (through a link)"),
        ('entrypoint: "a\\0b.py:f"', "is no path"),
    ],
)
def test_a_path_of_a_deployment_out_of_the_rules_folder_is_refused(tmp_path: Path, line: str, said: str) -> None:
    rules, outside = tmp_path / "rules", tmp_path / "outside"
    rules.mkdir()
    outside.mkdir()
    (rules / "link").symlink_to(outside)
    found = problems(rules, f"deployments:\n  - {{name: d, {line}}}\n")
    assert len(found) == 1
    assert said in found[0]


def test_paths_within_the_rules_folder_are_taken_links_included(tmp_path: Path) -> None:
    real = tmp_path / "real"
    (real / "..data").mkdir(parents=True)
    (tmp_path / "rules").symlink_to(real)
    (real / "jobs").symlink_to("..data")
    text = """
deployments:
  - {name: a, command: x, working_dir: jobs/../jobs}
  - {name: b, entrypoint: "jobs/flow.py:f"}
  - {name: c, entrypoint: "not/there/yet.py:f"}
  - {name: d, command: x, working_dir: .}
"""
    assert problems(tmp_path / "rules", text) == []


@pytest.mark.takes(0.4)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("automations:\n" + "- {a: 1}\n" * 10_000, "a.yaml:2:3: automations[0].name: missing"),
        ("automations: [" + "1," * 20_000 + "]\n", "a.yaml:1:15: automations[0]: wanted a mapping"),
        (
            "automations:\n - {name: a, " + ", ".join(f"k{number}: 1" for number in range(50_000)) + "}\n",
            "a.yaml:2:4: automations[0]: 50001 problems here; is this file meant to be rules?",
        ),
        (", ".join(["{k0: 1", *(f"k{number}: 1" for number in range(1, 50_000))]) + "}", "50000 problems here"),
    ],
    ids=["items", "scalars", "fields", "top"],
)
def test_a_file_in_which_everything_is_wrong_is_told_of_in_bounds(tmp_path: Path, text: str, said: str) -> None:
    started = time.process_time()
    found = problems(tmp_path, text)
    assert said in found[0]
    assert len(found) <= MAX_PROBLEMS + 1
    assert sum(map(len, found)) < 1_000_000
    assert time.process_time() - started < 15


def test_a_file_of_more_values_than_are_read_is_told_to_be_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "MAX_VALUES", 1000)
    (found,) = problems(tmp_path, "automations: [" + "1,\n" * 2000 + "]\n")
    assert found.endswith("a.yaml:998:1: the file has more than 1000 values; split it")


def test_a_problem_behind_the_last_known_place_is_still_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_PLACES", 10)
    text = "".join(f"- {{name: a{number}, trigger: {{expect: x}}}}\n" for number in range(20))
    (found,) = problems(tmp_path, f"automations:\n{text}- {{name: b, trigger: {{expct: x}}}}\n")
    assert 'automations[20].trigger.expct: unknown field; did you mean "expect"?' in found


def test_a_file_whose_name_is_not_utf8_is_refused_by_a_name_that_can_be_told(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("automations: [{name: a, trigger: {expect: x}}]\n")
    (tmp_path / os.fsdecode(b"b\xff.yaml")).write_text("automations: []\n")
    (problem,) = check_rules(tmp_path)
    assert str(problem) == r"b\xff.yaml: the name is not UTF-8; rename the file"


def test_a_rules_folder_whose_path_is_not_utf8_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"rules\xff")
    folder.mkdir()
    (folder / "a.yaml").write_text("automations: []\n")
    (problem,) = check_rules(folder)
    assert "the path is not UTF-8; rename the folder or file" in problem.detail
    assert problem.file.endswith(r"rules\xff")
