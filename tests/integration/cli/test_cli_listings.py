"""Listings, documents and changes against a fake API: what is asked, and what is shown."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

AT = "2026-01-31T08:00:00.000000Z"
LONG_ID = "e7f447132cef5e9d9bdc7165ad3093f1"
RUN = {
    "id": "4f2a" + "0" * 28, "deployment": "load", "work_pool": "default", "state": "Completed", "parameters": {"a": 1},
    "key": "k", "created": AT, "scheduled_for": AT, "changed": AT, "started": AT, "ended": "2026-01-31T08:00:02.500000Z",
    "message": "", "result": None, "triggered_by": "api",
}  # fmt: skip
DEPLOYMENT = {
    "name": "load", "runs": "sh load.sh", "work_pool": "default", "tags": ["nightly"], "description": "",
    "schedules": [
        {"name": "night", "when": "0 2 * * *", "timezone": "Europe/Paris", "paused": False, "next": AT},
        {"name": "hour", "when": "0 * * * *", "timezone": "UTC", "paused": True, "next": None},
    ],
}  # fmt: skip
ACTION = {
    "key": "f1.0", "automation": "load", "type": "call-webhook", "outcome": "dead", "attempt": 5, "at": AT,
    "error": "POST http://x: refused\nmore", "seq": 9,
}  # fmt: skip
LISTINGS = {
    "events": [{"id": "e-1", "event": "order.paid", "occurred": AT, "resource": {"id": "order.17"}, "seq": 7}],
    "automations": [
        {"name": "load", "state": "active", "trigger": "event", "actions": ["do-nothing"], "fired": 3, "last_fired": AT}
    ],
    "firings": [
        {
            "id": "f1",
            "automation": "load",
            "state": "Triggered",
            "fired": AT,
            "at": AT,
            "key": {"bucket": "raw"},
            "event": None,
            "seq": 1,
        }
    ],
    "deployments": [DEPLOYMENT],
    "runs": [RUN],
    "actions": [ACTION],
}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("events", ["order.paid", "order.17", "e-1"]),
        ("automations", ["load", "active", "event", "do-nothing", "3"]),
        ("firings", ["load", "Triggered", "raw", "(time)", "f1"]),
        ("deployments", ["sh load.sh", "night: 0 2 * * * Europe/Paris (next 2026-01-31", "hour: 0 * * * * (paused)"]),
        ("runs", ["load", "Completed", "2.5s", "api", "4f2a"]),
        ("actions", ["call-webhook", "dead", "5", "f1.0", "POST http://x: refused"]),
    ],
)
def test_a_group_alone_is_its_listing_as_a_table_or_as_json(
    run: Callable[..., Any], server: Any, name: str, shown: list[str]
) -> None:
    server.answers[f"GET /api/{name}"] = LISTINGS[name]
    table = run(name).output
    for text in shown:
        assert text in table
    assert orjson.loads(run(name, "--json").output) == LISTINGS[name]
    if name != "firings":
        assert run(name, "list").output == table


def test_a_firing_shows_when_it_fired_and_the_time_that_it_is_about(run: Callable[..., Any], server: Any) -> None:
    fired, same, before = "2026-02-01T12:00:00.123456789Z", "2026-02-01T11:59:00Z", "2026-01-31T08:00:00Z"
    (one,) = LISTINGS["firings"]
    server.answers["GET /api/firings"] = [{**one, "fired": fired, "at": at} for at in (same, before)]
    wanted = {
        text: datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S") for text in (fired, same, before)
    }
    heading, first, second = run("firings").output.splitlines()
    assert heading.split()[:2] == ["FIRED", "AT"]
    assert first.startswith(f"{wanted[fired]}  {wanted[same][11:]} ")
    assert second.startswith(f"{wanted[fired]}  {wanted[before]} ")
    assert run("firings", "-o", "wide").output.splitlines()[1].startswith(f"{wanted[fired]}  {wanted[same]} ")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("events", "no events"), ("automations", "no automations"), ("firings", "no firings"),
        ("deployments", "no deployments"), ("runs", "no runs"), ("actions", "no actions"),
    ],
)  # fmt: skip
def test_an_empty_listing_says_so(run: Callable[..., Any], server: Any, name: str, said: str) -> None:
    server.answers[f"GET /api/{name}"] = []
    assert run(name).output == f"{said}\n"


def test_filters_are_handed_to_the_server(run: Callable[..., Any], server: Any) -> None:
    for name in ("events", "runs", "actions", "firings"):
        server.answers[f"GET /api/{name}"] = []
    run("events", "--event", "github.*", "--source", "api", "--resource", "order.*", "--limit", "3")
    run("runs", "--deployment", "load", "--state", "Failed", "--work-pool", "gpu")
    run("actions", "--automation", "a", "--type", "emit-event", "--outcome", "executed")
    run("actions", "dead", "--automation", "a")
    run("firings", "--automation", "a")
    assert [asked.query for asked in server.asked] == [
        {"limit": "3", "event": "github.*", "source": "api", "resource": "order.*"},
        {"limit": "25", "deployment": "load", "state": "Failed", "work_pool": "gpu"},
        {"limit": "25", "automation": "a", "type": "emit-event", "outcome": "executed"},
        {"limit": "25", "automation": "a", "outcome": "dead"},
        {"limit": "25", "automation": "a"},
    ]


def test_options_before_a_command_of_a_group_are_refused_and_not_ignored(run: Callable[..., Any], server: Any) -> None:
    assert "options of `show` come after it" in run("runs", "--json", "show", "x", code=2).output
    assert not server.asked


def test_an_automation_is_shown_with_its_rule_and_its_decisions(run: Callable[..., Any], server: Any) -> None:
    decisions = [
        {
            "at": AT,
            "reason": "label_mismatch",
            "event": "e-1",
            "path": "",
            "key": "",
            "detail": 'bucket: "tmp"',
            "firing": None,
        }
    ]
    server.answers["GET /api/automations/load"] = {
        "name": "load",
        "trigger": {"expect": ["a.b"]},
        "decisions": decisions,
    }
    shown = run("automations", "show", "load").output
    assert "expect:" in shown
    assert "label_mismatch" in shown
    assert 'bucket: "tmp"' in shown


def test_names_with_odd_characters_reach_the_server_whole(run: Callable[..., Any], server: Any) -> None:
    server.answers["POST /api/automations/a b?c#d%/pause"] = {"name": "a b?c#d%", "state": "paused"}
    assert run("automations", "pause", "a b?c#d%").output == "a b?c#d% is paused\n"


def test_a_pause_has_an_end_and_a_reason_which_lists_show(run: Callable[..., Any], server: Any) -> None:
    pause = {"since": AT, "until": AT, "reason": "they flood us", "by": "ada"}
    server.answers["POST /api/automations/load/pause"] = {"name": "load", "state": "paused", "pause": pause}
    shown = run("automations", "pause", "load", "--for", "2h", "--reason", "they flood us").output
    assert shown.startswith("load is paused (until 20")
    assert shown.endswith(" by ada: they flood us)\n")
    asked = server.asked[-1].body
    assert (asked["for"], asked["reason"]) == ("2h", "they flood us")
    assert asked["by"]
    server.answers["GET /api/automations"] = [{**each, "pause": pause} for each in LISTINGS["automations"]]
    table = run("automations", "--output", "wide").output
    assert "PAUSED" in table
    assert "by ada: they flood us" in table


def test_parameters_keep_their_types(run: Callable[..., Any], server: Any) -> None:
    server.answers["POST /api/deployments/load/run"] = (201, {**RUN, "state": "Scheduled"})
    run(
        "deployments",
        "run",
        "load",
        "-p",
        "n=3",
        "-p",
        "on=true",
        "-p",
        "s=a b",
        "-p",
        'q="3"',
        "--key",
        "k",
        "--delay",
        "2",
    )
    (started,) = (asked for asked in server.asked if asked.method == "POST")
    assert started.body == {
        "parameters": {"n": 3, "on": True, "s": "a b", "q": "3"},
        "key": "k",
        "delay": 2.0,
    }
    assert "is not name=value" in run("deployments", "run", "load", "-p", "n", code=1).output


def test_what_is_under_way_has_taken_the_time_until_now(run: Callable[..., Any], server: Any) -> None:
    started = datetime.now(UTC) - timedelta(hours=2)
    began = {"started": started.isoformat(), "changed": (started + timedelta(seconds=3)).isoformat(), "ended": None}
    server.answers["GET /api/runs"] = [{**RUN, **began, "state": "Paused"}, {**RUN, **began, "state": "Suspended"}]
    paused, suspended = run("runs", "list", "--json").output, run("runs", "list").output.splitlines()[1:]
    assert len(json.loads(paused)) == 2
    (took,) = re.findall(r"Paused +([0-9.]+)s", suspended[0])
    assert 7200 <= float(took) < 10_000
    assert re.search(r"Suspended +3\.0s", suspended[1])


def test_runs_that_changed_since_they_were_chosen_keep_no_other_from_being_changed(
    run: Callable[..., Any], server: Any
) -> None:
    runs = [{**RUN, "id": str(number) * 32, "state": "Running"} for number in (3, 2, 1)]
    server.answers["GET /api/runs"] = runs
    server.answers[f"POST /api/runs/{'1' * 32}/cancel"] = {**runs[2], "state": "Cancelling"}
    conflict = {"reason": "conflict", "field": None, "message": "it changed"}
    server.answers[f"POST /api/runs/{'2' * 32}/cancel"] = (409, {"error": conflict})
    server.answers[f"POST /api/runs/{'3' * 32}/cancel"] = {**runs[0], "state": "Cancelling"}
    found = run("runs", "cancel", "--deployment", "load", "--yes", code=1)
    assert found.stdout.count("is Cancelling") == 2
    assert f"run {'2' * 32} is left as it is: it changed" in " ".join(found.stderr.split())
    assert "1 of 3 runs changed since they were chosen" in " ".join(found.stderr.split())
    found = run("runs", "cancel", "--deployment", "load", "--yes", "--json", code=1)
    assert [each["id"][0] for each in json.loads(found.stdout)] == ["1", "3"]
    server.answers[f"POST /api/runs/{'2' * 32}/cancel"] = (500, {"error": {**conflict, "reason": "internal"}})
    found = run("runs", "cancel", "--deployment", "load", "--yes", "--json", code=1)
    assert [each["id"][0] for each in json.loads(found.stdout)] == ["1"]  # what was done before the error
    server.answers["GET /api/runs"] = []
    assert json.loads(run("runs", "cancel", "--deployment", "load", "--yes", "--json").stdout) == []


def test_waiting_for_a_run_shows_its_log_and_its_end(run: Callable[..., Any], server: Any) -> None:
    states = iter(["Running", "Failed"])
    server.answers["POST /api/deployments/load/run"] = (201, {**RUN, "state": "Scheduled", "started": None})
    server.answers[f"GET /api/runs/{RUN['id']}/logs"] = {
        "lines": [{"at": AT, "stream": "stdout", "attempt": 1, "text": "[half] way"}], "next": 1, "done": True,
    }  # fmt: skip
    server.answers[f"GET /api/runs/{RUN['id']}"] = lambda _asked: {
        **RUN,
        "state": next(states),
        "message": "exit code 3",
    }
    shown = run("deployments", "run", "load", "--wait", code=1).output
    assert "[half] way" in shown
    assert "Failed after 2.5s: exit code 3" in shown


def test_a_line_tells_the_attempts_in_a_log_apart(run: Callable[..., Any], server: Any) -> None:
    lines = [{"at": AT, "stream": "stdout", "attempt": attempt, "text": f"of {attempt}"} for attempt in (1, 1, 2, 3)]
    server.answers[f"GET /api/runs/{RUN['id']}/logs"] = {"lines": lines, "next": 4, "done": True}
    server.answers[f"GET /api/runs/{RUN['id']}"] = RUN
    shown = run("runs", "logs", RUN["id"]).output
    assert shown == "of 1\nof 1\n--- attempt 2 ---\nof 2\n--- attempt 3 ---\nof 3\n"
    assert "---" not in run("runs", "logs", RUN["id"], "--json").output


def test_a_log_is_followed_until_the_run_ends(run: Callable[..., Any], server: Any) -> None:
    def logs(asked: Any) -> Any:
        after = int(asked.query["after"])
        return {"lines": [{"at": AT, "stream": "stdout", "attempt": 1, "text": f"line {after}"}], "next": after + 1, "done": after == 2}  # fmt: skip

    server.answers[f"GET /api/runs/{RUN['id']}/logs"] = logs
    server.answers[f"GET /api/runs/{RUN['id']}"] = server.answers["GET /api/runs/4f2a0000"] = RUN
    assert run("runs", "logs", "4f2a0000", "--follow").output == "line 0\nline 1\nline 2\n"
    assert [asked.path for asked in server.asked].count("/api/runs/4f2a0000") == 1
    assert run("runs", "logs", RUN["id"], "--follow").output == "line 0\nline 1\nline 2\n"
    assert run("runs", "logs", RUN["id"]).output == "line 0\n"
    assert "08:00:00.000  line 0" in run("runs", "logs", RUN["id"], "--times").output


TASK_RUN = {
    "id": "3f0c1a2b" + "0" * 24, "kind": "task", "name": "load-3a1", "of": "load", "parent": "", "attempt": 1, "state": "Retrying",
    "type": "RUNNING", "message": "", "tries": 2, "tags": [], "created": "2026-01-31T08:00:00.000000Z",
    "started": "2026-01-31T08:00:00.000000Z", "ended": None, "states": [],
}  # fmt: skip


def test_a_shortened_id_goes_to_the_server_as_it_is_and_last_is_the_newest_run(
    run: Callable[..., Any], server: Any
) -> None:
    server.answers["GET /api/runs"] = [RUN]
    server.answers[f"GET /api/runs/{RUN['id']}"] = server.answers["GET /api/runs/4f2a0000"] = RUN
    server.answers[f"GET /api/runs/{RUN['id']}/task-runs"] = {"task_runs": [TASK_RUN], "total": 300}
    server.answers["POST /api/runs/4f2a0000/cancel"] = {**RUN, "state": "Cancelled"}
    server.answers["GET /api/events/e7f44713-4"] = {"id": "e"}
    server.answers["GET /api/artifacts"] = []
    shown = run("runs", "show", "4f2a0000").output
    assert RUN["id"] in shown
    assert re.search(r"task +load-3a1 +Retrying +2 +3f0c1a2b", shown)
    assert f"299 more: GET /api/runs/{RUN['id']}/task-runs" in shown
    assert json.loads(run("runs", "show", "4f2a0000", "--json").output)["task_runs"] == [TASK_RUN]
    assert RUN["id"] in run("runs", "show", "last").output
    server.answers[f"GET /api/trace/{RUN['id']}"] = {
        "id": "",
        "trace": "t1",
        "items": [],
        "links": [],
        "notes": [],
        "cut": False,
    }
    assert run("trace", "last").output == "trace t1\n"
    assert "is Cancelled" in run("runs", "cancel", "4f2a0000").output
    assert run("events", "show", "e7f44713-4").output == "id: e\n# whenthen trace e\n"
    server.answers["GET /api/runs"] = []
    assert "there are no runs yet" in run("runs", "show", "last", code=1).output


def test_last_is_the_newest_firing_action_or_event(run: Callable[..., Any], server: Any) -> None:
    firing = {"id": "f1", "automation": "a", "event": None, "events": [], "actions": []}
    server.answers["GET /api/firings"] = [firing]
    server.answers["GET /api/firings/f1"] = firing
    assert json.loads(run("firings", "show", "last", "--json").output) == firing
    server.answers["GET /api/actions"] = [ACTION]
    server.answers["GET /api/actions/f1.0"] = ACTION
    assert json.loads(run("actions", "show", "last", "--json").output) == ACTION
    server.answers["GET /api/events"] = [{"id": "e-1"}]
    server.answers["GET /api/events/e-1"] = {"id": "e-1"}
    assert json.loads(run("events", "show", "last", "--json").output) == {"id": "e-1"}
    server.answers["GET /api/events/last"] = {"id": "last"}
    assert json.loads(run("events", "show", "last", "--json").output) == {"id": "last"}
    server.answers["GET /api/actions"] = []
    assert "there are no actions yet" in run("actions", "show", "last", code=1).output


def test_what_is_shown_names_the_commands_that_go_on_from_it(run: Callable[..., Any], server: Any) -> None:
    event = {"id": "e 1", "follows": "e0", "lineage": {"firing": "f0"}}
    server.answers["GET /api/events/e 1"] = event
    server.answers["GET /api/firings"] = [{"id": "f1"}]
    assert run("events", "show", "e 1").output.splitlines()[-4:] == [
        "# whenthen firings show f1",
        "# whenthen firings show f0",
        "# whenthen events show e0",
        "# whenthen trace 'e 1'",
    ]
    action = {**ACTION, "firing": "f1", "outcome": "dead", "result": {"flow_run": RUN["id"]}}
    firing = {"id": "f1", "automation": "a", "event": "e 1", "events": ["e0", "e 1"], "actions": [action]}
    server.answers["GET /api/firings/f1"] = firing
    assert run("firings", "show", "f1").output.splitlines()[-5:] == [
        "# whenthen events show e0",
        "# whenthen events show 'e 1'",
        f"# whenthen actions show {ACTION['key']}",
        "# whenthen automations decisions a --firing f1",
        "# whenthen trace f1",
    ]
    server.answers[f"GET /api/actions/{ACTION['key']}"] = action
    assert run("actions", "show", ACTION["key"]).output.splitlines()[-3:] == [
        "# whenthen firings show f1",
        f"# whenthen runs show {RUN['id']}",
        f"# whenthen actions redrive {ACTION['key']}",
    ]
    assert "#" not in run("firings", "show", "f1", "--json").output


def test_filters_of_lists_go_to_the_server_and_its_notes_to_standard_error(
    run: Callable[..., Any], server: Any
) -> None:
    for path in (
        "/api/events",
        "/api/firings",
        "/api/actions",
        "/api/runs",
        "/api/audit",
        "/api/automations/a/windows",
    ):
        server.answers[f"GET {path}"] = []
    server.answers["GET /api/automations/a/decisions"] = []
    for words in (
        ("events", "--since", "2h", "--label", "a=b", "--label", "c=d", "--firing", "f"),
        ("firings", "list", "--since", "2h", "--until", "1h", "--key", "id=x", "--automation", "a"),
        ("actions", "--since", "2h", "--firing", "f", "--automation", "a"),
        ("actions", "dead", "--since", "2h", "--firing", "f"),
        ("runs", "--since", "2h", "--firing", "f", "--automation", "a", "--text", "t"),
        ("automations", "decisions", "a", "--since", "2h", "--firing", "f", "--key", "k"),
        ("automations", "windows", "a", "--key", "id=x", "--since", "2h"),
        ("audit", "--since", "2h", "--until", "1h"),
    ):
        run(*words)
        asked = server.asked[-1].query
        for name in ("since", "until", "firing", "automation", "key", "text"):
            assert (name in asked) == (f"--{name}" in words), words
    assert server.asked[0].query["label"] == "c=d"
    server.notes = ["only what the stream still keeps was looked through"]
    result = run("firings", "--json")
    assert result.stderr == "note: only what the stream still keeps was looked through\n"
    assert orjson.loads(result.stdout) == []


def test_dead_letters_are_redriven_by_key_or_all_and_refusals_told(run: Callable[..., Any], server: Any) -> None:
    server.answers["GET /api/actions"] = [ACTION, {**ACTION, "key": "f2.0"}]
    server.answers["POST /api/actions/f1.0/redrive"] = {"key": "f1.0"}
    server.answers["POST /api/actions/f2.0/redrive"] = (
        409,
        {"error": {"reason": "conflict", "field": None, "message": "redriven by somebody else"}},
    )
    assert run("actions", "redrive", "f1.0").output == "f1.0 is tried again\n"
    result = run("actions", "redrive", "--all", code=1)
    assert "f1.0 is tried again" in result.output
    assert "f2.0: redriven by somebody else" in result.output
    assert "give the keys of dead letters, or --all" in run("actions", "redrive", code=2).output
    assert "give the keys of dead letters, or --all" in run("actions", "redrive", "f1.0", "--all", code=2).output


def test_dead_letters_are_dropped_by_key_or_all_after_their_number_was_told(
    run: Callable[..., Any], server: Any
) -> None:
    server.answers["GET /api/actions"] = [ACTION, {**ACTION, "key": "f2.0"}]
    for key in ("f1.0", "f2.0"):
        server.answers[f"POST /api/actions/{key}/drop"] = {"key": key}
    assert run("actions", "drop", "f1.0").output == "f1.0 is dropped\n"
    asked = run("actions", "drop", "--all", code=1)
    assert "Drop 2 dead letters?" in asked.output
    assert "is dropped" not in asked.output
    assert "f2.0 is dropped" in run("actions", "drop", "--all", "-a", "load", "--yes").output
    assert "give the keys of dead letters, or --all" in run("actions", "drop", code=2).output


def test_text_of_events_is_shown_as_it_is_and_not_as_markup(run: Callable[..., Any], server: Any) -> None:
    server.answers["GET /api/events"] = [
        {"id": "[bold]e[/]", "event": "[red]x", "occurred": AT, "resource": {"id": "a[/]b"}, "seq": 1}
    ]
    shown = run("events").output
    for text in ("[bold]e[/]", "[red]x", "a[/]b"):
        assert text in shown


def test_tables_are_as_wide_as_columns_says_and_eighty_when_it_says_nothing(
    run: Callable[..., Any], server: Any
) -> None:
    event = {
        "id": f"{LONG_ID}-4", "event": "flow-run.Completed", "occurred": "2026-01-31T08:00:00Z", "seq": 1,
        "resource": {"id": f"whenthen.flow-run.{LONG_ID}"},
    }  # fmt: skip
    server.answers["GET /api/events"] = [event]
    assert run("events", env={"COLUMNS": ""}).output.splitlines()[1] == (
        "2026-01-31 08:00:00  flow-run.Completed  whenthen.flow-run.e7f44713…  e7f44713-4"
    )
    assert f"whenthen.flow-run.{LONG_ID}  e7f44713-4" in run("events", env={"COLUMNS": "120"}).output
    assert f"whenthen.flow-run.{LONG_ID}  {LONG_ID}-4" in run("events", "-o", "wide", env={"COLUMNS": "40"}).output
    assert run("events", "-o", "json").output == run("events", "--json").output


def test_a_limit_above_what_the_api_gives_is_refused_and_not_cut_in_silence(
    run: Callable[..., Any], server: Any
) -> None:
    assert "1000" in run("runs", "--limit", "1001", code=2).output
    assert not server.asked
