"""Importing rules of Prefect: the forms that it writes, what they become, and that nothing is dropped silently."""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.examples import up_to
from whenthen.rules import load_rules
from whenthen.rules.prefect_import import (
    ImportResult,
    Runs,
    import_prefect,
    import_prefect_file,
    prefect_event,
    read_ids,
    score_folder,
)
from whenthen.rules.prefect_import.import_notes import Aspect
from whenthen.rules.replay import replay
from whenthen.runs.run_states import flow_run_event, new_run
from whenthen.schemas.calendar import occurrences
from whenthen.schemas.deployments import Deployment, RunState, Schedule
from whenthen.schemas.errors import InvalidInput, WhenthenError
from whenthen.templates import compile_text

NOW = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)
NOTHING = [{"type": "do-nothing"}]


def automation(trigger: dict[str, Any], actions: list[Any] = NOTHING, **more: Any) -> dict[str, Any]:
    return {"name": "one", "trigger": trigger, "actions": actions, **more}


def loaded(result: ImportResult, folder: Path) -> Any:
    (folder / "imported.yaml").write_text(result.text, encoding="utf-8")
    return load_rules(folder)


def trigger_of(spec: dict[str, Any], runs: Runs = "prefect") -> dict[str, Any]:
    result = import_prefect(automation(spec), runs=runs)
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
    text = import_prefect_file(json.dumps([automation({"expect": ["a"]})]).encode()).text
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
    assert first.actions[0].deployment == "load/loader"
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
            "run": "{{ flow_run.tags }}",
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
        "subject": "{{ flow_run.tags }} failed",
    }
    rules = loaded(import_prefect(automation({"expect": ["a"]}, [action])), tmp_path)
    assert rules.notifiers[0].urls == ["env:PREFECT_BLOCK_ABCD1234"]
    assert rules.automations[0].actions[0].subject == "<flow_run.tags> failed"


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
    assert [schedule.name for schedule in found.schedules] == [
        "schedule-1",
        "morning",
        "morning-2",
        "schedule-5",
        "weekly",
    ]
    assert len(rules.automations) == 1
    notes = [note for note in imported.notes if "schedule" in note]
    assert notes == [
        "deployment 'load/load': schedule 2: left out, write it by hand: FREQ=SECONDLY is not supported; use an interval",
        "deployment 'load/load': schedule 6: follows the TZID of its DTSTART, which Prefect reads as UTC without a timezone",
    ]
    assert imported.lost == {Aspect.SCHEDULES: ("deployment 'load/load'",)}


@pytest.mark.parametrize(
    "text",
    [b"", b"42", b"a: b", b"[]", b"{", b"\xff", b"deployments: []", b"deployments: [{name: null, entrypoint: null}]"],
)
def test_a_file_without_automations_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"^rules\.yaml"):
        import_prefect_file(text, name="rules.yaml")


# -- deployments of a prefect.yaml


def project(*deployments: dict[str, Any], **more: Any) -> ImportResult:
    return import_prefect({"name": "project", "deployments": list(deployments), **more})


def deployment_of(**fields: Any) -> tuple[dict[str, Any], ImportResult]:
    """The one deployment, without what all have."""
    result = project({"name": "n", "entrypoint": "a.py:f", **fields})
    (rule,) = result.rules["deployments"]
    assert (rule.pop("name"), rule.pop("entrypoint")) == ("f/n", "a.py:f")
    return rule, result


def test_a_deployment_without_a_trigger_comes_over(tmp_path: Path) -> None:
    rules = loaded(project({"name": "n", "entrypoint": "a.py:my_flow"}), tmp_path)
    assert [(one.name, one.entrypoint) for one in rules.deployments] == [("my-flow/n", "a.py:my_flow")]


def test_two_deployments_of_one_name_in_different_flows_are_two() -> None:
    result = project(
        {"name": "prod", "entrypoint": "a.py:f"},
        {"name": "prod", "entrypoint": "b.py:g", "triggers": [{"expect": ["e"]}]},
    )
    assert [one["name"] for one in result.rules["deployments"]] == ["f/prod", "g/prod"]
    (rule,) = result.rules["automations"]
    assert rule["actions"] == [{"type": "run-deployment", "deployment": "g/prod"}]


def test_of_two_with_the_same_flow_and_name_the_last_one_counts() -> None:
    result = project(
        {"name": "n", "entrypoint": "a.py:f", "tags": ["old"], "triggers": [{"expect": ["old"]}]},
        {"name": "n", "entrypoint": "a.py:f", "tags": ["new"]},
    )
    assert [one["tags"] for one in result.rules["deployments"]] == [["new"]]
    assert result.rules["automations"] == []
    assert "deployment 'f/n': the file has it twice; the last one counts, as in Prefect" in result.notes


