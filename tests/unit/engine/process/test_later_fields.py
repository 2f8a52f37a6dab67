"""Records in which a later version of whenthen says more than this one knows: what this one knows of them counts."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import orjson
import pytest

from whenthen.engine.bus.records import Outcome, OutcomeState
from whenthen.engine.hangs.skipped_events import Skip
from whenthen.engine.process.senders import reader_reports
from whenthen.engine.process.senders.sender_records import AsideMessage, RefusedRequest, read_refused
from whenthen.runs.run_states import run_from_record, shown_run
from whenthen.runs.shared.artifacts import ArtifactRecord, artifact_of_record
from whenthen.schemas.automations import PauseChange
from whenthen.schemas.base import known_fields
from whenthen.schemas.deployments import FlowRun, RunState

AT = "2026-03-01T12:00:00Z"
LATER = {"of_a_later_version": [1]}


def later(record: bytes) -> bytes:
    return orjson.dumps({**orjson.loads(record), **LATER})


def test_fields_that_are_not_known_are_left_out() -> None:
    assert known_fields(PauseChange, {"automation": "a", "paused": True, **LATER}) == {
        "automation": "a",
        "paused": True,
    }


@pytest.mark.parametrize("kind", [AsideMessage, RefusedRequest])
def test_what_a_source_or_a_webhook_refused_is_read(kind: Any) -> None:
    fields = dict.fromkeys(kind.__slots__, "x") | {
        "headers": {},
        "about": {},
        "query": {},
        "asked": False,
        "body": b"{}",
    }
    kept = kind(**known_fields(kind, fields))
    assert read_refused(later(kept.encode())) == kept


def test_the_report_of_a_process_that_reads_sources_is_read() -> None:
    counts = {
        "state": "reads", "detail": "", "since": AT, "heard": None, "messages": 1, "events": 1, "duplicates": 0, "refused": {},
    }  # fmt: skip
    report = {"member": "m", "host": "h", "process": 1, "sources": {"s": {**counts, **LATER}}, **LATER}
    found = reader_reports._read(orjson.dumps(report))
    assert found is not None
    assert asdict(found) == {"member": "m", "host": "h", "process": 1, "sources": {"s": counts}}


def test_a_skipped_event_is_read() -> None:
    skip = Skip(shard=1, shards=2, position=3, event=None, automation=None, reason="hung", tries=3, process="p", at=AT)
    assert Skip.of({**asdict(skip), **LATER}) == skip


def test_an_outcome_is_read() -> None:
    outcome = Outcome(key="f.0", automation="a", firing="f", action="emit", state=OutcomeState.DEAD, attempt=1, at=AT)
    assert Outcome.decode(later(outcome.encode())) == outcome


def test_a_pause_is_read() -> None:
    change = PauseChange(automation="a", paused=False)
    assert PauseChange.of({**asdict(change), **LATER}) == change


def test_an_artifact_is_read() -> None:
    known = dict.fromkeys(ArtifactRecord.__dataclass_fields__, "x") | {"metadata": {}, "seq": 7}
    artifact = ArtifactRecord(**known)  # type: ignore[arg-type]
    assert artifact_of_record({**known, "seq": 1, **LATER}, 7) == artifact


def test_a_run_is_read() -> None:
    run = FlowRun(
        id="0" * 32, deployment="d", work_pool="default", state=RunState.SCHEDULED, parameters={}, key="k",
        created=AT, scheduled_for=AT, changed=AT,
    )  # fmt: skip
    assert run_from_record({**shown_run(run), **LATER}) == run
