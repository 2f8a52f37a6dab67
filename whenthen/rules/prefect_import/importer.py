"""Automations of Prefect, as it prints and reads them, in our rules. Pure.

Read are: what `prefect automation inspect` prints (one object or a list), what `prefect automation create --from-file` takes (also
`automations:`), and `prefect.yaml` with `deployments: [{triggers: ...}]`. Everything that has no counterpart is named in the notes;
what comes out always loads. Called by `whenthen import prefect`. Meaning: docs/prefect.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import yaml
from pydantic import BaseModel, ValidationError

from whenthen.rules.documents import read_document
from whenthen.rules.prefect_import.prefect_actions import Known, import_action
from whenthen.rules.prefect_import.prefect_triggers import NoCounterpart, Notes, import_trigger, kind_of
from whenthen.schemas.automations import Automation
from whenthen.schemas.deployments import Deployment, Schedule
from whenthen.schemas.errors import InvalidInput

__all__ = ["ImportResult", "import_prefect", "import_prefect_file"]

_LISTS = ("actions", "actions_on_trigger", "actions_on_resolve")
_READ = frozenset({"name", "description", "enabled", "tags", "trigger", *_LISTS})
#: what Prefect's server adds and nobody writes
_SERVER = frozenset({"id", "created", "updated", "account", "workspace", "owner_resource"})
#: of a trigger in prefect.yaml, beside the trigger itself
_OF_DEPLOYMENT = ("name", "description", "enabled", "parameters", "job_variables", "schedule_after")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """Rules that load, and all that could not be carried over, a line each."""

    rules: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        """A rules file: the notes as comments, then the rules as YAML."""
        head = ["Imported from Prefect. Window semantics are Prefect's own: `window: tumbling`."]
        head += (
            ["", "What has no counterpart, or needs a look:", *(f"- {note}" for note in self.notes)]
            if self.notes
            else []
        )
        comments = "".join(f"# {_printable(line)}".rstrip() + "\n" for line in head)
        body = yaml.dump(self.rules, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
        return comments + body


class _Dumper(yaml.SafeDumper):
    """Without aliases: what is written twice is read twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def import_prefect_file(raw: bytes, *, name: str = "input") -> str:
    """The text of a rules file for a file of Prefect's, YAML or JSON.

    Raises:
        InvalidInput: it is neither, or holds no automation and no trigger of a deployment.
    """
    document = read_document(raw)
    if document.faults:
        fault = document.faults[0]
        raise InvalidInput(f"{name}:{fault.line}:{fault.column}: {fault.detail}")
    try:
        return import_prefect(document.data).text
    except InvalidInput as error:
        raise InvalidInput(f"{name}: {error}") from None


def import_prefect(documents: Any, *, deployments: Mapping[str, str] | None = None) -> ImportResult:
    """Translate decoded documents: one automation, a list, `{automations: [...]}`, or a `prefect.yaml`.

    `deployments` gives the names of deployments by their ids, where they are known.

    Raises:
        InvalidInput: there is nothing in it that Prefect could have written.
    """
    notes: list[str] = []
    known = Known(deployments=dict(deployments or {}))
    local: list[dict[str, Any]] = []
    found = list(_specs(documents, known, local, notes))
    if not found:
        raise InvalidInput(
            "no automations and no triggers of deployments in it; give what `prefect automation inspect NAME --yaml` "
            "prints, or a prefect.yaml"
        )
    names: set[str] = set()
    named = [(item, _name(item.spec, names, notes)) for item in found]
    for item, name in named:
        if isinstance(item.spec.get("id"), str):
            known.automations[item.spec["id"]] = name
    automations = [rule for item, name in named if (rule := _automation(item, name, known, notes)) is not None]
    kept = {rule["name"] for rule in automations}
    for rule in automations:
        _loosen(rule, kept)
    rules: dict[str, Any] = {"automations": automations}
    if local:
        rules["deployments"] = local
    if known.notifiers:
        rules["notifiers"] = list(known.notifiers.values())
    return ImportResult(rules=rules, notes=tuple(notes))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spec:
    spec: dict[str, Any]
    typed: bool = False  #: from prefect.yaml, where a parameter that is one template keeps its type


