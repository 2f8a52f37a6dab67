"""Actions on runs that are there: halting, resuming, ending and forgetting them; and what templates learn of them."""

from __future__ import annotations

from typing import Any

import pytest

from whenthen.schemas.errors import ActionError, NotFound

pytestmark = pytest.mark.anyio


async def performed(world: Any, event: dict[str, Any] | None, *specs: Any) -> list[Any]:
    for spec in specs:
        await world.perform(spec, event=event)
    return list(world.orchestrator.calls)


async def test_a_run_is_halted_and_goes_on_with_typed_input(world: Any, run_event: dict[str, Any]) -> None:
    calls = await performed(
        world,
        run_event,
        {"type": "suspend-flow-run"},
        {"suspend-flow-run": "{{ event.resource.id[-2:] }}", "for": "2h"},
        {"type": "resume-flow-run", "input": {"approved": "$.payload.size", "who": "{{ event.event }}"}},
        {"resume-flow-run": "r-9"},
    )
    assert [call[:3] for call in calls[:2]] == [("suspend", "r-17", None), ("suspend", "17", 7200.0)]
    assert calls[2][:3] == (
        "resume-run",
        "r-17",
        {"approved": run_event["payload"]["size"], "who": run_event["event"]},
    )
    assert calls[3][:3] == ("resume-run", "r-9", None)
    assert all(call[-1].startswith("automation ") for call in calls)
    assert calls[2][3].endswith(".0")


async def test_a_state_is_set_with_a_reason(world: Any, run_event: dict[str, Any]) -> None:
    calls = await performed(
        world,
        run_event,
        {"change-flow-run-state": "failed", "message": "{{ event.event }}"},
        {"type": "change-flow-run-state", "state": "Completed", "flow_run": "r-9"},
    )
    assert [call[:4] for call in calls] == [
        ("state", "r-17", "Failed", run_event["event"]),
        ("state", "r-9", "Completed", ""),
    ]


async def test_a_run_that_is_not_there_is_deleted(world: Any, run_event: dict[str, Any]) -> None:
    done = await world.perform({"type": "delete-flow-run"}, event=run_event)
    assert (done.details, world.orchestrator.calls) == ({"flow_run": "r-17"}, [("delete", "r-17")])
    world.orchestrator.failure = NotFound("there is none")
    gone = await world.perform({"type": "delete-flow-run"}, event=run_event)
    assert gone.details == {"flow_run": "r-17", "deleted": "was not there"}


async def test_without_a_run_the_target_is_asked_for(world: Any) -> None:
    named = [{"type": name} for name in ("suspend-flow-run", "resume-flow-run", "delete-flow-run")]
    for spec in (*named, {"change-flow-run-state": "Failed"}):
        with pytest.raises(ActionError, match="give `flow_run` in the rule") as caught:
            await world.perform(spec)
        assert not caught.value.retryable


async def test_templates_fetch_what_they_name_and_nothing_else(world: Any, run_event: dict[str, Any]) -> None:
    world.orchestrator.deployments.add("loader")
    texts = {
        "run": "{{ flow_run.name }} {{ flow_run.state }} {{ run.log_tail.splitlines() | last }}",
        "parameters": "$.flow_run.parameters",
        "pool": "{{ work_pool.name }} {{ work_pool.paused }}",
        "deployment": "{{ deployment.tags | join }} of {{ flow.name }}",
    }
    await world.perform({"emit-event": "told", "payload": texts}, event=run_event)
    (event,) = world.sink.events
    assert event.payload == {
        "run": "loader-r-17 Failed last",
        "parameters": {"n": 1},
        "pool": "default true",
        "deployment": "nightly of loader",
    }
    assert world.orchestrator.calls == [("describe-run", "r-17", 20)]
    world.orchestrator.calls.clear()
    await world.perform({"emit-event": "told", "payload": "{{ flow_run.id }}"}, event=run_event)
    await world.perform({"emit-event": "told", "payload": "{{ event.event }}"}, event=run_event)
    assert world.orchestrator.calls == [("describe-run", "r-17", 0)]


async def test_what_no_event_names_can_not_be_fetched(world: Any) -> None:
    with pytest.raises(ActionError, match="flow run"):
        await world.perform({"emit-event": "told", "payload": "{{ run.log_tail }}"})