def test_the_flows_name_is_the_one_that_the_code_gives(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "load.py").write_text(
        "@flow(name='Load / all')\ndef load(): ...\n@flow\ndef my_other(): ...\n"
    )
    (tmp_path / "prefect.yaml").write_text(
        "deployments:\n- {name: a, entrypoint: jobs/load.py:load}\n- {name: b, entrypoint: jobs.load.my_other}\n"
        "- {name: c, entrypoint: ../secret.py:f}\n- {name: d, entrypoint: a.py:f, flow_name: given}\n"
    )
    result = import_prefect_file((tmp_path / "prefect.yaml").read_bytes(), project=tmp_path)
    assert [(one["name"], one["entrypoint"]) for one in result.rules["deployments"]] == [
        ("Load - all/a", "jobs/load.py:load"),
        ("my-other/b", "jobs.load:my_other"),
        ("given/d", "a.py:f"),
    ]
    assert (
        "deployment 'c': its entry point '../secret.py:f' is outside of the project; write it by hand; left out"
        in result.notes
    )


@pytest.mark.parametrize(
    ("written", "ours"),
    [
        ({"schedule": {}}, []),
        ({"schedule": None, "schedules": None}, []),
        ({"schedule": {"cron": None, "timezone": "UTC"}}, []),
        ({"schedule": {"cron": "0 2 * * *"}}, [{"name": "schedule-1", "cron": "0 2 * * *"}]),
        ({"schedule": "0 2 * * *"}, [{"name": "schedule-1", "cron": "0 2 * * *"}]),
        (
            {
                "schedules": [
                    {"cron": "0 2 * * *", "anchor_date": "2023-01-01", "timezone": "Europe/Paris", "slug": "two"}
                ]
            },
            [{"name": "two", "cron": "0 2 * * *", "timezone": "Europe/Paris"}],
        ),
        (
            {"schedules": [{"interval": 3600, "anchor_date": "2023-01-01T00:00:00+00:00", "active": False}]},
            [{"name": "schedule-1", "interval": "1h", "anchor": "2023-01-01T00:00:00+00:00", "active": False}],
        ),
        ({"schedules": [{"interval": "PT15M"}]}, [{"name": "schedule-1", "interval": "15m"}]),
        (
            {"schedules": [{"rrule": '{"rrule": "FREQ=DAILY;BYHOUR=8", "timezone": "Asia/Tokyo"}'}]},
            [{"name": "schedule-1", "rrule": "FREQ=DAILY;BYHOUR=8", "timezone": "Asia/Tokyo"}],
        ),
        (
            {"schedules": [{"cron": "0 2 1 * 1", "day_or": False}]},
            [
                {
                    "name": "schedule-1",
                    "rrule": "FREQ=DAILY;BYMONTHDAY=1;BYDAY=MO;BYHOUR=2;BYMINUTE=0;BYSECOND=0",
                }
            ],
        ),
        ({"schedules": [{"cron": "0 2 * * 1", "day_or": False}]}, [{"name": "schedule-1", "cron": "0 2 * * 1"}]),
        (
            {"schedules": [{"cron": "0 2 * * *", "active": "false"}]},
            [{"name": "schedule-1", "cron": "0 2 * * *", "active": False}],
        ),
        (
            {"schedules": [{"cron": "0 2 * * *", "active": "{{ $ON }}"}]},
            [{"name": "schedule-1", "cron": "0 2 * * *", "active": False}],
        ),
        (
            {"paused": True, "schedules": [{"cron": "0 2 * * *", "parameters": {"a": 1}}]},
            [{"name": "schedule-1", "cron": "0 2 * * *", "parameters": {"a": 1}, "active": False}],
        ),
    ],
)
def test_schedules_come_over_in_every_spelling(written: dict[str, Any], ours: list[dict[str, Any]]) -> None:
    rule, result = deployment_of(**written)
    assert rule.get("schedules", []) == ours
    assert result.lost == {}


def test_days_that_must_both_fit_come_when_both_do() -> None:
    rule, _ = deployment_of(schedule={"cron": "30 2,4 1-7 * 1", "day_or": False})
    schedule = Schedule.model_validate(rule["schedules"][0])
    since = datetime(2026, 1, 1, tzinfo=UTC)
    found = list(occurrences(schedule, since, since + timedelta(days=70)))
    assert [f"{at:%a %d %b %H:%M}" for at in found] == [
        *("Mon 05 Jan 02:30", "Mon 05 Jan 04:30", "Mon 02 Feb 02:30", "Mon 02 Feb 04:30", "Mon 02 Mar 02:30", "Mon 02 Mar 04:30"),
    ]  # fmt: skip