def _specs(data: Any, known: Known, local: list[dict[str, Any]], notes: list[str]) -> Iterator[_Spec]:
    if isinstance(data, list):
        for item in data:
            yield from _specs(item, known, local, notes)
        return
    if not isinstance(data, dict):
        notes.append(f"found {str(data)[:80]!r} where an automation was expected; left out")
        return
    if "deployments" in data and "trigger" not in data:
        yield from _of_deployments(data["deployments"], known, local, notes)
    if isinstance(data.get("automations"), list):
        yield from _specs(data["automations"], known, local, notes)
    elif "trigger" in data:
        yield _Spec(spec=data)
    elif "deployments" not in data:
        notes.append(f"a mapping of {', '.join(map(str, list(data)[:5])) or 'nothing'} is no automation; left out")


def _of_deployments(data: Any, known: Known, local: list[dict[str, Any]], notes: list[str]) -> Iterator[_Spec]:
    for number, deployment in enumerate(data if isinstance(data, list) else []):
        name = deployment.get("name") if isinstance(deployment, dict) else None
        if not isinstance(deployment, dict) or not isinstance(name, str) or not name:
            notes.append(f"deployments[{number}]: no name; left out")
            continue
        ours = _local_deployment(deployment, name, notes)
        if ours is not None and name not in known.local:
            known.local.add(name)
            local.append(ours)
        known.deployments[name] = name
        triggers = deployment.get("triggers") or []
        for index, trigger in enumerate(triggers if isinstance(triggers, list) else [triggers], start=1):
            if not isinstance(trigger, dict):
                notes.append(f"deployment {name!r}: trigger {index} is not a mapping; left out")
                continue
            action = {"type": "run-deployment", "source": "selected", "deployment_id": name}
            action |= {key: trigger[key] for key in _OF_DEPLOYMENT[3:] if trigger.get(key) is not None}
            spec = {
                "name": trigger.get("name") or f"{name}__automation_{index}",
                "description": trigger.get("description") or "",
                "enabled": trigger.get("enabled", True),
                "trigger": {key: value for key, value in trigger.items() if key not in _OF_DEPLOYMENT},
                "actions": [action],
            }
            yield _Spec(spec=spec, typed=True)


def _local_deployment(spec: dict[str, Any], name: str, notes: list[str]) -> dict[str, Any] | None:
    """A deployment of prefect.yaml as ours: what the built-in orchestrator needs to run it."""
    ours: dict[str, Any] = {"name": name}
    for field in ("description", "entrypoint", "tags", "parameters"):
        if spec.get(field):
            ours[field] = spec[field]
    pool = spec.get("work_pool")
    if isinstance(pool, dict) and isinstance(pool.get("name"), str):
        ours["work_pool"] = pool["name"]
    if isinstance(spec.get("concurrency_limit"), int):
        ours["concurrency_limit"] = spec["concurrency_limit"]
    listed = spec.get("schedules")
    schedules = list(listed) if isinstance(listed, list) else []
    if isinstance(spec.get("schedule"), dict):
        schedules.append(spec["schedule"])
    if kept := _schedules(schedules, name, notes):
        ours["schedules"] = kept
    known = {"name", "description", "entrypoint", "tags", "parameters", "work_pool", "concurrency_limit", "schedules"}
    for field, value in spec.items():
        if field not in known | {"schedule", "triggers"} and value:
            notes.append(f"deployment {name!r}: {field}: has no counterpart; left out")
    problem = _problem(Deployment, ours)
    if problem is None:
        return ours
    notes.append(f"deployment {name!r}: left out, write it by hand: {problem}")
    return None


def _schedules(specs: list[Any], deployment: str, notes: list[str]) -> list[dict[str, Any]]:
    """The schedules that are understood; each other one is left out alone, with a note."""
    kept: list[dict[str, Any]] = []
    for number, spec in enumerate(specs):
        subject = f"deployment {deployment!r}: schedule {number + 1}"
        if not isinstance(spec, dict):
            notes.append(f"{subject}: {str(spec)[:80]!r} is not a mapping; left out")
            continue
        ours = _schedule(spec, number)
        problem = _problem(Schedule, ours)
        if problem is None and any(ours["name"] == other["name"] for other in kept):
            problem = f"another one is named {ours['name']!r}"
        if problem is None:
            kept.append(ours)
            if "timezone" not in ours and "TZID=" in str(ours.get("rrule", "")).upper():
                notes.append(
                    f"{subject}: follows the TZID of its DTSTART, which Prefect reads as UTC without a timezone"
                )
        else:
            notes.append(f"{subject}: left out, write it by hand: {problem}")
    return kept


