"""What `check` knows before any event comes: fields that no event has, keys that can not be, what deployments lack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from whenthen.rules import load_rules
from whenthen.rules.folder import check_rules
from whenthen.triggers.matching.globs import compile_glob

DO = [{"do-nothing": {}}]


def rules(tmp_path: Path, **sets: Any) -> Path:
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(sets, sort_keys=False))
    return file


def one_problem(tmp_path: Path, trigger: dict[str, Any], *actions: dict[str, Any]) -> str:
    path = rules(tmp_path, automations=[{"name": "a", "trigger": trigger, "actions": list(actions) or DO}])
    problems = check_rules(path)
    assert len(problems) == 1, problems
    assert problems[0].line > 1
    return f"{problems[0].field}: {problems[0].detail}"


def sound(tmp_path: Path, trigger: dict[str, Any], *actions: dict[str, Any]) -> None:
    path = rules(tmp_path, automations=[{"name": "a", "trigger": trigger, "actions": list(actions) or DO}])
    assert check_rules(path) == []
    assert load_rules(path).warnings == ()


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ("event.paylod.x > 1", "an event has no field 'paylod'; did you mean \"payload\"?"),
        ("has(event.paylod) || true", "an event has no field 'paylod'"),
        ("event.?paylod.x.orValue(2) > 1", "an event has no field 'paylod'; did you mean \"payload\"?"),
        ("event.resource.?key.x.orValue(2) > 1", "labels of a resource are texts"),
        ("event.occurred < now && event.paylod.split(',').size() > 1", "an event has no field 'paylod'"),
        ("event.event.name == 'x'", "`event.event` is the event's name, which has no field 'name'"),
        ("event.id.value == 'x'", "`event.id` is the event's id"),
        ("event.resource.key.size == 'x'", "labels of a resource are texts: `event.resource.key` has no field 'size'"),
    ],
)
def test_a_condition_over_a_field_that_no_event_has_is_an_error(tmp_path: Path, when: str, said: str) -> None:
    found = one_problem(tmp_path, {"expect": "up", "when": when})
    assert found.startswith("automations[0].trigger.when: ")
    assert said in found


@pytest.mark.parametrize(
    "when",
    [
        "event.payload.paylod.event.name == 'x'",
        "event.payload.?paylod.event.name.orValue('x') == 'x' && now > event.occurred",
        "event.resource.key.split('/')[0].lowerAscii() == 'x'",
        "event.resource.key.startsWith('a') && event.occurred.getFullYear() > 2000",
        "event.related.exists(r, r.id == 'x' && r.role == 'y')",
        "'event.paylod' == event.source",
        "[1].exists(event, event > 0)",
        "event.lineage.depth > 1 || event.follows == null",
    ],
)
def test_conditions_over_what_events_have_are_sound(tmp_path: Path, when: str) -> None:
    sound(tmp_path, {"expect": "up", "when": when})


def test_resolve_on_and_the_parts_of_a_composite_are_looked_at_too(tmp_path: Path) -> None:
    part = {"expect": "b", "when": "event.labels.x == '1'"}
    assert "triggers[1].when: an event has no field 'labels'" in one_problem(
        tmp_path, {"type": "compound", "triggers": [{"expect": "a"}, part]}
    )
    assert "resolve_on.when: an event has no field 'labels'" in one_problem(
        tmp_path, {"expect": "a", "resolve_on": part}
    )


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("{{ event.resource.key }}", "a template; `for_each` takes a label of the resource"),
        ("event.resource.key", "no label begins with `event.`"),
        ("event.payload.order", "write $.payload.order"),
        (
            "$.event.resource.site",
            "`$.event` is the event's name, which has no field 'resource'; write `$.resource.site`",
        ),
        ("$.paylod.order", "an event has no field 'paylod'"),
        ("$.resource.a.b", "labels of a resource are texts"),
    ],
)
def test_a_key_that_no_event_can_have_is_an_error(tmp_path: Path, key: str, said: str) -> None:
    found = one_problem(tmp_path, {"expect": "up", "for_each": [key]})
    assert found.startswith("automations[0].trigger.for_each[0]: ")
    assert said in found
    parts = [{"expect": "a"}, {"expect": "b"}]
    assert ".correlate[0]: " in one_problem(tmp_path, {"type": "sequence", "triggers": parts, "correlate": [key]})
    found = one_problem(tmp_path, {"expect": "up", "for_each": {"path": key, "default": "none"}})
    assert found.startswith("automations[0].trigger.for_each[0].path: ")


@pytest.mark.parametrize(
    ("trigger", "said"),
    [
        ({"for_each": ["resource.id"]}, "for_each[0]: a label of the resource that is called `resource.id` itself; for a "),
        ({"for_each": [{"path": "resource.id", "default": "x"}]}, "for_each[0].path: a label"),
        ({"for_each": ["payload.order.id"]}, "for what an event carries write $.payload.order.id"),
        ({"match": {"resource.a.b": "x"}}, "match.resource.a.b: a label of the resource that is called `resource.a.b` itself; "),
        ({"match": {"resource.region": "eu"}}, "for a label of the resource write region"),
        ({"match": {"payload.total": "7"}}, "write event.payload.total in `when`"),
    ],
)  # fmt: skip
def test_a_label_that_is_called_like_a_place_in_an_event_is_a_warning(
    tmp_path: Path, trigger: dict[str, Any], said: str
) -> None:
    path = rules(tmp_path, automations=[{"name": "a", "trigger": {"expect": "up", **trigger}, "actions": DO}])
    (warning,) = load_rules(path).warnings
    assert warning.warning
    assert said in str(warning)


def test_labels_with_dots_of_their_own_are_sound(tmp_path: Path) -> None:
    keys = ["prefect.resource.id", "resource", "payload_id"]
    sound(tmp_path, {"expect": "up", "for_each": keys, "match": {"aws.resource.id": "x"}})


@pytest.mark.parametrize("field", ["expect", "after", "resolve_on"])
def test_a_template_is_no_name_of_an_event(tmp_path: Path, field: str) -> None:
    trigger = (
        {"expect": ["up", "{{ x }}"], "within": "1m"}
        if field == "expect"
        else {"expect": "up", "within": "1m", field: ["{{ x }}"]}
    )
    found = one_problem(tmp_path, trigger)
    assert found.partition(": ")[2] == "a template; names of events are texts or globs, and no event is called so"


def test_a_computed_label_over_what_no_event_has_is_an_error(tmp_path: Path) -> None:
    found = one_problem(tmp_path, {"expect": "up", "let": {"x": "event.paylod.x"}})
    assert found == """automations[0].trigger.let.x: an event has no field 'paylod'; did you mean "payload"?"""
    parts = [{"expect": "a"}, {"expect": "b"}]
    found = one_problem(tmp_path, {"type": "sequence", "triggers": parts, "let": {"x": "event.id.y"}})
    assert found.startswith("automations[0].trigger.let.x: `event.id` is the event's id")


def test_keys_that_events_can_have_are_sound(tmp_path: Path) -> None:
    keys = ["bucket", "related:flow:id", "$.payload.order", "$.related[0].id", "$['payload']['x']"]
    sound(tmp_path, {"expect": "up", "for_each": keys})


def test_the_value_of_a_metric_must_be_where_events_have_values(tmp_path: Path) -> None:
    metric = {"type": "metric", "expect": "x", "aggregate": "avg", "operator": ">", "threshold": 1, "within": "1m"}
    assert "trigger.value: an event has no field 'body'" in one_problem(tmp_path, {**metric, "value": "$.body.ms"})


def emits(text: str) -> dict[str, Any]:
    return {"emit-event": "e", "payload": {"x": text}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ key.oder }}", "`key` has no 'oder'; did you mean \"order\"?"),
        ("$.key.oder", "`key` has no 'oder'"),
        ("{{ event.paylod.x }}", "an event has no field 'paylod'"),
        ("$.event.resource.site", "`$.event` is the event's name"),
    ],
)
def test_what_a_template_of_an_action_reads_must_be_there(tmp_path: Path, text: str, said: str) -> None:
    found = one_problem(tmp_path, {"expect": "up", "for_each": ["order"]}, emits(text))
    assert found.startswith("automations[0].actions[0]")
    assert "payload.x: " in found
    assert said in found


def test_a_key_without_for_each_is_empty(tmp_path: Path) -> None:
    assert "the trigger has no `for_each`, so `key` is empty" in one_problem(
        tmp_path, {"expect": "up"}, emits("{{ key.x }}")
    )


@pytest.mark.parametrize(
    "text",
    [
        "{{ key.order }} {{ key['order'] }} {{ key.items() | list | tojson }}",
        "{{ event.paylod.x | default('none') }}",
        "{% if event.paylod is defined %}{{ event.paylod }}{% endif %}",
        "{% for event in events %}{{ event.anything.at.all }}{% endfor %}",
        "event.paylod is only a text",
        "$.event",
        "$.payload.key.idd",
    ],
)
def test_templates_that_can_work_are_sound(tmp_path: Path, text: str) -> None:
    sound(tmp_path, {"expect": "up", "for_each": ["order"]}, emits(text))


@pytest.mark.parametrize(
    "trigger",
    [
        {"expect": "up", "posture": "proactive", "within": "1h"},
        {"type": "schedule", "interval": "1h"},
    ],
)
def test_what_fires_by_time_has_no_event(tmp_path: Path, trigger: dict[str, Any]) -> None:
    assert "`event.payload.x`: the trigger fires" in one_problem(tmp_path, trigger, emits("{{ event.payload.x }}"))
    assert "`$.payload.x`: the trigger fires" in one_problem(tmp_path, trigger, emits("$.payload.x"))
    sound(tmp_path, trigger, emits("{{ event.payload.x | default('-') }} {{ events | length }}"))


def test_an_automation_without_actions_is_a_warning(tmp_path: Path) -> None:
    path = rules(tmp_path, automations=[{"name": "a", "trigger": {"expect": "up"}}])
    assert check_rules(path) == []
    (warning,) = load_rules(path).warnings
    assert (warning.warning, warning.line, warning.field) == (True, 2, "automations[0].name")
    assert str(warning).startswith("rules.yaml:2:9: warning: automations[0].name: it has no actions")


def test_a_notifier_needs_urls(tmp_path: Path) -> None:
    path = rules(tmp_path, notifiers=[{"name": "n", "urls": ["slack", "env:SLACK", "file:/x", "json://localhost"]}])
    (problem,) = check_rules(path)
    assert (problem.field, problem.line) == ("notifiers[0].urls[0]", 4)
    assert "it has no scheme" in problem.detail


def test_a_folder_without_rules_is_a_warning(tmp_path: Path) -> None:
    (warning,) = load_rules(tmp_path).warnings
    assert "there are no rules" in str(warning)
    (tmp_path / "notes.yaml").write_text("# nothing yet\n")
    assert len(load_rules(tmp_path).warnings) == 1
    (tmp_path / "notes.yaml").write_text("# nothing yet, and this is meant\nautomations: []\n")
    assert not load_rules(tmp_path).warnings


# -- deployments

FLOW = """
import functools
from elsewhere import imported