def test_pool_queue_and_what_of_job_variables_means_something_here_come_over() -> None:
    variables = {
        "env": {"A": "b", "N": 1, "KEY": "{{ prefect.blocks.secret.api-key }}", "R": "{{ $REGION }}"},
        "working_dir": "x",
    }
    rule, result = deployment_of(
        work_pool={"name": "p", "work_queue_name": "q", "job_variables": {**variables, "image": "i", "cpu": 1}}
    )
    assert rule == {
        "work_pool": "p.q",
        "env": {"A": "b", "N": "1", "KEY": "env:WHENTHEN_SECRET_API_KEY", "R": "env:REGION"},
        "working_dir": "x",
        "image": "i",
    }
    assert result.rules["work_pools"] == [
        {"name": "p.q", "type": "docker"},
        {"name": "p", "queues": ["p.q"]},
    ]
    assert {note.removeprefix("deployment 'f/n': ").partition(":")[0] for note in result.notes} == {
        "give its value to the worker in the environment variable WHENTHEN_SECRET_API_KEY",
        "give its value to the worker in the environment variable REGION",
        "pool 'p.q'",
        "work_pool.job_variables.cpu",
    }
    rule, _ = deployment_of(work_pool={"name": "p", "work_queue_name": "default", "job_variables": {}})
    assert rule == {"work_pool": "p"}


def in_pools(tmp_path: Path, *pools: dict[str, Any]) -> tuple[list[dict[str, Any]], ImportResult]:
    result = project(
        *({"name": f"n{number}", "entrypoint": "a.py:f", "work_pool": pool} for number, pool in enumerate(pools))
    )
    loaded(result, tmp_path)  # they are valid together
    return result.rules.get("work_pools", []), result


def test_the_workers_of_a_pool_take_the_runs_of_its_queues(tmp_path: Path) -> None:
    queues = ["urgent", "default", "nightly", "urgent"]
    pools, result = in_pools(tmp_path, *({"name": "p", "work_queue_name": queue} for queue in queues))
    assert pools == [{"name": "p", "queues": ["p.urgent", "p.nightly"]}]
    assert [one["work_pool"] for one in result.rules["deployments"]] == ["p.urgent", "p", "p.nightly", "p.urgent"]
    assert result.notes == (
        "pool 'p': the file does not say the priorities of its queues; those that stand first in `queues` are served first",
    )
    pools, result = in_pools(tmp_path, *({"name": "p", "work_queue_name": f"q{number}"} for number in range(21)))
    assert len(pools[0]["queues"]) == 20
    assert result.lost == {Aspect.POOL: ("deployment 'f/n20'",)}


def test_a_pool_whose_runs_all_have_an_image_is_one_of_containers(tmp_path: Path) -> None:
    def with_image(name: str, image: str) -> dict[str, Any]:
        return {"name": name, "job_variables": {"image": image}}

    pools, result = in_pools(
        tmp_path, with_image("a", "i:1"), with_image("a", "i:2"), with_image("b", "i"), {"name": "b"}
    )
    assert pools == [{"name": "a", "type": "docker"}]
    assert [one.get("image") for one in result.rules["deployments"]] == ["i:1", "i:2", None, None]
    assert any("another deployment of its pool has none; left out" in note for note in result.notes)
    for image in ("{{ build.image }}", "-v=/:/host"):
        pools, result = in_pools(tmp_path, with_image("a", image))
        assert (pools, result.rules["deployments"][0].get("image")) == ([], None)
        assert any("image: " in note for note in result.notes)


