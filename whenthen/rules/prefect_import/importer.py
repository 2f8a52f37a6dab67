"""Automations of Prefect, as it prints and reads them, in our rules. Pure.

Read are: what `prefect automation inspect` prints (one object or a list), what `prefect automation create --from-file` takes (also
`automations:`), and `prefect.yaml` with `deployments: [{triggers: ...}]`. Everything that has no counterpart is named in the notes;
what comes out always loads. Called by `whenthen import prefect`. Meaning: docs/prefect.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from whenthen.rules.prefect_import.flow_names import FlowNames, flow_names_below
from whenthen.rules.prefect_import.import_notes import Aspect, ImportNotes, Notes
from whenthen.rules.prefect_import.model_problems import problem_of
from whenthen.rules.prefect_import.own_runs import of_own_runs
from whenthen.rules.prefect_import.placeholders import Placeholders, placeholders_in
from whenthen.rules.prefect_import.prefect_actions import Known, import_action
from whenthen.rules.prefect_import.prefect_deployments import ImportedDeployment, import_deployments, import_steps
from whenthen.rules.prefect_import.prefect_pools import import_pools
from whenthen.rules.prefect_import.prefect_triggers import NoCounterpart, import_trigger, kind_of
from whenthen.rules.reading.documents import read_document
from whenthen.schemas.automations import Automation
from whenthen.schemas.errors import InvalidInput

__all__ = ["ImportResult", "NothingToImport", "Runs", "import_prefect", "import_prefect_file"]

#: whose runs rules on `prefect.flow-run.*` are about
Runs = Literal["here", "prefect"]

_LISTS = ("actions", "actions_on_trigger", "actions_on_resolve")
_READ = frozenset({"name", "description", "enabled", "tags", "trigger", *_LISTS})
#: what Prefect's server adds and nobody writes
_SERVER = frozenset({"id", "created", "updated", "account", "workspace", "owner_resource"})
#: of a trigger in prefect.yaml, beside the trigger itself
_OF_DEPLOYMENT = ("name", "description", "enabled", "parameters", "job_variables", "schedule_after")


class NothingToImport(InvalidInput):
    """A document has neither automations nor deployments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """Rules that load, and all that could not be carried over, a line each."""

    rules: dict[str, Any]
    notes: tuple[str, ...]
    deployments: int = 0  #: that the file has
    lost: Mapping[Aspect, tuple[str, ...]] = field(
        default_factory=dict
    )  #: what is not as in the file, and of which deployments

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


def import_prefect_file(
    raw: bytes,
    *,
    name: str = "input",
    runs: Runs = "here",
    ids: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    project: Path | None = None,
) -> ImportResult:
    """A file of Prefect's, YAML or JSON. See `import_prefect`; `project` is the folder of its code, whose flows' names are looked up.

    Raises:
        InvalidInput: it is neither.
        NothingToImport: it holds no automation and no deployment.
    """
    document = read_document(raw)
    notes = ImportNotes()
    for fault in document.faults:
        if document.broken:
            raise InvalidInput(f"{name}:{fault.line}:{fault.column}: {fault.detail}")
        taken = "the last one was taken, as Prefect does" if fault.twice else "it was taken as text"
        notes.add("", f"line {fault.line}: {fault.detail}; {taken}")
    flow_names = None if project is None else flow_names_below(project)
    try:
        return import_prefect(
            document.data, runs=runs, deployments=ids, environment=environment, flow_name=flow_names, notes=notes
        )
    except NothingToImport as error:
        raise NothingToImport(f"{name}: {error}") from None


