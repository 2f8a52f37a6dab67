"""Triggers of a deployment as Prefect's classes write them, in our words. Pure.

They mean what they mean in an import (`rules.prefect_import`), but that nothing is left out: what has no counterpart is refused. A trigger
that is written as in rules has the key `trigger`, and stays as it is. Called by the server for deployments that scripts register.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from whenthen.rules.prefect_import import prefect_actions
from whenthen.rules.prefect_import.import_notes import Notes
from whenthen.rules.prefect_import.own_runs import of_own_runs
from whenthen.rules.prefect_import.prefect_triggers import NoCounterpart, import_trigger, kind_of
from whenthen.schemas.errors import InvalidInput
from whenthen.schemas.times import format_duration, parse_duration

__all__ = ["own_triggers"]

_OF_DEPLOYMENT = ("name", "description", "enabled", "parameters", "job_variables", "schedule_after")
#: what the metrics of Prefect are here: the field of a run's event that is averaged
_METRICS = {
    "duration": "$.payload.duration",
    "lateness": "$.payload.lateness",
    "successes": "$.payload.succeeded",
}
_ENDS = ["flow-run.Completed", "flow-run.Failed", "flow-run.Crashed", "flow-run.TimedOut"]


def own_triggers(given: Iterable[Any], deployment: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The triggers as `triggers:` of a deployment has them, and what there is to say of them.

    Raises:
        InvalidInput: one is none, or has no counterpart; says which, and what to do.
    """
    found, notes = [], []
    for index, one in enumerate(given):
        if not isinstance(one, Mapping):
            raise InvalidInput(
                f"trigger {index + 1} of deployment {deployment!r}: wanted a mapping, found {str(one)[:80]!r}",
                path=("triggers", index),
            )
        if isinstance(one.get("trigger"), Mapping):
            found.append(dict(one))
            continue
        said = Notes(f"trigger {one.get('name')!r} of deployment {deployment!r}")
        try:
            found.append(_own(one, said))
        except (NoCounterpart, ValueError, TypeError, AttributeError) as error:
            raise InvalidInput(f"{said.subject}: {error}", path=("triggers", index)) from None
        notes += [f"{said.subject}: {message}" for message in said.messages]
    return found, notes


def _own(given: Mapping[str, Any], said: Notes) -> dict[str, Any]:
    """One trigger of a deployment."""
    if given.get("job_variables"):
        raise NoCounterpart("job_variables of a trigger are not supported: give them to the deployment")
    if given.get("description"):
        said.add("description", "a trigger has none here; left out")
    name = given.get("name")
    made: dict[str, Any] = {"name": "default" if name is None else str(name)}
    if given.get("enabled") is False:
        made["enabled"] = False
    rest = {key: value for key, value in given.items() if key not in _OF_DEPLOYMENT}
    made["trigger"] = _trigger(rest, said)
    if given.get("parameters"):
        made["parameters"] = _parameters(given["parameters"], said)
    if given.get("schedule_after") and (delay := parse_duration(given["schedule_after"])):
        made["delay"] = format_duration(delay)
    return made


def _trigger(spec: dict[str, Any], said: Notes) -> dict[str, Any]:
    spec = of_own_runs(_in_seconds(spec), {}, said)
    made = _metric(spec, said) if kind_of(spec) == "metric" else import_trigger(spec, said)
    return _plain(made)


def _in_seconds(spec: dict[str, Any]) -> dict[str, Any]:
    """The trigger with `within` as a number: it comes as ISO 8601."""
    made = dict(spec)
    if isinstance(made.get("within"), str):
        made["within"] = parse_duration(made["within"]).total_seconds()
    if isinstance(made.get("triggers"), list):
        made["triggers"] = [_in_seconds(part) if isinstance(part, dict) else part for part in made["triggers"]]
    return made


def _plain(made: dict[str, Any]) -> dict[str, Any]:
    """The trigger as a person writes it: without what says nothing where one event suffices, so that both ways give the same."""
    if "triggers" in made:
        return {**made, "triggers": [_plain(part) for part in made["triggers"]]}
    one_suffices = made.get("posture") == "reactive" and made.get("threshold") == 1
    if one_suffices and not made.get("within") and not made.get("after"):
        return {key: value for key, value in made.items() if key not in ("type", "window", "posture", "threshold")}
    return made


def _metric(spec: Mapping[str, Any], said: Notes) -> dict[str, Any]:
    """A metric over runs; ours is one over values of their events."""
    metric = spec.get("metric") or {}
    name = str(metric.get("name"))
    value = _METRICS.get(name)
    if value is None:
        raise NoCounterpart(
            f"the metric {name[:100]!r} of runs is not supported: write a metric trigger of the rules over events flow-run.*, or give "
            "the deployment expect_completion"
        )
    threshold = float(metric.get("threshold", 0))
    if name == "successes" and not 0 <= threshold <= 1:
        raise NoCounterpart(
            f"successes is the share of runs that complete, from 0 to 1; found {threshold:g}: write 0.9 for 90 %"
        )
    made = import_trigger(
        {"expect": _ENDS, "match": spec.get("match"), "match_related": spec.get("match_related")}, said
    )
    kept: dict[str, Any] = {key: made[key] for key in ("expect", "match", "match_related") if key in made}
    firing_for = parse_duration(metric.get("firing_for", 300))
    return {
        "type": "metric",
        **kept,
        "aggregate": "avg",
        "value": value,
        "operator": metric.get("operator"),
        "threshold": threshold,
        "within": format_duration(parse_duration(metric.get("range", 300))),
        **({"for": format_duration(firing_for)} if firing_for else {}),
    }


def _parameters(given: Any, said: Notes) -> Any:
    """Values with templates. A path such as `$.payload.size`, and a template that is a whole value, keep the type."""
    action = {"type": "run-deployment", "source": "inferred", "parameters": _without_paths(given)}
    before = len(said.messages)
    made = prefect_actions.import_action(action, prefect_actions.Known(), said, "parameters", typed=True)
    if len(said.messages) > before:
        raise NoCounterpart(said.messages.pop())
    found = (made or {}).get("parameters") or {}
    return {name: value if _is_path(value) else found[name] for name, value in given.items()}


def _without_paths(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if not _is_path(value)}


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("$.", "$["))