CLONE: dict[str, Any] = {"id": "clone", "repository": "https://host/r.git"}


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        ([{"git_clone": CLONE | {"branch": "main"}}], {"git": "https://host/r.git", "ref": "main"}),
        (
            [
                {"git_clone": CLONE | {"credentials": "{{ prefect.blocks.github-credentials.my-bot }}"}},
                {"set_working_directory": {"directory": "{{ clone.directory }}"}},
            ],
            {"git": "https://host/r.git", "token": "env:WHENTHEN_SECRET_MY_BOT"},
        ),
        (
            [{"git_clone": CLONE | {"access_token": "{{ prefect.blocks.secret.t }}", "include_submodules": True}}],
            {"git": "https://host/r.git", "submodules": True, "token": "env:WHENTHEN_SECRET_T"},
        ),
        (
            [{"git_clone": {"repository": "git@host:o/r.git", "access_token": "{{ $T }}", "commit_sha": "ab12"}}],
            {"git": "git@host:o/r.git", "ref": "ab12"},
        ),
        ([{"git_clone": CLONE | {"branch": "{{ get.branch }}"}}], None),
        ([{"git_clone": CLONE | {"branch": "--upload-pack=x"}}], None),
        ([{"git_clone": {"repository": "https://user:key@host/r.git"}}], None),
        (
            [{"git_clone": CLONE}, {"set_working_directory": {"directory": "/opt/prefect/{{ clone.directory }}/"}}],
            {"git": "https://host/r.git"},
        ),
        ([{"git_clone": CLONE}, {"set_working_directory": {"directory": "{{ clone.directory }}/../s"}}], None),
        ([{"git_clone": CLONE}, {"set_working_directory": {"directory": "{{ other.directory }}"}}], None),
        ([{"git_clone": CLONE}, {"set_working_directory": {"directory": "/app"}}], None),
        ([{"git_clone": None}], None),
    ],
)
def test_a_clone_that_is_pulled_is_where_the_code_is(
    steps: list[dict[str, Any]], code: dict[str, Any] | None, tmp_path: Path
) -> None:
    pull = [{f"prefect.deployments.steps.{name}": step for name, step in one.items()} for one in steps]
    result = project({"name": "n", "entrypoint": "flows/a.py:f"}, pull=pull)
    loaded(result, tmp_path)
    assert result.rules["deployments"][0].get("code") == code
    assert any("pull: git_clone" in note for note in result.notes) == (code is None)


SECOND: dict[str, Any] = {"id": "second", "repository": "https://host/s.git"}


@pytest.mark.parametrize(
    ("folder", "code", "named"),
    [
        (None, "https://host/s.git", "https://host/r.git"),
        ("{{ clone.directory }}", "https://host/r.git", "https://host/s.git"),
    ],
)
def test_of_several_clones_the_one_that_a_run_works_in_is_its_code(
    folder: str | None, code: str, named: str, tmp_path: Path
) -> None:
    pull: list[dict[str, Any]] = [
        {"prefect.deployments.steps.git_clone": CLONE},
        {"prefect.deployments.steps.git_clone": SECOND},
    ]
    if folder is not None:
        pull.append({"prefect.deployments.steps.set_working_directory": {"directory": folder}})
    result = project({"name": "n", "entrypoint": "flows/a.py:f"}, pull=pull)
    loaded(result, tmp_path)
    assert result.rules["deployments"][0]["code"] == {"git": code}
    assert result.notes == (
        f"pull: git_clone of {named}: runs work in another clone; check this one out where the workers run, "
        "and give its folder to the flow",
    )


def test_a_folder_of_a_clone_is_where_its_runs_work(tmp_path: Path) -> None:
    pull = [
        {"prefect.deployments.steps.git_clone": CLONE},
        {"prefect.deployments.steps.set_working_directory": {"directory": "{{ clone.directory }}/etl/jobs"}},
    ]
    variables = {"name": "p", "job_variables": {"working_dir": "elsewhere"}}
    result = project(
        {"name": "n", "entrypoint": "a.py:f", "work_pool": variables},
        {"name": "m", "entrypoint": "jobs.a:f"},
        {"name": "o", "entrypoint": "a.py:f", "work_pool": variables, "pull": pull[:1]},
        pull=pull,
    )
    loaded(result, tmp_path)
    assert [(one["entrypoint"], one.get("working_dir")) for one in result.rules["deployments"]] == [
        ("etl/jobs/a.py:f", "etl/jobs"),
        ("jobs.a:f", "etl/jobs"),
        ("a.py:f", None),
    ]
    assert not result.notes


def test_a_token_of_a_clone_that_stands_in_the_file_is_not_written_again() -> None:
    result = project(
        {"name": "n", "entrypoint": "a.py:f"},
        pull=[{"prefect.deployments.steps.git_clone": CLONE | {"access_token": "ghp_1234"}}],
    )
    assert result.rules["deployments"][0]["code"] == {"git": "https://host/r.git"}
    assert "its token stands in the file" in result.text
    assert "ghp_1234" not in result.text


def test_what_prefect_reads_nowhere_is_named_and_left_out() -> None:
    rule, result = deployment_of(work_queue_name="q", job_variables={"env": {"A": "b"}}, queue="x")
    assert rule == {}
    assert [note.removeprefix("deployment 'f/n': ").partition(":")[0] for note in result.notes] == [
        "work_queue_name",
        "job_variables",
        "queue",
    ]