def flow(day, *, region, limit=3):
    pass

def any_of(**more):
    pass

@functools.cache
def decorated(x):
    pass

alias = flow
"""


def deployment_warnings(tmp_path: Path, deployment: dict[str, Any], parameters: Any = None) -> list[str]:
    (tmp_path / "flows.py").write_text(FLOW)
    sets: dict[str, Any] = {"deployments": [{"name": "d", **deployment}]}
    if parameters is not None:
        action = {"run-deployment": "d", "parameters": parameters}
        sets["automations"] = [{"name": "a", "trigger": {"expect": "up"}, "actions": [action]}]
    path = rules(tmp_path, **sets)
    assert check_rules(path) == []
    return [f"{warning.field}: {warning.detail}" for warning in load_rules(path).warnings]


def test_files_and_functions_of_entry_points_are_looked_for(tmp_path: Path) -> None:
    def of(entry_point: str) -> list[str]:
        return deployment_warnings(tmp_path, {"entrypoint": entry_point})

    (missing,) = of("nothing.py:flow")
    assert missing.startswith("deployments[0].entrypoint: nothing.py: there is no such file beside the rules")
    assert of("flows:flow") == of("json:dumps") == []
    (module,) = of("jobs.load:flow")
    assert "there is no module 'jobs.load' beside the rules or installed here" in module
    (unknown,) = of("flows:flaw")
    assert "flows has no function 'flaw'" in unknown
    (python,) = deployment_warnings(tmp_path, {"entrypoint": "jobs.load:flow", "python": ".venv/bin/python"})
    assert "there is no interpreter '.venv/bin/python' beside the rules" in python
    (unknown,) = of("flows.py:flaw")
    assert "flows.py has no function 'flaw'; did you mean \"flow\"?" in unknown
    (tmp_path / "broken.py").write_text("def flow(:\n")
    (broken,) = of("broken.py:flow")
    assert "this is no Python, line 1" in broken
    assert of("flows.py:imported") == of("flows.py:alias") == of("flows.py:decorated") == []


def test_parameters_are_held_against_the_function(tmp_path: Path) -> None:
    entry = {"entrypoint": "flows.py:flow"}
    (missing,) = deployment_warnings(tmp_path, entry, {"day": "$.payload.day"})
    assert missing.startswith("automations[0].actions[0]")
    assert "function flow needs 'region', which has no value here nor in the deployment" in missing
    assert deployment_warnings(tmp_path, {**entry, "parameters": {"region": "eu"}}, {"day": 1}) == []
    secret = {**entry, "secret_parameters": {"region": "env:REGION"}}
    assert deployment_warnings(tmp_path, secret, {"day": 1}) == []
    (superfluous,) = deployment_warnings(tmp_path, {**entry, "parameters": {"region": "eu", "day": 1, "dey": 2}})
    assert "function flow takes no parameter 'dey'; did you mean \"day\"?" in superfluous
    assert deployment_warnings(tmp_path, {"entrypoint": "flows.py:any_of"}, {"whatever": 1}) == []
    schedules = [{"cron": "@daily", "parameters": {"day": 1, "region": "eu", "limt": 2}}]
    (late,) = deployment_warnings(tmp_path, {**entry, "schedules": schedules})
    assert late.startswith("deployments[0].schedules[0]: function flow takes no parameter 'limt'")


def test_programs_folders_and_placeholders_of_commands_are_looked_for(tmp_path: Path) -> None:
    (program,) = deployment_warnings(tmp_path, {"command": "no-such-program-anywhere --x"})
    assert "there is no program 'no-such-program-anywhere' in PATH here" in program
    (folder,) = deployment_warnings(tmp_path, {"command": "sh -c true", "working_dir": "nowhere"})
    assert folder == "deployments[0].working_dir: there is no folder 'nowhere' beside the rules"
    (script,) = deployment_warnings(tmp_path, {"command": "./run.sh"})
    assert "there is no program './run.sh' in the folder that it runs in" in script
    (missing,) = deployment_warnings(tmp_path, {"command": "sh run.sh {{ day }}"}, {"dey": 1})
    assert "the command needs 'day'" in missing
    assert deployment_warnings(tmp_path, {"command": "sh run.sh {{ day }}"}, {"day": 1}) == []


def test_what_is_in_the_image_of_a_container_is_not_looked_for_here(tmp_path: Path) -> None:
    for deployment in (
        {"command": "no-such-program-anywhere --x"},
        {"entrypoint": "no_such_package_anywhere.flows:run"},
        {"entrypoint": "flows.py:any_of", "python": "/opt/no-such-place/bin/python"},
    ):
        assert len(deployment_warnings(tmp_path, deployment)) == 1
        boxed = {"name": "d", "work_pool": "boxed", **deployment}
        path = rules(
            tmp_path, deployments=[boxed], work_pools=[{"name": "boxed", "type": "docker", "image": "python:3.12-slim"}]
        )
        assert load_rules(path).warnings == ()


def set_warnings(tmp_path: Path, trigger: dict[str, Any]) -> list[str]:
    path = rules(tmp_path, automations=[{"name": "a", "trigger": trigger, "actions": DO}])
    assert check_rules(path) == []
    return [f"{warning.field}: {warning.detail}" for warning in load_rules(path).warnings]


def test_a_set_in_a_glob_that_reads_like_a_word_is_a_warning_with_the_text_to_write(tmp_path: Path) -> None:
    trigger = {"expect": "github.pull_request.opened", "match": {"sender": "!dependabot[bot]"}}
    assert set_warnings(tmp_path, trigger) == [
        "automations[0].trigger.match.sender[0]: `[bot]` is a set, one of b, o, t; "
        "for the text itself write `!dependabot[[]bot]`"
    ]
    assert set_warnings(tmp_path, {"expect": "x", "match": {"sender": "!dependabot[[]bot]"}}) == []
    quoted = compile_glob("!dependabot[[]bot]")
    assert (quoted.matches("dependabot[bot]"), quoted.matches("dependabott")) == (False, True)


@pytest.mark.parametrize(
    "trigger",
    [
        {"expect": ["up", "[ERROR] *"]},
        {"expect": "up", "match": {"branch": ["main", "feature/[draft]"]}},
        {"expect": "up", "match_related": [{"role": "user"}, {"id": "*renovate[bot]"}]},
        {"expect": "up", "match": {"x": "a[semantic-release]"}},
        {"expect": "up", "after": "down[!bot]", "within": "1m"},
        {"expect": "up", "resolve_on": {"expect": "down", "match": {"sender": "ci[bot]"}}},
        {"type": "sequence", "within": "1m", "triggers": [{"expect": "a"}, {"expect": "b[bot]"}]},
    ],
)
def test_such_a_set_is_found_wherever_a_glob_stands(tmp_path: Path, trigger: dict[str, Any]) -> None:
    (warning,) = set_warnings(tmp_path, trigger)
    assert "is a set, one" in warning


@pytest.mark.parametrize(
    "glob",
    ["v[12].*", "part-[abc]", "[a-z]*", "[A-Za-z0-9_]*", "[!abc]", "x[rwx]", "[aeiou]*", "[ab]x", "odd[1", "[]x]", "[[]bot]", "*.[ch]"],
)  # fmt: skip
def test_a_set_that_can_be_meant_is_none(tmp_path: Path, glob: str) -> None:
    assert set_warnings(tmp_path, {"expect": "up", "match": {"key": glob}}) == []


def test_attempts_of_a_retry_still_count_the_first_one_and_are_warned_of(tmp_path: Path) -> None:
    call = {"call-webhook": "https://example.com", "retry": {"attempts": 8}}
    path = rules(tmp_path, automations=[{"name": "a", "trigger": {"expect": "up"}, "actions": [call]}])
    assert check_rules(path) == []
    (warning,) = load_rules(path).warnings
    assert warning.line > 1
    assert warning.field == "automations[0].actions[0].retry.attempts"
    assert "write `retries: 7`" in warning.detail
    sound(tmp_path, {"expect": "up"}, {"call-webhook": "https://example.com", "retry": {"retries": 7}})


def test_retries_and_attempts_that_differ_are_an_error(tmp_path: Path) -> None:
    call = {"call-webhook": "https://example.com", "retry": {"retries": 3, "attempts": 3}}
    assert "`retries: 3` and `attempts: 3` differ" in one_problem(tmp_path, {"expect": "up"}, call)


@pytest.mark.parametrize("text", ["payload.order", "{{ event.payload.order }}"])
def test_in_the_place_of_an_object_only_a_path_is_taken(tmp_path: Path, text: str) -> None:
    for action in ({"run-deployment": "x", "parameters": text}, {"emit-event": "x", "resource": text}):
        path = rules(tmp_path, automations=[{"name": "a", "trigger": {"expect": "up"}, "actions": [action]}])
        (problem,) = [each for each in check_rules(path) if each.field != "automations[0].actions[0].deployment"]
        assert "is no path to an object; write one such as $.payload.order" in problem.detail


TYPED = """
import datetime as dt
import enum
from typing import Annotated, Literal, Optional
from pydantic import BaseModel
from whenthen import flow
import whenthen

