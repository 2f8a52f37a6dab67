"""Actions of Prefect as ours, with their templates. Pure; what has no counterpart is said through `Notes`.

Called by `importer`. Meaning: docs/prefect.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson

from whenthen.rules.prefect_import.import_notes import Notes
from whenthen.rules.prefect_import.own_runs import OWN_VARIABLES
from whenthen.rules.prefect_import.prefect_events import label
from whenthen.schemas.actions import ACTIONS
from whenthen.schemas.times import format_duration, parse_duration

__all__ = ["Known", "import_action"]

_TEMPLATE = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_WHOLE = re.compile(r"\s*\{\{((?:(?!\}\}).)*)\}\}\s*", re.DOTALL)
_PATH = re.compile(r"""([A-Za-z_]\w*)((?:\.\w+|\[\s*(?:'[^'\\]*'|"[^"\\]*")\s*\])*)""", re.ASCII)
_STEP = re.compile(r"""\.(\w+)|\[\s*(?:'([^'\\]*)'|"([^"\\]*)")\s*\]""", re.ASCII)
#: a variable with filters behind it
_FILTERED = re.compile(
    r"""([^|]*?)\s*((?:\|\s*[a-z_]\w*\s*(?:\((?:[^()'"{}]|'[^'{}]*'|"[^"{}]*")*\))?\s*)*)""", re.ASCII
)
_FILTER = re.compile(r"""\|((?:[^|'"]|'[^']*'|"[^"]*")*)""")
_PLAIN = re.compile(r"[A-Za-z_]\w*", re.ASCII)
#: filters that do the same here
_FILTERS = frozenset(
    ("default", "float", "int", "join", "length", "lower", "replace", "round", "string", "title", "tojson", "trim", "truncate", "upper")
)  # fmt: skip
_SAME = ("id", "event", "occurred", "received", "follows")


@dataclass(slots=True, kw_only=True)
class Known:
    """What is known of the things that actions name, and what the actions need beside the automations."""

    deployments: dict[str, str] = field(default_factory=dict)  #: id to name
    automations: dict[str, str] = field(default_factory=dict)  #: id to name
    local: set[str] = field(default_factory=set)  #: names of deployments that the output itself has
    own_runs: bool = True  #: whether runs that events are about are ours, and not those of a Prefect server
    notifiers: dict[str, dict[str, Any]] = field(default_factory=dict)  #: by name, to be written beside the automations


def import_action(spec: Any, known: Known, notes: Notes, path: str, *, typed: bool) -> dict[str, Any] | None:
    """One action, or None when it has no counterpart. `typed`: whether a parameter that is one template keeps its type."""
    kind = spec.get("type") if isinstance(spec, dict) else None
    if not isinstance(kind, str):
        notes.add(path, "an action is a mapping with a `type`; left out")
        return None
    build = _BUILDERS.get(kind)
    if build is None and kind not in ACTIONS:
        notes.add(path, f"the action `{kind}` has no counterpart; left out")
        return None
    texts = _Texts(notes, path, typed=typed, own_runs=known.own_runs)
    action = {"type": kind} if build is None else build(dict(spec), known, notes, path, texts)
    if action is not None:
        taken = _FIELDS.get(kind, frozenset())
        for name in spec:
            if name not in taken and name != "type":
                notes.add(f"{path}.{name}", f"`{kind}` has no such field here; left out")
    return action


def _run(spec: dict[str, Any], known: Known, notes: Notes, path: str, texts: _Texts) -> dict[str, Any] | None:
    action = _deployment(spec, known, notes, path, texts)
    if action is None:
        return None
    parameters = spec.get("parameters")
    if isinstance(parameters, dict):
        found = {name: texts.value(value, f"parameters.{name}") for name, value in parameters.items()}
        kept = {str(name): value for name, value in found.items() if value is not _LEFT_OUT}
        if kept:
            action["parameters"] = kept
    elif parameters is not None:
        notes.add(f"{path}.parameters", "not a mapping; left out")
    if spec.get("job_variables"):
        notes.add(f"{path}.job_variables", "settings of Prefect's infrastructure have no counterpart; left out")
    delay = spec.get("schedule_after")
    if delay:
        try:
            span = parse_duration(delay)
        except ValueError as error:
            notes.add(f"{path}.schedule_after", f"{error}; left out")
        else:
            if span > timedelta(0):
                action["delay"] = format_duration(span)
    return action


def _deployment(spec: dict[str, Any], known: Known, notes: Notes, path: str, texts: _Texts) -> dict[str, Any] | None:
    action: dict[str, Any] = {"type": spec["type"]}
    if spec.get("source", "selected") == "inferred":
        return action
    wanted = spec.get("deployment_id")
    if not isinstance(wanted, str) or not wanted:
        notes.add(f"{path}.deployment_id", "none is given for a selected deployment; left out")
        return None
    name = known.deployments.get(wanted)
    if name is None:
        notes.add(
            f"{path}.deployment_id",
            f"{wanted} is known by its id alone; write the deployment's name in its place, or give `--ids`",
        )
        name = wanted
    if name not in known.local:  # a list of ids may give names without their flows
        of_flows = [one for one in known.local if one.partition("/")[2] == name]
        name = of_flows[0] if len(of_flows) == 1 else name
    action["deployment"] = name if name in known.local else _late(name)
    return action


def _automation(spec: dict[str, Any], known: Known, notes: Notes, path: str, texts: _Texts) -> dict[str, Any] | None:
    if spec.get("source", "selected") == "inferred":
        notes.add(path, f"`{spec['type']}` of the automation that the event is about has no counterpart; left out")
        return None
    wanted = spec.get("automation_id")
    if not isinstance(wanted, str) or not wanted:
        notes.add(f"{path}.automation_id", "none is given for a selected automation; left out")
        return None
    name = known.automations.get(wanted)
    if name is None:
        notes.add(f"{path}.automation_id", f"{wanted} is not in this file; write the automation's name in its place")
        return {"type": spec["type"], "automation": _late(wanted)}
    return {"type": spec["type"], "automation": name}


def _notification(spec: dict[str, Any], known: Known, notes: Notes, path: str, texts: _Texts) -> dict[str, Any]:
    name, variable = _block(spec)
    known.notifiers[name] = {"name": name, "urls": [f"env:{variable}"]}
    notes.add(
        f"{path}.block_document_id",
        f"a block of Prefect is a notifier here: put its Apprise URL into the environment variable {variable}",
    )
    subject = texts.text(spec.get("subject", "Prefect automated notification"), "subject")
    action = {"type": "send-notification", "notifier": name, "subject": subject}
    if spec.get("body") is not None:
        action["body"] = texts.text(spec["body"], "body")
    return action


def _webhook(spec: dict[str, Any], known: Known, notes: Notes, path: str, texts: _Texts) -> dict[str, Any]:
    name, _ = _block(spec)
    notes.add(
        f"{path}.block_document_id",
        "URL, method and headers are in a block of Prefect; write them in place of the `.invalid` URL",
    )
    action: dict[str, Any] = {"type": "call-webhook", "url": f"https://{name}.invalid/"}
    payload = spec.get("payload")
    if payload:
        body = texts.value(payload, "payload", quiet=True)
        if body is _LEFT_OUT:
            body = texts.text(payload, "payload")
        action["body"] = body
    return action


def _change_state(spec: dict[str, Any], known: Known, notes: Notes, path: str, texts: _Texts) -> dict[str, Any] | None:
    state = str(spec.get("state", "")).upper()
    if state in ("CANCELLED", "CANCELLING"):
        return {"type": "cancel-flow-run"}
    if state == "PAUSED":  # a run is paused by its own code alone; from outside it is halted like this
        return {"type": "suspend-flow-run"}
    if state not in ("COMPLETED", "FAILED", "CRASHED"):
        notes.add(path, f"`change-flow-run-state` to {state[:80] or 'nothing'} has no counterpart; left out")
        return None
    action = {"type": "change-flow-run-state", "state": state.capitalize()}
    if spec.get("message"):
        action["message"] = texts.text(spec["message"], "message")
    return action


def _block(spec: dict[str, Any]) -> tuple[str, str]:
    """A name for what a block of Prefect holds, and an environment variable for its secret."""
    short = re.sub(r"[^0-9a-z]", "", str(spec.get("block_document_id", "")).lower())[:8] or "unknown"
    return f"prefect-block-{short}", f"PREFECT_BLOCK_{short.upper()}"


def _late(text: str) -> str:
    """A name that is looked up when the action runs and not when the rules are checked."""
    return "{{ " + repr(text) + " }}" if "{" not in text else text


_Builder = Callable[[dict[str, Any], Known, Notes, str, "_Texts"], dict[str, Any] | None]
_BUILDERS: Mapping[str, _Builder] = {
    "run-deployment": _run,
    "pause-deployment": _deployment,
    "resume-deployment": _deployment,
    "pause-automation": _automation,
    "resume-automation": _automation,
    "send-notification": _notification,
    "call-webhook": _webhook,
    "change-flow-run-state": _change_state,
}
_FIELDS: Mapping[str, frozenset[str]] = {
    "run-deployment": frozenset({"source", "deployment_id", "parameters", "job_variables", "schedule_after"}),
    "pause-deployment": frozenset({"source", "deployment_id"}),
    "resume-deployment": frozenset({"source", "deployment_id"}),
    "pause-automation": frozenset({"source", "automation_id"}),
    "resume-automation": frozenset({"source", "automation_id"}),
    "send-notification": frozenset({"block_document_id", "subject", "body"}),
    "call-webhook": frozenset({"block_document_id", "payload"}),
    "change-flow-run-state": frozenset({"state", "name", "message", "force"}),
}
_LEFT_OUT = object()


class _Texts:
    """Templates of one action, in our words."""

    def __init__(self, notes: Notes, path: str, *, typed: bool, own_runs: bool) -> None:
        self._own_runs = own_runs
        self._notes = notes
        self._path = path
        self._typed = typed

    def text(self, value: Any, at: str) -> str:
        """A text with templates; a variable that has no counterpart stands there by its name."""
        text = value if isinstance(value, str) else orjson.dumps(value).decode()
        if "{%" in text or "{#" in text:
            self._say(
                at, f"statements of Jinja are not translated; the text is there without them, it was {text[:500]!r}"
            )
            text = re.sub(r"\{[%#].*?[%#]\}", "", text, flags=re.DOTALL) or " "

        def replaced(found: re.Match[str]) -> str:
            expression = _expression(found[1], own_runs=self._own_runs)
            if expression is None:
                self._say(
                    at, f"the variable or filter in {found[0].strip()!r} has no counterpart; its name stands there"
                )
                return "<" + re.sub(r"[{}%#<>]", "", found[1]).strip() + ">"
            return "{{ " + expression + " }}"

        return _TEMPLATE.sub(replaced, text)

    def value(self, value: Any, at: str, *, quiet: bool = False) -> Any:
        """A JSON value with templates in it, or `_LEFT_OUT`."""
        if isinstance(value, str):
            return self._string(value, at, typed=self._typed, quiet=quiet)
        if isinstance(value, list):
            items = [self.value(item, f"{at}[{number}]", quiet=quiet) for number, item in enumerate(value)]
            return _LEFT_OUT if _LEFT_OUT in items else items
        if not isinstance(value, dict):
            return value
        kind = value.get("__prefect_kind")
        if kind == "jinja" and isinstance(value.get("template"), str):
            return self._string(value["template"], at, typed=False, quiet=quiet)
        if kind == "json":
            inner = value.get("value")
            if isinstance(inner, dict) and isinstance(inner.get("template"), str):
                text = re.sub(r"\|\s*tojson\s*\}\}\s*$", "}}", inner["template"])
                return self._string(text, at, typed=True, quiet=quiet)
            if isinstance(inner, str):
                try:
                    return orjson.loads(inner)
                except orjson.JSONDecodeError:
                    self._say(at, "not JSON; left out")
                    return _LEFT_OUT
            return self.value(inner, at, quiet=quiet)
        if kind is not None:
            self._say(at, f"{kind} {value.get('variable_name', '')} of Prefect has no counterpart; left out")
            return _LEFT_OUT
        found = {str(name): self.value(item, f"{at}.{name}", quiet=quiet) for name, item in value.items()}
        return _LEFT_OUT if _LEFT_OUT in found.values() else found

    def _string(self, text: str, at: str, *, typed: bool, quiet: bool) -> Any:
        if text.startswith("$") and "{{" not in text:
            return "{{ " + repr(text) + " }}" if _starts_path(text) else text
        if "{{" not in text and "{%" not in text and "{#" not in text:
            return text
        whole = _WHOLE.fullmatch(text)
        if whole is not None and typed and (steps := self._typed_steps(whole[1])) is not None:
            return _json_path(steps)
        expressions = [_expression(found[1], own_runs=self._own_runs) for found in _TEMPLATE.finditer(text)]
        if "{%" in text or "{#" in text or None in expressions:
            if not quiet:
                self._say(at, f"{text[:200]!r} uses what has no counterpart; left out")
            return _LEFT_OUT
        ours = iter(expressions)
        return _TEMPLATE.sub(lambda _: "{{ " + str(next(ours)) + " }}", text)

    def _typed_steps(self, expression: str) -> list[str] | None:
        """The path of a value that keeps its type; as JSON in a text it would be the same value."""
        return _steps(re.sub(r"\|\s*tojson\s*$", "", expression.strip()), own_runs=self._own_runs)

    def _say(self, at: str, message: str) -> None:
        self._notes.add(f"{self._path}.{at}", message)


def _starts_path(text: str) -> bool:
    return text == "$" or text.startswith(("$.", "$["))


def _expression(text: str, *, own_runs: bool) -> str | None:
    """Our expression for one of Prefect's: a variable, and filters that are the same here. None without counterpart."""
    found = _FILTERED.fullmatch(text.strip())
    if found is None:
        return None
    steps = _steps(found[1], own_runs=own_runs)
    filters = [part.strip() for part in _FILTER.findall(found[2])]
    if steps is None or any(part.partition("(")[0].strip() not in _FILTERS for part in filters):
        return None
    if steps == ["event"] and not filters:
        filters = ["tojson"]  # in a text Prefect writes it in Python's spelling, which nothing reads
    return " | ".join([_jinja(steps), *filters])


def _steps(expression: str, *, own_runs: bool) -> list[str] | None:
    """The path of our variable for an expression of Prefect's: `["event", "resource", "id"]`. None without counterpart."""
    found = _PATH.fullmatch(expression.strip())
    if found is None:
        return None
    steps = [found[1], *(step[1] or step[2] or step[3] or "" for step in _STEP.finditer(found[2]))]
    if steps == ["automation", "name"]:
        return ["automation"]
    labelled = steps[:3] == ["event", "resource", "labels"] and len(steps) > 3
    if labelled:
        steps = ["event", "resource", ".".join(steps[3:])]
    if own_runs:
        for end in range(len(steps), 1, -1):
            ours = OWN_VARIABLES.get(tuple(steps[:end]))
            if ours is not None and (end == len(steps) or steps[:end] == ["flow_run", "parameters"]):
                return [*ours, *steps[end:]]
    elif steps in (["flow_run", "name"], ["flow_run", "state", "name"], ["flow_run", "state", "message"]):
        return ["event", "resource", "name" if steps[1] == "name" else f"prefect.state-{steps[2]}"]
    if steps == ["event"]:
        return steps
    if steps[0] != "event" or len(steps) < 2:
        return None
    if steps[1] in _SAME and len(steps) == 2:
        return steps
    if steps[1] == "payload":
        return steps
    if steps[1] != "resource" or len(steps) != 3:
        return None
    return steps if steps[2] in ("id", "name") and not labelled else ["event", "resource", label(steps[2])]


def _jinja(steps: list[str]) -> str:
    text = steps[0]
    for step in steps[1:]:
        text += f".{step}" if _PLAIN.fullmatch(step) else "[" + repr(step) + "]"
    return text


def _json_path(steps: list[str]) -> str:
    text = "$"
    for step in steps if steps[0] != "event" else steps[1:]:
        text += f".{step}" if _PLAIN.fullmatch(step) else "['" + step.replace("'", "") + "']"
    return text