def test_a_name_with_a_placeholder_is_no_template() -> None:
    result = project(
        {"name": "n-{{ $STAGE }}", "entrypoint": "a.py:f", "triggers": [{"expect": ["e"]}]},
        {"name": "$x", "entrypoint": "a.py:f"},
    )
    assert [one["name"] for one in result.rules["deployments"]] == ["f/n-STAGE", "f/x"]
    assert result.rules["automations"][0]["actions"][0]["deployment"] == "f/n-STAGE"
    assert any("the name of its deployment is in {{ $STAGE }}" in note for note in result.notes)


def test_a_folder_outside_of_the_project_is_named() -> None:
    rule, result = deployment_of(work_pool={"job_variables": {"working_dir": "/x"}})
    assert rule == {}
    assert result.notes == (
        "deployment 'f/n': work_pool.job_variables.working_dir: outside of the project; runs work in the folder of these rules",
    )


@pytest.mark.parametrize(
    ("written", "ours"),
    [
        (1, {"concurrency_limit": 1}),
        ("2", {"concurrency_limit": 2}),
        ({"limit": 1, "collision_strategy": "ENQUEUE"}, {"concurrency_limit": 1}),
        ({"limit": 3}, {"concurrency_limit": 3}),
        ({"limit": 1, "collision_strategy": "CANCEL_NEW"}, {"concurrency": {"limit": 1, "on_limit": "cancel-new"}}),
        (None, {}),
        ({"limit": None}, {}),
    ],
)
def test_limits_come_over(written: Any, ours: dict[str, Any]) -> None:
    rule, result = deployment_of(concurrency_limit=written)
    assert (rule, result.notes) == (ours, ())


@pytest.mark.parametrize(
    ("written", "ours"),
    [([["a", "b"], "c"], ["a", "b", "c"]), ("dev", ["dev"]), ([1, None, "a", "a"], ["1", "a"]), (None, [])],
)
def test_tags_come_over_in_any_form(written: Any, ours: list[str]) -> None:
    rule, result = deployment_of(tags=written)
    assert (rule.get("tags", []), result.notes) == (ours, ())


def test_placeholders_are_filled_in_or_become_references_or_are_named() -> None:
    written = {
        "name": "n",
        "entrypoint": "a.py:f",
        "work_pool": {"name": "{{ $P }}"},
        "tags": ["{{ $STAGE }}", "x-{{ $STAGE }}"],
        "parameters": {
            "key": "{{ prefect.blocks.secret.api-key }}",
            "region": "{{ prefect.variables.region }}",
            "bucket": "{{ $BUCKET }}",
            "path": "s3://{{ $STAGE }}/x",
            "deep": {"commit": "{{ git.commit }}"},
        },
        "triggers": [
            {"expect": ["e"], "match": {"stage": "{{ $STAGE }}"}, "parameters": {"x": "{{ event.payload.x }}"}}
        ],
    }
    document = {"deployments": [written]}
    result = import_prefect(document, environment={"STAGE": "prod", "P": "pool", "api-key": "no"})
    (rule,) = result.rules["deployments"]
    assert (rule["work_pool"], rule["tags"]) == ("pool", ["prod", "x-prod"])
    assert rule["parameters"] == {"path": "s3://prod/x", "deep": {"commit": "{{ git.commit }}"}}
    assert rule["secret_parameters"] == {
        "key": "env:WHENTHEN_SECRET_API_KEY",
        "region": "env:WHENTHEN_VARIABLE_REGION",
        "bucket": "env:BUCKET",
    }
    assert result.rules["automations"][0]["trigger"]["match"] == {"stage": "prod"}
    assert result.lost == {Aspect.PARAMETERS: ("deployment 'f/n'",)}
    unknown = import_prefect(document)
    assert unknown.rules["deployments"][0]["work_pool"] == "P"
    assert set(unknown.lost) == {Aspect.PARAMETERS, Aspect.POOL}
    assert any("the name of its pool is in {{ $P }}, which has no value here" in note for note in unknown.notes)
    assert any("trigger 1: {{ $STAGE }} has no value here, and no event has it" in note for note in unknown.notes)


