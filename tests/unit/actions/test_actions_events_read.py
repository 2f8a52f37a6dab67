"""Whether an action reads `events` is known from its templates; only then are all contributing events loaded."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from whenthen.actions import compile_action
from whenthen.schemas.actions import ACTIONS, Action, ActionBase

_ACTION: TypeAdapter[ActionBase] = TypeAdapter(Action)
EVENTS = "{{ events | length }}"

#: an action of each type; `@` is where a template may stand, each of them is tried
TEMPLATED: dict[str, list[dict[str, Any]]] = {
    "run-deployment": [{"deployment": "@"}, {"deployment": "d", "parameters": {"a": [{"b": "@"}]}}],
    "pause-deployment": [{"deployment": "@"}],
    "resume-deployment": [{"deployment": "@"}],
    "pause-schedule": [{"deployment": "@", "schedule": "s"}, {"deployment": "d", "schedule": "@"}],
    "resume-schedule": [{"deployment": "@", "schedule": "s"}, {"deployment": "d", "schedule": "@"}],
    "pause-work-pool": [{"work_pool": "@"}],
    "resume-work-pool": [{"work_pool": "@"}],
    "retry-flow-run": [{"flow_run": "@"}],
    "cancel-flow-run": [{"flow_run": "@"}],
    "suspend-flow-run": [{"flow_run": "@"}],
    "resume-flow-run": [{"flow_run": "@"}, {"input": {"note": "@"}}],
    "change-flow-run-state": [{"state": "Failed", "flow_run": "@"}, {"state": "Failed", "message": "@"}],
    "delete-flow-run": [{"flow_run": "@"}],
    "pause-automation": [{"automation": "@"}],
    "resume-automation": [{"automation": "@"}],
    "send-notification": [{"notifier": "n", "subject": "@"}, {"notifier": "n", "body": "@"}],
    "call-webhook": [
        {"url": "http://h/@"},
        {"url": "@", "allow_hosts": ["h"]},
        {"url": "http://h/", "headers": {"X-Count": "@"}},
        {"url": "http://h/", "body": {"a": ["@"]}},
    ],
    "emit-event": [
        {"event": "@"},
        {"event": "e", "resource": {"id": "@"}},
        {"event": "e", "related": [{"id": "r", "name": "@"}]},
        {"event": "e", "payload": {"a": {"b": "@"}}},
    ],
    "do-nothing": [],
}


def filled(spec: Any, text: str) -> Any:
    if isinstance(spec, dict):
        return {key: filled(value, text) for key, value in spec.items()}
    if isinstance(spec, list):
        return [filled(item, text) for item in spec]
    return spec.replace("@", text) if isinstance(spec, str) else spec


def reads_events(spec: dict[str, Any]) -> bool:
    return compile_action(_ACTION.validate_python(spec)).reads_events


def payload(template: Any) -> dict[str, Any]:
    return {"type": "emit-event", "event": "e", "payload": template}


def test_every_type_of_action_is_tried() -> None:
    assert TEMPLATED.keys() == set(ACTIONS)


@pytest.mark.parametrize(("kind", "spec"), [(kind, spec) for kind, specs in TEMPLATED.items() for spec in specs])
def test_a_template_counts_in_whatever_field_it_stands(kind: str, spec: dict[str, Any]) -> None:
    assert reads_events({"type": kind, **filled(spec, EVENTS)})
    assert not reads_events({"type": kind, **filled(spec, "{{ firing.id }}")})


@pytest.mark.parametrize(
    "template",
    [
        "{{ events }}",
        "{{ events[0].id }}",
        "{% set e = events %}{{ e | length }}",
        "{% set events = events %}{{ events }}",
        "{% if event %}{% set events = [] %}{% endif %}{{ events }}",
        "{% for item in events %}{{ item.id }}{% endfor %}",
        "{% macro all() %}{{ events }}{% endmacro %}{{ all() }}",
        "{% with x = events %}{{ x }}{% endwith %}",
        "{% filter upper %}{{ events }}{% endfilter %}",
        "{{ event.id if false else events }}",
        {"nested": [{"deep": "n: {{ [events] | length }}"}]},
        "$.events",
        "$['events']",
        '$["events"][0].id',
        "$.events[*].id",
        "$..id",
        "$.*",
        "$",
        "$[*]",
        "$['events','event']",
        ["$.payload.n", "$.events[0]"],
    ],
)
def test_what_may_reach_the_events_reads_them(template: Any) -> None:
    assert reads_events(payload(template))


@pytest.mark.parametrize(
    "template",
    [
        "events",
        "all events of {{ event.id }}",
        "{{ event.events }}",
        "{{ event['events'] }}",
        "{{ 'events' }}",
        "{# events #}{{ key }}",
        "{% set events = [1] %}{{ events }}",
        "{% for events in [1, 2] %}{{ events }}{% endfor %}",
        {"events": "{{ key }}"},
        "$.payload.events",
        "$.payload['events']",
        "$.payload..events",
        "$.payload.*",
        "$$.events",
        "$.event",
    ],
)
def test_a_text_that_only_looks_like_it_does_not(template: Any) -> None:
    assert not reads_events(payload(template))


def test_the_default_body_of_a_request_has_the_triggering_event_alone() -> None:
    assert not reads_events({"type": "call-webhook", "url": "http://h/"})