def import_prefect(
    documents: Any,
    *,
    runs: Runs = "here",
    deployments: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    flow_name: FlowNames | None = None,
    notes: ImportNotes | None = None,
) -> ImportResult:
    """Translate decoded documents: one automation, a list, `{automations: [...]}`, or a `prefect.yaml`.

    `runs` says whose runs rules on `prefect.flow-run.*` are about: ours, or those of a Prefect server, whose names stay as they are.
    `deployments` gives the names of deployments and automations by their ids, where they are known; `environment` the values of `{{ $NAME }}`.

    Raises:
        NothingToImport: there is nothing in it that Prefect could have written.
    """
    notes = ImportNotes() if notes is None else notes
    known = Known(deployments=dict(deployments or {}), automations=dict(deployments or {}), own_runs=runs == "here")
    reading = _Reading(known, notes, Placeholders(environment or {}), flow_name or (lambda _: None))
    found = list(reading.specs(documents))
    if not found and not reading.deployments:
        raise NothingToImport(
            "no automations and no deployments in it; give what `prefect automation inspect NAME --yaml` "
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
    if local := [one.rule for one in reading.deployments if one.rule is not None]:
        rules["deployments"] = local
    if pools := import_pools(reading.deployments, notes):
        rules["work_pools"] = pools
    if known.notifiers:
        rules["notifiers"] = list(known.notifiers.values())
    lost = {aspect: tuple(subjects) for aspect, subjects in notes.lost.items()}
    return ImportResult(rules=rules, notes=notes.lines(), deployments=len(reading.deployments), lost=lost)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spec:
    spec: dict[str, Any]
    typed: bool = False  #: from prefect.yaml, where a parameter that is one template keeps its type


class _Reading:
    """What the documents hold, in their order."""

    def __init__(self, known: Known, notes: ImportNotes, places: Placeholders, flow_name: FlowNames) -> None:
        self.deployments: list[ImportedDeployment] = []
        self._known = known
        self._notes = notes
        self._places = places
        self._flow_name = flow_name

    def specs(self, data: Any) -> Iterator[_Spec]:
        """The automations; deployments are read on the way."""
        if isinstance(data, list):
            for item in data:
                yield from self.specs(item)
            return
        if not isinstance(data, dict):
            self._notes.add("", f"found {str(data)[:80]!r} where an automation was expected; left out")
            return
        if "deployments" in data and "trigger" not in data:
            yield from self._of_deployments(data)
        if isinstance(data.get("automations"), list):
            yield from self.specs(data["automations"])
        elif "trigger" in data:
            yield _Spec(spec=data)
        elif "deployments" not in data:
            what = ", ".join(map(str, list(data)[:5])) or "nothing"
            self._notes.add("", f"a mapping of {what} is no automation; left out")

    def _of_deployments(self, document: dict[str, Any]) -> Iterator[_Spec]:
        found = import_deployments(document, self._places, self._notes, self._flow_name)
        self.deployments += found
        import_steps(document, self._places, self._notes)
        for one in found:
            if one.rule is not None:
                self._known.local.add(one.name)
                self._known.deployments[one.name] = one.name
        for one in found:
            for index, trigger in enumerate(one.triggers, start=1):
                if not isinstance(trigger, dict):
                    self._notes.add(f"deployment {one.name!r}", f"trigger {index} is not a mapping; left out")
                    continue
                yield _Spec(spec=self._automation_of(one, index, trigger), typed=True)

    def _automation_of(self, one: ImportedDeployment, index: int, trigger: dict[str, Any]) -> dict[str, Any]:
        action = {"type": "run-deployment", "source": "selected", "deployment_id": one.name}
        action |= {key: trigger[key] for key in _OF_DEPLOYMENT[3:] if trigger.get(key) is not None}
        rest = self._places.filled({key: value for key, value in trigger.items() if key not in _OF_DEPLOYMENT})
        for inside in placeholders_in(rest):
            said = f"trigger {index}: {{{{ {inside[:200]} }}}} has no value here, and no event has it; fill it in"
            self._notes.add(f"deployment {one.name!r}", said)
        return {
            "name": trigger.get("name") or f"{one.short}__automation_{index}",
            "description": trigger.get("description") or "",
            "enabled": self._places.filled(trigger.get("enabled", True)),
            "trigger": rest,
            "actions": [action],
        }


def _automation(item: _Spec, name: str, known: Known, notes: ImportNotes) -> dict[str, Any] | None:
    spec = item.spec
    remarks = Notes(f"automation {name!r}")
    if known.own_runs:
        spec = {**spec, "trigger": of_own_runs(spec.get("trigger"), known.deployments, remarks)}
    try:
        rule = _rule(spec, name, known, remarks, typed=item.typed)
    except NoCounterpart as error:
        notes.add(remarks.subject, f"left out: {error}")
        return None
    problem = problem_of(Automation, rule)
    if problem is not None:
        notes.add(remarks.subject, f"left out: {problem}")
        return None
    for message in remarks.messages:
        notes.add(remarks.subject, message)
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
    for key in spec:
        if key not in _READ and key not in _SERVER:
            remarks.add(str(key)[:80], "has no counterpart; left out")
    actions: list[dict[str, Any]] = []
    for listing in _LISTS:
        listed = spec.get(listing) or []
        if not isinstance(listed, list):
            remarks.add(listing, "not a list of actions; left out")
            continue
        for number, action in enumerate(listed):
            path = f"{listing}[{number}]"
            if listing == "actions_on_resolve":
                remarks.add(path, f"Prefect never resolves a trigger of type {kind_of(spec['trigger'])}; left out")
                continue
            if listing == "actions_on_trigger":
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


def _name(spec: dict[str, Any], taken: set[str], notes: ImportNotes) -> str:
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
        notes.add(f"automation {str(given)[:200]!r}", f"it is named {name!r} here")
    return name


def _printable(text: str) -> str:
    return re.sub("[^\x20-\x7e\xa0-\ud7ff\ue000-\ufffd]", " ", text)