def test_steps_are_named_once_with_what_they_are_about() -> None:
    pull = [
        {"prefect.deployments.steps.git_clone": {"repository": "https://user:key@host/r.git", "branch": "main"}},
        {"prefect.deployments.steps.set_working_directory": {"directory": "/app"}},
    ]
    result = project(
        {"name": "a", "entrypoint": "/app/a.py:f", "pull": pull[1:]},
        {"name": "b", "entrypoint": "b.py:f", "pull": pull[1:]},
        pull=pull[:1],
        build=[{"prefect_docker.deployments.steps.build_docker_image": {"image_name": "i"}}],
        push=None,
        definitions={"x": 1},
    )
    assert result.notes == (
        "build: build_docker_image: nothing is built here; do it where you build your software",
        "pull: git_clone of https://host/r.git: check it out where the workers run, and put these rules into its folder",
        "pull: set_working_directory of /app: runs work in the folder of these rules; put them into the one that has the code "
        "(2 deployments: 'a', 'b')",
    )
    assert [one["entrypoint"] for one in result.rules["deployments"]] == ["a.py:f", "b.py:f"]


def test_what_is_said_of_many_deployments_is_said_once() -> None:
    result = project(*({"name": f"n{number}", "entrypoint": "a.py:f", "entity_name": "1"} for number in range(40)))
    (note,) = result.notes
    assert note.endswith("(40 deployments: 'f/n0', 'f/n1', 'f/n2', 'f/n3', 'f/n4' and 35 more)")


def test_one_field_that_is_wrong_is_left_out_alone() -> None:
    rule, result = deployment_of(concurrency_limit=0, tags=["a"], parameters=[1], description="d")
    assert rule == {"tags": ["a"], "description": "d"}
    assert set(result.lost) == {Aspect.LIMITS, Aspect.PARAMETERS}


def test_a_key_that_comes_twice_counts_as_in_prefect_with_a_warning() -> None:
    result = import_prefect_file(
        b"definitions:\n  tags: &tags [x]\ndeployments:\n- name: a\n  entrypoint: a.py:f\n  tags: *tags\n  name: b\n  parameters: {1: !x y}\n"
    )
    assert [(one["name"], one["tags"], one["parameters"]) for one in result.rules["deployments"]] == [
        ("f/b", ["x"], {"1": "y"})
    ]
    assert (
        "line 7: the key name comes twice in this mapping; remove one; the last one was taken, as Prefect does"
        in result.notes
    )
    with pytest.raises(InvalidInput, match=r"^p\.yaml:2:1: not YAML"):
        import_prefect_file(b"deployments: [", name="p.yaml")


# -- rules on runs


def test_a_chain_of_two_deployments_fires_on_our_runs(tmp_path: Path) -> None:
    chain = {
        "name": "b",
        "entrypoint": "b.py:g",
        "triggers": [{"expect": ["prefect.flow-run.Completed"], "match_related": {"prefect.resource.name": "a"}}],
    }
    result = project({"name": "a", "entrypoint": "a.py:f"}, chain)
    rules = loaded(result, tmp_path)
    run = new_run(rules.deployments[0], key="k", parameters={}, now=NOW)
    event = flow_run_event(replace(run, state=RunState.COMPLETED), 3, NOW)
    assert [firing["automation"] for firing in replay(rules, [event.encode()])] == ["b__automation_1"]


@pytest.mark.parametrize(
    ("spec", "ours"),
    [
        (
            {"expect": ["prefect.flow-run.*"], "match": {"prefect.resource.id": "prefect.flow-run.*"}},
            {"expect": ["flow-run.*"], "match": {"id": "whenthen.flow-run.*"}},
        ),
        (
            {"expect": ["prefect.flow-run.AwaitingRetry"], "match": {"prefect.state-name": "!x"}},
            {"expect": ["flow-run.Retrying"], "match": {"state": "!x"}},
        ),
        (
            {"match_related": {"prefect.resource.role": "flow", "prefect.resource.name": "etl"}},
            {"match_related": [{"role": "flow", "name": "etl"}]},
        ),
        (
            {"match_related": [{"prefect.resource.role": "deployment", "prefect.resource.name": ["!a", "b/c"]}]},
            {"match_related": [{"role": "deployment", "name": ["!a", "!*/a", "b/c"]}]},
        ),
        (
            {"match_related": {"prefect.resource.id": ["prefect.deployment.u-1", "prefect.tag.x"]}},
            {"match_related": [{"id": ["whenthen.deployment.f/a", "whenthen.tag.x"]}]},
        ),
    ],
)
def test_triggers_on_runs_are_about_our_runs(spec: dict[str, Any], ours: dict[str, Any]) -> None:
    result = import_prefect(automation(spec), deployments={"u-1": "f/a"})
    (rule,) = result.rules["automations"]
    assert {key: rule["trigger"][key] for key in ours} == ours
    assert result.notes == ()


