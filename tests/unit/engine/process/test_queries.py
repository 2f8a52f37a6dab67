"""What the API's queries make of stored messages and rules, without a server."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from whenthen.engine.bus.stream_pages import StoredMessage
from whenthen.engine.http import answer_models as answers
from whenthen.engine.process.queries import event_positions
from whenthen.engine.process.queries.deployment_queries import deployment_summary
from whenthen.engine.process.queries.event_positions import EventPositions
from whenthen.engine.process.queries.stored_events import event_fields, stored_event
from whenthen.engine.process.wiring.evaluator_role import missing_shards
from whenthen.runs import Flag
from whenthen.schemas.automations import Automation
from whenthen.schemas.deployments import Deployment, FlowRun
from whenthen.schemas.events import new_event

NOW = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)


def stored(data: bytes) -> answers.StoredEvent | None:
    message = StoredMessage("events.a", 7, "", data)
    return stored_event(event_fields(message), message.seq)


def test_a_stored_event_is_answered_as_it_is_with_its_position() -> None:
    event = new_event("a", resource={"id": "x"}, now=NOW, source="api", payload=[1, None])
    found = stored(event.encode())
    assert found is not None
    assert found.model_dump(exclude_unset=True) == {**event.data, "seq": 7}


@pytest.mark.parametrize("data", [b"", b"no JSON", b"3", b"{}", b'{"id": "x", "event": 4, "resource": {}}'])
def test_what_another_program_put_into_the_stream_is_no_event_and_no_error(data: bytes) -> None:
    assert stored(data) is None


def test_positions_are_forgotten_from_the_oldest_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_positions, "MOST", 20)
    positions = EventPositions()
    for number in range(21):
        positions.add(f"e{number}", number)
    assert [positions.get(f"e{number}") for number in (0, 1, 2, 20)] == [None, None, 2, 20]


def test_a_paused_schedule_has_no_next_time() -> None:
    deployment = Deployment.model_validate(
        {
            "name": "load",
            "command": "load it",
            "schedules": [{"name": "nightly", "cron": "0 3 * * *"}, {"name": "often", "interval": "1h"}],
        }
    )
    flags = {"schedule/load/nightly": Flag(paused=True, changed="2026-01-31T00:00:00Z")}
    summary = deployment_summary(deployment, flags, NOW)
    assert summary.runs == "load it"
    assert [(item.name, item.paused, item.next is None) for item in summary.schedules] == [
        ("nightly", True, True),
        ("often", False, False),
    ]
    assert summary.schedules[1].when == f"every {timedelta(hours=1)}"


def test_the_model_of_a_flow_run_has_all_its_fields() -> None:
    assert set(answers.FlowRunDetail.model_fields) == {field.name for field in dataclasses.fields(FlowRun)}


@pytest.mark.parametrize(
    ("model", "detail"), [(Automation, answers.AutomationDetail), (Deployment, answers.DeploymentDetail)]
)
def test_the_model_of_a_rule_has_all_its_fields(model: Any, detail: Any) -> None:
    assert set(model.model_fields) <= set(detail.model_fields)


def test_a_shard_is_missing_until_it_has_caught_up() -> None:
    assert missing_shards({0: True, 1: False}, 0) == [1]
    assert missing_shards({0: True, 1: False}, 4) == [1, 2, 3]
    assert missing_shards({}, 0) == []
    assert missing_shards({1: True}, 4, [0, 3]) == [2]


def test_a_run_that_is_answered_is_the_run_as_json() -> None:
    run = FlowRun(
        id="r", deployment="d", work_pool="p", state="Running", parameters={"a": [1]}, key="k",  # type: ignore[arg-type]
        created="c", scheduled_for="s", changed="c", tags=("x",), related=({"id": "y"},), result={"rows": 3},
    )  # fmt: skip
    found = answers.FlowRunDetail.model_validate(run, from_attributes=True)
    assert orjson.loads(found.model_dump_json(exclude_unset=True)) == orjson.loads(orjson.dumps(run))
