"""Importing rules of Prefect: the forms that it writes, what they become, and that nothing is dropped silently."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import up_to
from whenthen.rules import load_rules
from whenthen.rules.prefect_import import ImportResult, import_prefect, import_prefect_file, prefect_event
from whenthen.schemas.errors import InvalidInput, WhenthenError

NOTHING = [{"type": "do-nothing"}]


def automation(trigger: dict[str, Any], actions: list[Any] = NOTHING, **more: Any) -> dict[str, Any]:
    return {"name": "one", "trigger": trigger, "actions": actions, **more}


def loaded(result: ImportResult, folder: Path) -> Any:
    (folder / "imported.yaml").write_text(result.text, encoding="utf-8")
    return load_rules(folder)


def trigger_of(spec: dict[str, Any]) -> dict[str, Any]:
    result = import_prefect(automation(spec))
    assert len(result.rules["automations"]) == 1, result.notes
    return dict(result.rules["automations"][0]["trigger"])


def actions_of(*actions: dict[str, Any], **more: Any) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    result = import_prefect(automation({"expect": ["a"]}, list(actions), **more))
    return result.rules["automations"][0].get("actions", []), result.notes


def test_an_event_trigger_keeps_its_meaning_in_our_words() -> None:
    spec = {
        "type": "event",
        "match": {"prefect.resource.id": "prefect.flow-run.*", "team": ["red", "!blue"]},
        "match_related": {"prefect.resource.role": "flow", "prefect.resource.name": "etl"},
        "after": ["prefect.flow-run.Running"],
        "expect": ["prefect.flow-run.Failed", "prefect.flow-run.Completed"],
        "for_each": ["related:flow:prefect.resource.id", "prefect.resource.id"],
        "posture": "Proactive",
        "threshold": 1,
        "within": 90.0,
    }
    assert trigger_of(spec) == {
        "type": "event",
        "window": "tumbling",
        "posture": "proactive",
        "expect": ["prefect.flow-run.Completed", "prefect.flow-run.Failed"],
        "after": ["prefect.flow-run.Running"],
        "match": {"id": "prefect.flow-run.*", "team": ["red", "!blue"]},
        "match_related": [{"role": "flow", "name": "etl"}],
        "for_each": ["id", "related:flow:id"],
        "threshold": 1,
        "within": "1m30s",
    }


@pytest.mark.parametrize(
    "document",
    [
        automation({"expect": ["a"]}),
        [automation({"expect": ["a"]})],
        {"automations": [automation({"expect": ["a"]})]},
    ],
)
def test_one_a_list_and_a_file_of_automations_are_read(document: Any, tmp_path: Path) -> None:
    rules = loaded(import_prefect(document), tmp_path)
    assert [rule.name for rule in rules.automations] == ["one"]


@pytest.mark.parametrize("write", [json.dumps, lambda document: import_prefect(document).text])
def test_the_text_of_a_file_is_json_or_yaml(write: Any, tmp_path: Path) -> None:
    text = import_prefect_file(json.dumps([automation({"expect": ["a"]})]).encode())
    (tmp_path / "imported.yaml").write_text(text, encoding="utf-8")
    assert load_rules(tmp_path).automations[0].trigger.type == "event"


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ({"triggers": [{"expect": ["a"]}, {"expect": ["b"]}], "require": "any", "within": None}, "compound"),
        ({"triggers": [{"expect": ["a"]}, {"expect": ["b"]}], "within": 5}, "sequence"),
        ({"expect": ["a"]}, "event"),
    ],
)
def test_a_trigger_without_type_is_told_by_its_fields(spec: dict[str, Any], kind: str) -> None:
    assert trigger_of(spec)["type"] == kind


def test_triggers_of_deployments_start_their_deployment(tmp_path: Path) -> None:
    trigger = {"expect": ["a"], "parameters": {"path": "{{ event.resource.id }}"}, "schedule_after": 10}
    sequence = {"type": "sequence", "name": "both", "triggers": [{"expect": ["a"]}, {"expect": ["b"]}], "within": 5}
    deployment = {"name": "loader", "entrypoint": "runs/load.py:load", "triggers": [trigger, sequence]}
    rules = loaded(import_prefect({"name": "project", "deployments": [deployment]}), tmp_path)
    first, second = rules.automations
    assert (first.name, second.name) == ("loader__automation_1", "both")
    assert first.actions[0].deployment == "loader"
    assert first.actions[0].parameters == {"path": "$.resource.id"}
    assert first.actions[0].delay.total_seconds() == 10
    assert rules.deployments[0].entrypoint == "runs/load.py:load"


def test_what_has_no_counterpart_is_named_in_the_text() -> None:
    metric = {"type": "metric", "metric": {"name": "duration", "threshold": 5, "operator": ">"}}
    result = import_prefect(
        [automation(metric, name="slow"), automation({"expect": ["a"]}, [{"type": "declare-incident"}])]
    )
    assert [rule["name"] for rule in result.rules["automations"]] == ["one"]
    assert "automation 'slow': left out: trigger: a metric" in result.text
    assert "actions[0]: the action `declare-incident` has no counterpart" in result.text


def test_a_deployment_known_by_its_id_alone_is_looked_up_at_run_time(tmp_path: Path) -> None:
    action = {"type": "run-deployment", "source": "selected", "deployment_id": "1234"}
    result = import_prefect(automation({"expect": ["a"]}, [action]))
    assert loaded(result, tmp_path).automations[0].actions[0].deployment == "{{ '1234' }}"
    assert "1234 is known by its id alone" in result.text
    named = import_prefect(automation({"expect": ["a"]}, [action]), deployments={"1234": "loader"})
    assert not named.notes


def test_automations_are_named_by_what_the_file_knows() -> None:
    pause = {"type": "pause-automation", "source": "selected", "automation_id": "u-1"}
    actions, notes = actions_of(pause, id="u-1")
    assert (actions, notes) == ([{"type": "pause-automation", "automation": "one"}], ())


def test_templates_become_ours_and_unknown_variables_are_named() -> None:
    action = {
        "type": "run-deployment",
        "source": "inferred",
        "parameters": {
            "id": "{{ event.resource.id }}",
            "team": "{{ event.resource.labels.team.name }}",
            "size": {
                "__prefect_kind": "json",
                "value": {"__prefect_kind": "jinja", "template": "{{ event.payload.size | tojson }}"},
            },
            "run": "{{ flow_run.name }}",
            "limit": {"__prefect_kind": "workspace_variable", "variable_name": "limit"},
            "deep": {"list": [1, "{{ automation.name }}"]},
        },
        "job_variables": {"image": "x"},
    }
    (found,), notes = actions_of(action)
    assert found["parameters"] == {
        "id": "{{ event.resource.id }}",
        "team": "{{ event.resource['team.name'] }}",
        "size": "$.payload.size",
        "deep": {"list": [1, "{{ automation }}"]},
    }
    assert [note.partition("actions[0].")[2].partition(":")[0] for note in notes] == [
        "parameters.run",
        "parameters.limit",
        "job_variables",
    ]


def test_a_block_becomes_a_notifier_whose_url_comes_from_the_environment(tmp_path: Path) -> None:
    action = {
        "type": "send-notification",
        "block_document_id": "abcd1234-5678",
        "subject": "{{ flow_run.name }} failed",
    }
    rules = loaded(import_prefect(automation({"expect": ["a"]}, [action])), tmp_path)
    assert rules.notifiers[0].urls == ["env:PREFECT_BLOCK_ABCD1234"]
    assert rules.automations[0].actions[0].subject == "<flow_run.name> failed"


def test_names_that_are_not_legal_here_or_taken_are_changed_and_told() -> None:
    result = import_prefect([automation({"expect": ["a"]}, name="a/b"), automation({"expect": ["a"]}, name="a-b")])
    assert [rule["name"] for rule in result.rules["automations"]] == ["a-b", "a-b (2)"]
    assert len(result.notes) == 2


def test_labels_that_users_named_like_ours_stay_apart() -> None:
    event = prefect_event(
        {"event": "a", "resource": {"prefect.resource.id": "r", "id": "own", "_name": "x", "team": "red"}}
    )
    assert event["resource"] == {"id": "r", "_id": "own", "__name": "x", "team": "red"}
    assert trigger_of({"expect": ["a"], "match": {"id": "own"}})["match"] == {"_id": "own"}


def test_one_schedule_that_has_no_counterpart_leaves_the_rest_of_the_file_in_place(tmp_path: Path) -> None:
    schedules = [
        {"rrule": "DTSTART;TZID=America/New_York:20260101T090000\nRRULE:FREQ=DAILY", "timezone": "America/New_York"},
        {"rrule": "FREQ=SECONDLY", "slug": "too-fast"},
        {"cron": "0 6 * * *", "slug": "morning"},
        {"cron": "0 7 * * *", "slug": "morning"},
        "0 8 * * *",
        {"rrule": "DTSTART;TZID=America/New_York:20260101T090000\nRRULE:FREQ=WEEKLY", "slug": "weekly"},
    ]
    deployment = {"name": "load", "entrypoint": "runs/load.py:load", "schedules": schedules}
    trigger = {"expect": ["a"]}
    imported = import_prefect({"name": "project", "deployments": [{**deployment, "triggers": [trigger]}]})
    rules = loaded(imported, tmp_path)
    [found] = rules.deployments
    assert [schedule.name for schedule in found.schedules] == ["schedule-1", "morning", "weekly"]
    assert len(rules.automations) == 1
    notes = [note for note in imported.notes if "schedule" in note]
    assert [note.partition(": left out")[0] for note in notes[:2]] == [
        "deployment 'load': schedule 2",
        "deployment 'load': schedule 4",
    ]
    assert "FREQ=SECONDLY is not supported" in notes[0]
    assert (
        notes[-1]
        == "deployment 'load': schedule 6: follows the TZID of its DTSTART, which Prefect reads as UTC without a timezone"
    )
    assert notes[2] == "deployment 'load': schedule 5: '0 8 * * *' is not a mapping; left out"


@pytest.mark.parametrize("text", [b"", b"42", b"a: b", b"[]", b"{", b"\xff", b"deployments: []"])
def test_a_file_without_automations_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"^rules\.yaml"):
        import_prefect_file(text, name="rules.yaml")


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["{{ event.id }}", "any"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
TRIGGERS = st.recursive(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["event", "metric", "x"]),
            "posture": st.sampled_from(["Reactive", "Proactive", "reactive"]),
            "expect": st.lists(st.text(max_size=4), max_size=3) | VALUES,
            "after": st.lists(st.text(max_size=4), max_size=3) | VALUES,
            "match": st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=2) | VALUES,
            "match_related": VALUES,
            "for_each": st.lists(st.text(max_size=4) | st.just("related:x:y"), max_size=3) | VALUES,
            "threshold": st.integers(-1, 5) | VALUES,
            "within": st.integers(0, 60) | VALUES,
        },
    ),
    lambda inner: st.fixed_dictionaries(
        {"triggers": st.lists(inner, max_size=3)},
        optional={"require": st.sampled_from(["any", "all", 1, 2, "2"]) | VALUES, "within": VALUES},
    ),
    max_leaves=4,
)
ACTIONS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["run-deployment", "send-notification", "call-webhook", "pause-automation", "x"])
        | VALUES
    },
    optional=dict.fromkeys(
        ("source", "deployment_id", "parameters", "schedule_after", "block_document_id", "subject", "payload"), VALUES
    ),
)
DOCUMENTS = st.lists(
    st.fixed_dictionaries(
        {"trigger": TRIGGERS | VALUES},
        optional={
            "name": st.text(max_size=5) | VALUES,
            "actions": st.lists(ACTIONS, max_size=2) | VALUES,
            "enabled": VALUES,
        },
    ),
    max_size=3,
)


@up_to(200, usually=100)
@given(document=DOCUMENTS | VALUES)
def test_whatever_is_imported_loads(document: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    with contextlib.suppress(WhenthenError):
        result = import_prefect(document)
        loaded(result, tmp_path_factory.mktemp("rules"))
        return
    with pytest.raises(InvalidInput):
        import_prefect(document)