def test_rules_on_a_servers_runs_keep_its_names() -> None:
    spec = {"expect": ["prefect.flow-run.Completed"], "match": {"prefect.resource.id": "prefect.flow-run.*"}}
    found = trigger_of(spec, "prefect")
    assert (found["expect"], found["match"]) == (["prefect.flow-run.Completed"], {"id": "prefect.flow-run.*"})


def test_events_that_no_run_here_has_are_named() -> None:
    result = import_prefect(automation({"expect": ["prefect.work-pool.not-ready"]}))
    assert any("no run here has the event 'prefect.work-pool.not-ready'" in note for note in result.notes)


def test_changes_of_a_runs_state_are_what_they_do_here() -> None:
    actions, notes = actions_of(
        {"type": "change-flow-run-state", "state": "CANCELLED", "name": "x"},
        {"type": "change-flow-run-state", "state": "FAILED", "message": "late: {{ flow_run.name }}"},
        {"type": "change-flow-run-state", "state": "PAUSED", "name": "Suspended"},
        {"type": "suspend-flow-run"},
        {"type": "resume-flow-run"},
        {"type": "change-flow-run-state", "state": "PENDING"},
    )
    assert actions == [
        {"type": "cancel-flow-run"},
        {"type": "change-flow-run-state", "state": "Failed", "message": "late: {{ event.resource.name }}"},
        {"type": "suspend-flow-run"},
        {"type": "suspend-flow-run"},
        {"type": "resume-flow-run"},
    ]
    assert notes == ("automation 'one': actions[5]: `change-flow-run-state` to PENDING has no counterpart; left out",)


def test_templates_on_runs_are_translated_and_render(tmp_path: Path) -> None:
    body = (
        "{{ flow_run.name }} {{ flow_run.state.name }} {{ flow_run.state.message }} {{ flow.name }} {{ deployment.name }} "
        "{{ work_pool.name }} {{ flow_run.parameters.day | upper }} {{ event.payload.validated_state.message }}"
    )
    send = {"type": "send-notification", "block_document_id": "abcd1234", "subject": "s", "body": body}
    result = import_prefect(automation({"expect": ["prefect.flow-run.Failed"]}, [send]))
    (action,) = result.rules["automations"][0]["actions"]
    deployment = Deployment.model_validate({"name": "etl/nightly", "command": "true", "work_pool": "p"})
    run = new_run(deployment, key="k", parameters={"day": "mon"}, now=NOW)
    run = replace(run, state=RunState.FAILED, message="bad")
    event = json.loads(flow_run_event(run, 3, NOW).encode())
    rendered = compile_text(action["body"]).render({"event": event})
    assert rendered == f"etl/nightly-{run.id[:8]} Failed bad etl etl/nightly p MON bad"


def test_a_payload_stays_json() -> None:
    (action,), _ = actions_of(
        {
            "type": "call-webhook",
            "block_document_id": "abcd1234",
            "payload": '{"p": {{ event.payload | tojson }}, "e": {{ event }}}',
        }
    )
    assert action["body"] == '{"p": {{ event.payload | tojson }}, "e": {{ event | tojson }}}'


def test_the_whole_event_is_a_parameter() -> None:
    result = project(
        {
            "name": "a",
            "entrypoint": "a.py:f",
            "triggers": [{"expect": ["e"], "parameters": {"e": "{{ event }}", "p": "{{ event.payload | tojson }}"}}],
        }
    )
    assert result.rules["automations"][0]["actions"][0]["parameters"] == {"e": "$", "p": "$.payload"}


def test_ids_are_read_from_a_mapping_and_from_what_prefect_prints() -> None:
    listed = [
        {"id": "1", "name": "a", "flow": {"name": "f"}},
        {"id": "2", "name": "b", "flow_name": "g"},
        {"id": "3", "name": "c"},
    ]
    assert read_ids(json.dumps(listed).encode()) == {"1": "f/a", "2": "g/b", "3": "c"}
    assert read_ids(b"u-1: f/a") == {"u-1": "f/a"}
    for wrong in (b"", b"[]", b"a: 1", b"[{id: 1}]", b"{"):
        with pytest.raises(InvalidInput, match=r"^ids"):
            read_ids(wrong)


