"""Rules, steps and tests as YAML that somebody may take over: made of an event, or of what was recorded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

__all__ = ["EXAMPLE_RULE", "EXAMPLE_STEPS", "rule_of_event", "steps_of_event", "yaml_text"]

MOST_PAYLOAD = 4_000  #: characters of a payload in a step
_STEP_FIELDS = ("event", "resource", "related", "payload")


def yaml_text(value: Any) -> str:
    """Lists of small things in one line, others over several."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None)


def rule_of_event(event: Mapping[str, Any]) -> str:
    """A rule that fires for events like this one, to begin with."""
    name = str(event["event"])
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "event"
    labels = {key: value for key, value in (event.get("resource") or {}).items() if isinstance(value, str)}
    rule = {
        "name": f"on-{slug}",
        "trigger": {"expect": _literal(name), "match": {k: _literal(v) for k, v in labels.items()}},
    }
    text = yaml.safe_dump([{**rule, "actions": ["do-nothing"]}], sort_keys=False, allow_unicode=True, width=100)
    return f"# fires for events like this one; take out of `match` what may differ, and say what is to be done\n{text}"


def _literal(text: str) -> str:
    """Wildcards of a glob stand for themselves; for a leading `!`, which can not be quoted, any character may stand."""
    quoted = re.sub(r"([*?\[])", r"[\1]", text)
    return f"?{quoted[1:]}" if quoted.startswith("!") else quoted


def steps_of_event(event: Mapping[str, Any]) -> str:
    """The event as a step of a test; a large payload is left out."""
    step: dict[str, Any] = {"at": "0s", **{name: event[name] for name in _STEP_FIELDS if event.get(name)}}
    text = yaml.safe_dump([step], sort_keys=False, allow_unicode=True, width=100)
    if len(text) > MOST_PAYLOAD:
        step.pop("payload", None)
        text = "# its payload is large and left out\n" + yaml.safe_dump(
            [step], sort_keys=False, allow_unicode=True, width=100
        )
    return text


EXAMPLE_RULE = """\
- name: failing-again
  trigger:
    expect: job.failed
    for_each: id
    threshold: 3
    within: 1h
  actions: [do-nothing]
"""
EXAMPLE_STEPS = """\
- {at: 0s, event: job.failed, resource: {id: nightly}}
- {at: 10m, event: job.failed, resource: {id: nightly}}
- {at: 20m, event: job.failed, resource: {id: nightly}}
- {at: 2h}
"""