class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"

class Table(BaseModel):
    name: str

@flow(retries=2, name="load")
def load(day: dt.date, sizes: list[int], colour: Colour = Colour.RED, table: Table | None = None, mode: Literal["a", "b"] = "a",
         ratio: "Optional[float]" = 1.5, *, pairs: Annotated[dict[str, tuple[int, ...]], "x"] = {}):
    pass

@whenthen.flow
async def any_of(n: int, **more): pass

@flow(validate_parameters=False)
def unchecked(n: int): pass

def plain(n: int = 3): pass
"""


def typed_warnings(tmp_path: Path, name: str, parameters: dict[str, Any]) -> list[str]:
    (tmp_path / "typed.py").write_text(TYPED)
    path = rules(tmp_path, deployments=[{"name": "d", "entrypoint": f"typed.py:{name}", "parameters": parameters}])
    assert check_rules(path) == []
    return [f"{warning.field}: {warning.detail}" for warning in load_rules(path).warnings]


def test_values_are_held_against_the_types_of_a_flow(tmp_path: Path) -> None:
    good = {
        "day": "2026-01-31",
        "sizes": ["1", 2],
        "colour": "blue",
        "table": {"x": 1},
        "mode": "b",
        "pairs": {"a": [1]},
    }
    assert typed_warnings(tmp_path, "load", good) == []
    bad = {**good, "day": "never", "sizes": [1, "x"], "colour": "green", "mode": "c", "ratio": "much"}
    found = typed_warnings(tmp_path, "load", bad)
    assert [detail.partition("function load: ")[2].partition(":")[0] for detail in found] == [
        "day", "sizes[1]", "colour", "mode", "ratio",
    ]  # fmt: skip
    assert "function load: sizes[1]: Input should be a valid integer" in found[1]
    (unknown,) = typed_warnings(tmp_path, "load", {**good, "dey": 1})
    assert "function load takes no parameter 'dey'; did you mean \"day\"?" in unknown
    assert typed_warnings(tmp_path, "load", {**good, "day": "{{ x }}", "sizes": ["$.x"]}) == []
    assert len(typed_warnings(tmp_path, "any_of", {"n": "x", "other": 1})) == 1
    assert typed_warnings(tmp_path, "unchecked", {"n": "x"}) == typed_warnings(tmp_path, "plain", {"n": "7"}) == []
    assert len(typed_warnings(tmp_path, "plain", {"n": "x"})) == 1


def test_the_schema_of_a_deployment_is_read_from_the_syntax_of_its_function(tmp_path: Path) -> None:
    (tmp_path / "typed.py").write_text(TYPED)
    kinds = ("load", "any_of", "plain", "nothing")
    path = rules(tmp_path, deployments=[{"name": name, "entrypoint": f"typed.py:{name}"} for name in kinds])
    loaded = load_rules(path)
    schema = loaded.entry_schema("load")
    assert schema is not None
    assert schema["required"] == ["day", "sizes"]
    assert schema["properties"]["day"] == {"type": "string", "format": "date"}
    assert schema["properties"]["sizes"] == {"type": "array", "items": {"type": "integer"}}
    assert schema["properties"]["mode"] == {"default": "a", "enum": ["a", "b"], "type": "string"}
    assert schema["properties"]["ratio"]["default"] == 1.5
    assert schema["$defs"]["Colour"]["enum"] == ["red", "blue"]
    assert schema["additionalProperties"] is False
    assert loaded.entry_schema("any_of") == {
        "type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": True,
    }  # fmt: skip
    assert loaded.entry_schema("plain") == {
        "type": "object", "properties": {"n": {"default": 3, "type": "integer"}}, "additionalProperties": False,
    }  # fmt: skip
    assert loaded.entry_schema("nothing") is loaded.entry_schema("unheard") is None