def test_a_name_without_its_flow_is_that_of_the_one_deployment_of_the_file() -> None:
    run = {"type": "run-deployment", "source": "selected", "deployment_id": "u-1"}
    document = {
        "deployments": [{"name": "a", "entrypoint": "a.py:f"}],
        "automations": [automation({"expect": ["e"]}, [run])],
    }
    result = import_prefect(document, deployments={"u-1": "a"})
    assert result.rules["automations"][0]["actions"] == [{"type": "run-deployment", "deployment": "f/a"}]
    document["deployments"].append({"name": "a", "entrypoint": "a.py:g"})
    result = import_prefect(document, deployments={"u-1": "a"})
    assert result.rules["automations"][0]["actions"][0]["deployment"] == "{{ 'a' }}"


def test_a_score_counts_what_of_many_files_comes_over(tmp_path: Path) -> None:
    for name, text in {
        "whole.yaml": "deployments: [{name: a, entrypoint: a.py:f}]",
        "lossy.yaml": "deployments: [{name: a, entrypoint: a.py:f}, {name: b}, {name: c, entrypoint: a.py:f, concurrency_limit: 0}]",
        "empty.yaml": "deployments: []",
        "broken.yaml": "deployments: [",
        "automation.yml": "{name: x, trigger: {expect: [a]}, actions: []}",
    }.items():
        (tmp_path / name).write_text(text)
    assert score_folder(tmp_path).as_json() == {
        "files": 2,
        "kept": 1,
        "deployments": 4,
        "automations": 1,
        "lost": {"code": 1, "parameters": 0, "schedules": 0, "pool": 0, "limits": 1},
        "losing": {"lossy.yaml": {"code": 1, "limits": 1}},
        "unread": {"broken.yaml": score_folder(tmp_path).unread["broken.yaml"]},
        "others": 1,
    }
    with pytest.raises(InvalidInput, match="there is no such folder"):
        score_folder(tmp_path / "none")


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


SCHEDULES = st.fixed_dictionaries(
    {},
    optional={
        "cron": st.sampled_from(["0 2 * * *", "0 2 1 * 1", "0 2 L * 1", "@daily", "* * * * * *"]) | VALUES,
        "interval": st.floats() | VALUES,
        "rrule": st.sampled_from(["FREQ=DAILY", '{"rrule": 1}', "[1]", "{"]) | VALUES,
        **dict.fromkeys(("timezone", "anchor_date", "day_or", "active", "parameters", "slug", "replaces"), VALUES),
    },
)
DEPLOYMENTS = st.fixed_dictionaries(
    {
        "name": st.text(max_size=5) | VALUES,
        "entrypoint": st.sampled_from(["a.py:f", "a.b.c", "a:b:c", "{{ $X }}"]) | VALUES,
    },
    optional={
        "schedules": st.lists(SCHEDULES | VALUES, max_size=2) | VALUES,
        "schedule": SCHEDULES | VALUES,
        "work_pool": st.fixed_dictionaries(
            {},
            optional=dict.fromkeys(("name", "work_queue_name", "job_variables"), VALUES | st.just({"env": {"A": 1}})),
        )
        | VALUES,
        "concurrency_limit": st.fixed_dictionaries({}, optional={"limit": VALUES, "collision_strategy": VALUES})
        | VALUES,
        "triggers": st.lists(TRIGGERS | VALUES, max_size=2) | VALUES,
        **dict.fromkeys(
            ("tags", "parameters", "paused", "description", "version", "flow_name", "pull", "build"), VALUES
        ),
    },
)
PROJECTS = st.fixed_dictionaries(
    {"deployments": st.lists(DEPLOYMENTS | VALUES, max_size=3)},
    optional={"pull": VALUES, "build": VALUES, "automations": VALUES},
)


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_a_number_that_json_lacks_is_left_out_with_its_place(number: float, tmp_path: Path) -> None:
    written = {"name": "daily", "entrypoint": "a.py:f", "parameters": {"depth": {"of": [1.0, number]}}}
    result = import_prefect({"deployments": [written]})
    assert result.rules["deployments"] == [{"name": "f/daily", "entrypoint": "a.py:f"}]
    assert any("parameters.depth.of[1]: infinity and NaN are no numbers of JSON" in note for note in result.notes)
    loaded(result, tmp_path)


@pytest.mark.takes(2)
@up_to(200, usually=100)
@given(document=DOCUMENTS | PROJECTS | VALUES)
@example(document={"deployments": [{"name": "", "entrypoint": "a.py:f", "parameters": {"": math.inf}}]})
def test_whatever_is_imported_loads(document: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    with contextlib.suppress(WhenthenError):
        result = import_prefect(document)
        loaded(result, tmp_path_factory.mktemp("rules"))
        return
    with pytest.raises(InvalidInput):
        import_prefect(document)