def _schedule(spec: dict[str, Any], number: int) -> dict[str, Any]:
    ours = {"name": str(spec.get("slug") or f"schedule-{number + 1}")}
    for theirs, field in (("cron", "cron"), ("interval", "interval"), ("rrule", "rrule"), ("timezone", "timezone")):
        if spec.get(theirs) is not None:
            ours[field] = spec[theirs]
    for theirs, field in (("anchor_date", "anchor"), ("active", "active"), ("parameters", "parameters")):
        if spec.get(theirs) is not None:
            ours[field] = spec[theirs]
    return ours


def _automation(item: _Spec, name: str, known: Known, notes: list[str]) -> dict[str, Any] | None:
    spec = item.spec
    remarks = Notes(f"automation {name!r}")
    try:
        rule = _rule(spec, name, known, remarks, typed=item.typed)
    except NoCounterpart as error:
        notes.append(f"{remarks.subject}: left out: {error}")
        return None
    problem = _problem(Automation, rule)
    if problem is not None:
        notes.append(f"{remarks.subject}: left out: {problem}")
        return None
    notes += remarks.lines
    return rule


def _rule(spec: dict[str, Any], name: str, known: Known, remarks: Notes, *, typed: bool) -> dict[str, Any]:
    rule: dict[str, Any] = {"name": name}
    if isinstance(spec.get("description"), str) and spec["description"]:
        rule["description"] = spec["description"]
    enabled = spec.get("enabled", True)
    if not isinstance(enabled, bool):
        remarks.add("enabled", f"{str(enabled)[:80]!r} is a template or no truth value; written as true")
    elif not enabled:
        rule["enabled"] = False
    if isinstance(spec.get("tags"), list) and spec["tags"]:
        rule["tags"] = [str(tag) for tag in spec["tags"]]
    rule["trigger"] = import_trigger(spec.get("trigger"), remarks)
    for field in spec:
        if field not in _READ and field not in _SERVER:
            remarks.add(str(field)[:80], "has no counterpart; left out")
    actions: list[dict[str, Any]] = []
    for field in _LISTS:
        listed = spec.get(field) or []
        if not isinstance(listed, list):
            remarks.add(field, "not a list of actions; left out")
            continue
        for number, action in enumerate(listed):
            path = f"{field}[{number}]"
            if field == "actions_on_resolve":
                remarks.add(path, f"Prefect never resolves a trigger of type {kind_of(spec['trigger'])}; left out")
                continue
            if field == "actions_on_trigger":
                remarks.add(path, "Prefect runs it on every firing, so it is one of the `actions` here")
            ours = import_action(action, known, remarks, path, typed=typed)
            if ours is not None:
                actions.append(ours)
    if actions:
        rule["actions"] = actions
    return rule


def _loosen(rule: dict[str, Any], kept: set[str]) -> None:
    """Names of automations that were left out are looked up when the action runs."""
    for action in rule.get("actions", ()):
        name = action.get("automation")
        if name is not None and "{{" not in name and name not in kept:
            action["automation"] = "{{ " + repr(name) + " }}"


def _name(spec: dict[str, Any], taken: set[str], notes: list[str]) -> str:
    """A name that is legal here and nobody else's."""
    given = spec.get("name")
    text = given if isinstance(given, str) else "imported"
    name = re.sub(r"[\x00-\x1f\x7f/]", "-", text).strip()[:190] or "imported"
    number = 2
    base = name
    while name in taken:
        name = f"{base} ({number})"
        number += 1
    taken.add(name)
    if name != given:
        notes.append(f"automation {str(given)[:200]!r}: it is named {name!r} here")
    return name


def _problem(model: type[BaseModel], data: dict[str, Any]) -> str | None:
    try:
        model.model_validate(data)
        orjson.dumps(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (TypeError, orjson.JSONEncodeError) as error:
        return str(error)
    return None


def _printable(text: str) -> str:
    return re.sub("[^\x20-\x7e\xa0-\ud7ff\ue000-\ufffd]", " ", text)
