"""Triggers on runs of a Prefect server, made to fire on our own runs: names of events, ids, and labels. Pure.

Called by the importer unless rules are to stay about a Prefect server. A deployment that Prefect names `nightly` is `etl/nightly` here, so a
pattern for its name also admits any flow in front. Meaning: docs/prefect.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from whenthen.rules.prefect_import.import_notes import Notes

__all__ = ["OWN_VARIABLES", "of_own_runs"]

_RUN = "prefect.flow-run."
_TASK = "prefect.task-run."
_NAME = "prefect.resource.name"

_ROLE = "prefect.resource.role"
_LABELS = {"prefect.state-name": "state", "prefect.state-type": "state"}
_STATES = {"AwaitingRetry": "Retrying"}
#: kinds of resources whose ids are names here
_NAMED = ("prefect.tag.", "prefect.work-pool.", "prefect.automation.")
#: kinds whose ids of Prefect say nothing here
_BY_ID = ("prefect.deployment.", "prefect.flow.")
_MOST_DEEP = 25
_PAYLOAD = ("event", "payload")
_STATE = (*_PAYLOAD, "state")
_MESSAGE = (*_PAYLOAD, "message")

#: the paths of Prefect's template variables in the event of one of our runs
OWN_VARIABLES: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("flow_run", "id"): (*_PAYLOAD, "id"),
    ("flow_run", "name"): ("event", "resource", "name"),
    ("flow_run", "state", "name"): _STATE,
    ("flow_run", "state_name"): _STATE,
    ("flow_run", "state", "message"): _MESSAGE,
    ("flow_run", "parameters"): (*_PAYLOAD, "parameters"),
    ("flow_run", "created"): (*_PAYLOAD, "created"),
    ("flow_run", "start_time"): (*_PAYLOAD, "started"),
    ("flow_run", "end_time"): (*_PAYLOAD, "ended"),
    ("flow_run", "expected_start_time"): (*_PAYLOAD, "scheduled_for"),
    ("flow_run", "total_run_time"): (*_PAYLOAD, "duration"),
    ("flow_run", "run_count"): (*_PAYLOAD, "attempt"),
    ("flow", "name"): ("event", "resource", "flow"),
    ("deployment", "name"): (*_PAYLOAD, "deployment"),
    ("deployment", "id"): (*_PAYLOAD, "deployment"),
    ("work_pool", "name"): (*_PAYLOAD, "work_pool"),
    ("event", "payload", "validated_state", "name"): _STATE,
    ("event", "payload", "validated_state", "message"): _MESSAGE,
    ("event", "resource", "prefect.state-name"): _STATE,
    ("event", "resource", "prefect.state-message"): _MESSAGE,
}


def of_own_runs(trigger: Any, names: Mapping[str, str], notes: Notes, path: str = "trigger", depth: int = 0) -> Any:
    """The trigger, still in Prefect's spelling, with what our runs are called. `names` are those of deployments by their ids."""
    if not isinstance(trigger, dict) or depth > _MOST_DEEP:
        return trigger
    ours = dict(trigger)
    for field in ("expect", "after"):
        if isinstance(ours.get(field), list):
            ours[field] = [_event(name, notes, f"{path}.{field}") for name in ours[field]]
    if isinstance(ours.get("match"), dict):
        ours["match"] = _labels(ours["match"], names, notes, f"{path}.match")
    related = ours.get("match_related")
    if isinstance(related, dict):
        ours["match_related"] = _related(related, names, notes, f"{path}.match_related")
    elif isinstance(related, list):
        ours["match_related"] = [_related(item, names, notes, f"{path}.match_related") for item in related]
    if isinstance(ours.get("for_each"), list):
        ours["for_each"] = [_LABELS.get(key, key) if isinstance(key, str) else key for key in ours["for_each"]]
    if isinstance(ours.get("triggers"), list):
        ours["triggers"] = [
            of_own_runs(part, names, notes, f"{path}.triggers[{number}]", depth + 1)
            for number, part in enumerate(ours["triggers"])
        ]
    return ours


def _event(name: Any, notes: Notes, path: str) -> Any:
    if not isinstance(name, str) or not name.startswith("prefect."):
        return name
    if name.startswith((_RUN, _TASK)):
        kind, _, state = name.removeprefix("prefect.").partition(".")
        if name.startswith(_TASK):
            notes.add(path, "events of task runs come from deployments with `task_run_events: true`")
        return f"{kind}.{_STATES.get(state, state)}"
    notes.add(path, f"no run here has the event {name[:80]!r}; it comes from a Prefect server alone")
    return name


def _related(spec: Any, names: Mapping[str, str], notes: Notes, path: str) -> Any:
    if not isinstance(spec, dict):
        return spec
    ours = _labels(spec, names, notes, path)
    if _NAME in ours and spec.get(_ROLE, "deployment") in ("deployment", ["deployment"]):
        ours[_NAME] = [text for value in _listed(ours[_NAME]) for text in _with_any_flow(value)]
    return ours


def _labels(spec: dict[Any, Any], names: Mapping[str, str], notes: Notes, path: str) -> dict[Any, Any]:
    ours: dict[Any, Any] = {}
    for name, wanted in spec.items():
        values = [_value(value, names, notes, f"{path}.{name}") for value in _listed(wanted)]
        ours[_LABELS.get(name, name)] = values if isinstance(wanted, list) else values[0]
    return ours


def _value(value: Any, names: Mapping[str, str], notes: Notes, path: str) -> Any:
    if not isinstance(value, str):
        return value
    bang = "!" if value.startswith("!") else ""
    text = value[len(bang) :]
    if text.startswith((_RUN, _TASK, *_NAMED)):
        return f"{bang}whenthen.{text.removeprefix('prefect.')}"
    for kind in _BY_ID:
        if text.startswith(kind):
            wanted = text.removeprefix(kind)
            if "*" not in wanted and wanted not in names:
                notes.add(path, f"{text[:80]} is known by its id alone; give its name with `--ids`")
            found = names.get(wanted, wanted)
            return f"{bang}whenthen.{kind.removeprefix('prefect.')}{found}"
    if text.startswith("prefect."):
        notes.add(path, f"no resource of our runs is a {text[:80]!r}")
    return value


def _with_any_flow(value: Any) -> list[Any]:
    if not isinstance(value, str) or "/" in value:
        return [value]
    bang = "!" if value.startswith("!") else ""
    return [value, f"{bang}*/{value[len(bang) :]}"]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
