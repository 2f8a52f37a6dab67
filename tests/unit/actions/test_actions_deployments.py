"""Actions on deployments, schedules, runs and automations, and events that actions emit."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.unit.actions.conftest import EVENT, NOW
from whenthen.runs.run_states import flow_run_event
from whenthen.schemas.errors import ActionError, BusUnavailable, Conflict
from whenthen.schemas.times import format_time
from whenthen.schemas.trace_context import child_trace, derived_trace

pytestmark = pytest.mark.anyio


async def test_parameters_keep_their_types(world: Any) -> None:
    parameters = {
        "path": "$.resource.id",
        "size": "$.payload.size",
        "ratio": "$.payload.ratio",
        "fresh": "$.payload.fresh",
        "nothing": "$.payload.nothing",
        "tags": "$.payload.tags",
        "nested": {"deep": ["$.payload.size", 7]},
        "note": "new file {{ event.resource.key }} of {{ key.bucket }}, {{ events | length }} in all",
        "why": "$.firing.id",
        "rule": "$.automation",
        "first": "$.events[0].id",
        "constant": 3,
    }
    result = await world.perform({"type": "run-deployment", "deployment": "loader", "parameters": parameters})
    assert world.orchestrator.runs["f-1.0"].parameters == {
        "path": "s3://raw/incoming/a.csv",
        "size": 1024,
        "ratio": 0.5,
        "fresh": True,
        "nothing": None,
        "tags": ["a", "b"],
        "nested": {"deep": [1024, 7]},
        "note": "new file incoming/a.csv of raw, 1 in all",
        "why": "f-1",
        "rule": "load-new-csv",
        "first": "e-1",
        "constant": 3,
    }
    assert result.details == {"flow_run": "run-1", "deployment": "loader", "link": "/run?id=run-1"}
    assert {"id": "whenthen.flow-run.run-1", "role": "flow-run"} in result.related


async def test_a_run_carries_key_lineage_and_links(world: Any) -> None:
    await world.perform({"run-deployment": "loader", "delay": "5m"})
    run = world.orchestrator.runs["f-1.0"]
    assert run.lineage == {"depth": 2, "firing": "f-1", "automations": ["first", "load-new-csv"]}
    assert run.triggered_by == "automation:load-new-csv"
    assert [item["role"] for item in run.related] == ["automation", "firing", "triggering-event"]
    assert world.orchestrator.calls == [("run", "loader", timedelta(minutes=5))]


async def test_a_second_try_is_the_same_run(world: Any) -> None:
    first = await world.perform({"run-deployment": "loader"})
    second = await world.perform({"run-deployment": "loader"})
    assert first == second
    assert len(world.orchestrator.runs) == 1


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"size": "$.payload.missing"}, "parameters.size"),
        ({"a": {"b": ["{{ event.payload.missing }}"]}}, "parameters.a.b[0]"),
        ({"n": "{{ event.payload.size / 0 }}"}, "parameters.n"),
    ],
)
async def test_a_missing_value_is_an_error_and_never_empty(
    world: Any, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(ActionError, match="parameters") as caught:
        await world.perform({"type": "run-deployment", "deployment": "loader", "parameters": parameters})
    assert message in str(caught.value)
    assert not caught.value.retryable
    assert caught.value.reason == "render_error"
    assert world.orchestrator.runs == {}


async def test_a_name_that_renders_to_nothing_is_an_error(world: Any) -> None:
    with pytest.raises(ActionError, match="deployment: is empty"):
        await world.perform({"run-deployment": "{{ event.payload.get('x', '') }}"})
    with pytest.raises(ActionError, match="deployment: needs a text, found a list"):
        await world.perform({"run-deployment": "$.payload.tags"})


async def test_a_target_is_inferred_from_the_event(world: Any, run_event: dict[str, Any]) -> None:
    await world.perform({"type": "pause-deployment"}, event=run_event)
    await world.perform({"type": "resume-deployment"}, event=run_event)
    await world.perform({"pause-schedule": "nightly"}, event=run_event)
    await world.perform({"resume-schedule": "nightly"}, event=run_event)
    await world.perform({"type": "cancel-flow-run"}, event=run_event)
    await world.perform({"type": "run-deployment"}, event=run_event)
    run_event["related"].insert(0, {"id": "whenthen.deployment.other", "role": "parent"})
    await world.perform({"type": "resume-deployment"}, event=run_event)
    own = {**run_event, "resource": {"id": "whenthen.deployment.loader"}, "related": []}
    await world.perform({"type": "pause-deployment"}, event=own)
    assert world.orchestrator.calls == [
        ("pause", "loader"),
        ("resume", "loader"),
        ("pause", "loader", "nightly"),
        ("resume", "loader", "nightly"),
        ("cancel", "r-17"),
        ("run", "loader", timedelta(0)),
        ("resume", "loader"),
        ("pause", "loader"),
    ]


async def test_a_target_that_can_not_be_inferred_says_what_to_write(world: Any, run_event: dict[str, Any]) -> None:
    with pytest.raises(ActionError, match="give `deployment` in the rule") as caught:
        await world.perform({"type": "pause-deployment"})
    assert not caught.value.retryable
    assert caught.value.reason == "no_target"
    with pytest.raises(ActionError, match=r"time fired this automation.*give `flow_run`"):
        await world.perform({"type": "cancel-flow-run"}, event=None)
    both = {
        **run_event,
        "related": [{"id": f"whenthen.deployment.{name}", "role": "deployment"} for name in ("a", "b")],
    }
    with pytest.raises(ActionError, match=r"names 2 of them \(a, b\)"):
        await world.perform({"type": "pause-deployment"}, event=both)
    assert world.orchestrator.calls == []


@pytest.mark.parametrize(
    ("failure", "retryable", "reason"),
    [
        (Conflict("somebody was faster"), True, "conflict"),
        (BusUnavailable("away"), True, "bus_unavailable"),
        (RuntimeError("broken"), True, "unexpected"),
        (TimeoutError(), True, "timeout"),
    ],
)
async def test_an_error_of_a_port_becomes_an_outcome(
    world: Any, failure: Exception, retryable: bool, reason: str
) -> None:
    world.orchestrator.failure = failure
    with pytest.raises(ActionError) as caught:
        await world.perform({"run-deployment": "loader"})
    assert caught.value.retryable is retryable
    assert caught.value.reason == reason


async def test_an_unknown_deployment_is_not_tried_again(world: Any) -> None:
    with pytest.raises(ActionError, match="no deployment 'loadr'") as caught:
        await world.perform({"run-deployment": "loadr"})
    assert not caught.value.retryable
    assert caught.value.reason == "not_found"


async def test_automations_are_paused_and_resumed(world: Any) -> None:
    result = await world.perform({"type": "pause-automation"})
    assert result.details == {"automation": "load-new-csv"}
    await world.perform({"pause-automation": "other-{{ event.resource.bucket }}"})
    assert world.automations.paused == {"load-new-csv", "other-raw"}
    await world.perform({"type": "resume-automation"})
    assert world.automations.paused == {"other-raw"}


async def test_an_automation_is_paused_for_a_time_with_a_reason_and_who_did_it(world: Any) -> None:
    action = {"pause-automation": "other", "for": "2h", "reason": "{{ event.resource.bucket }} is full"}
    result = await world.perform(action)
    until, reason, by = world.automations.said["other"]
    assert until == NOW + timedelta(hours=2)
    assert (reason, by) == ("raw is full", "automation load-new-csv")
    assert result.details == {"automation": "other", "until": format_time(until)}


async def test_doing_nothing_succeeds_even_without_an_event(world: Any) -> None:
    assert (await world.perform({"type": "do-nothing"}, event=None)).details == {}


async def test_an_emitted_event_carries_lineage_and_the_keys_id(world: Any) -> None:
    action = {
        "type": "emit-event",
        "event": "file.checked",
        "resource": {"id": "file.{{ event.resource.key }}", "size": "$.payload.size", "fresh": "$.payload.fresh"},
        "related": [{"id": "$.resource.id", "role": "object"}],
        "payload": {"size": "$.payload.size"},
    }
    await world.perform(action)
    await world.perform(action)
    first, second = world.sink.events
    assert first.data == {
        "id": "emitted-f-1.0",
        "event": "file.checked",
        "occurred": "2026-01-31T08:00:00.000000Z",
        "received": "2026-01-31T08:00:00.000000Z",
        "source": "automation:load-new-csv",
        "resource": {"id": "file.incoming/a.csv", "size": "1024", "fresh": "true"},
        "related": [{"id": "s3://raw/incoming/a.csv", "role": "object"}],
        "payload": {"size": 1024},
        "follows": None,
        "lineage": {"depth": 2, "firing": "f-1", "automations": ["first", "load-new-csv"]},
        "trace": child_trace(derived_trace("f-1"), "f-1.0"),
    }
    assert first.data == second.data


async def test_what_an_action_causes_is_part_of_the_trace_of_its_event(world: Any) -> None:
    trace = {"id": "4bf92f3577b34da6a3ce929d0e0e4736", "parent": "00f067aa0ba902b7", "flags": "00", "state": "a=1"}
    event = {**EVENT, "trace": trace}
    await world.perform({"emit-event": "file.checked"}, event=event)
    await world.perform({"type": "run-deployment", "deployment": "loader"}, event=event)
    await world.perform({"type": "emit-event", "event": "file.told", "payload": "{{ firing.trace.id }}"}, event=event)
    first, second = world.sink.events
    (run,) = world.orchestrator.runs.values()
    assert first.data["trace"] == run.trace == child_trace(trace, "f-1.0")
    assert second.data["payload"] == trace["id"]
    assert flow_run_event(replace(run, changed=EVENT["received"]), 1, NOW).data["trace"] == run.trace


async def test_one_path_gives_all_parameters_and_all_labels(world: Any) -> None:
    order = {"id": 17, "vip": True, "lines": [{"sku": "a"}]}
    event = {**EVENT, "payload": {"order": order, "labels": {"id": 17, "vip": True, "note": ""}}}
    await world.perform(
        {"type": "run-deployment", "deployment": "loader", "parameters": "$.payload.order"}, event=event
    )
    await world.perform({"emit-event": "order.seen", "resource": "$.payload.labels"}, event=event)
    assert world.orchestrator.runs["f-1.0"].parameters == order
    assert world.sink.events[0].resource == {"id": "17", "vip": "true", "note": ""}


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (
            {"type": "run-deployment", "deployment": "loader", "parameters": "$.payload.size"},
            "parameters: needs an object, found int",
        ),
        ({"emit-event": "x", "resource": "$.payload.tags"}, "resource: needs an object, found a list"),
        ({"emit-event": "x", "resource": "$.payload"}, "resource.id: missing; every resource has an id"),
        ({"emit-event": "x", "resource": "$.payload.none"}, "resource: "),
    ],
)
async def test_a_path_that_gives_no_object_is_a_permanent_error(world: Any, action: dict[str, Any], said: str) -> None:
    with pytest.raises(ActionError) as failed:
        await world.perform(action)
    assert said in str(failed.value)
    assert not failed.value.retryable


async def test_an_emitted_event_is_about_the_same_resource_by_default(world: Any) -> None:
    await world.perform({"emit-event": "file.seen"})
    await world.perform({"emit-event": "clock.seen"}, event=None)
    assert [event.resource["id"] for event in world.sink.events] == [
        "s3://raw/incoming/a.csv",
        "whenthen.automation.load-new-csv",
    ]


async def test_an_emitted_event_out_of_its_limits_is_refused(world: Any) -> None:
    with pytest.raises(ActionError, match="event: 300 characters") as caught:
        await world.perform({"emit-event": "{{ 'x' * 300 }}"})
    assert not caught.value.retryable
    assert caught.value.reason == "invalid_event"
    assert world.sink.events == []


async def test_an_outside_text_can_not_name_an_emitted_event_like_the_engines_own(world: Any) -> None:
    with pytest.raises(ActionError, match="the name of an event of the engine's own") as caught:
        await world.perform({"emit-event": "{{ 'flow-run' }}.Failed"})
    assert not caught.value.retryable
    await world.perform({"emit-event": "flow-run.{{ 'Failed' }}"})
    failed = {"id": "r-1", "event": "flow-run.Failed", "occurred": "2026-01-31T08:00:00Z", "resource": {"id": "x"}}
    await world.perform({"emit-event": "{{ event.event }}.seen"}, event=failed)
    assert [event.name for event in world.sink.events] == ["flow-run.Failed", "flow-run.Failed.seen"]


async def test_a_work_pool_is_named_or_that_of_the_event(world: Any, run_event: dict[str, Any]) -> None:
    await world.perform({"pause-work-pool": "heavy"}, event=run_event)
    result = await world.perform({"type": "resume-work-pool"}, event=run_event)
    assert world.orchestrator.calls == [("pause-pool", "heavy"), ("resume-pool", "default")]
    assert result.details == {"work_pool": "default"}


async def test_a_retry_is_one_new_run_for_one_firing(world: Any, run_event: dict[str, Any]) -> None:
    first = await world.perform({"type": "retry-flow-run"}, event=run_event)
    again = await world.perform({"type": "retry-flow-run"}, event=run_event)
    assert first.details == again.details == {"flow_run": "run-1", "retried": "r-17", "link": "/run?id=run-1"}
    assert world.orchestrator.calls[0][:2] == ("retry", "r-17")
