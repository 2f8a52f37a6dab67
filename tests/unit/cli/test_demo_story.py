"""The demo's story is told only when each step was seen; else it names the step that is missing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from whenthen.actions.http.signatures import signature_headers
from whenthen.cli.demo.payloads import push, upload
from whenthen.cli.demo.receiver import Received, is_signed
from whenthen.cli.demo.stage import copy_project
from whenthen.cli.demo.story import CHAPTERS, Line, Missing, Seen, Sent
from whenthen.rules import load_rules
from whenthen.schemas.webhooks import Webhook
from whenthen.sources import Request, WebhookTranslator

START = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)
SECRET = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ="


def at(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).isoformat()


def firing(automation: str, event: str, *events: str) -> dict[str, Any]:
    return {
        "id": f"firing-{automation}",
        "automation": automation,
        "event": event,
        "events": events or (event,),
        "at": at(1),
    }


def run(deployment: str, key: str, state: str = "Completed", number: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "id": f"run-{deployment}-{number}", "deployment": deployment, "key": key, "state": state, "started": at(1),
        "ended": at(2 + number), "message": "", "triggered_by": "automation:x", "exit_code": 0, **more,
    }  # fmt: skip


def everything() -> Seen:
    body = b'{"title": "sync-partner keeps failing"}'
    key = "firing-pause-what-keeps-failing.2"
    signed = signature_headers(SECRET, id=key, now=START, body=body, reference="env:X")
    return Seen(
        push=Sent(at=START, path="/hooks/github", about="push", status=202, ids=("push-1",)),
        forged=Sent(at=START, path="/hooks/github", about="forged", status=403),
        upload=Sent(at=START, path="/hooks/storage", about="upload", status=202, ids=("upload-1",)),
        again=Sent(at=START, path="/hooks/github", about="again", status=202, ids=("push-1",), duplicates=("push-1",)),
        events=[
            {"id": "push-1", "event": "github.push", "resource": {"id": "repository"}, "received": at(0)},
            {"id": "upload-1", "event": "s3.file.uploaded", "resource": {"id": "s3://raw/x"}, "received": at(0)},
            {"id": "done-1", "event": "flow-run.Completed", "resource": {"id": "whenthen.flow-run.run-load-orders-0"}, "occurred": at(2)},
            {
                "id": "executed-1", "event": "automation.action.executed", "resource": {"id": "x"}, "occurred": at(5),
                "payload": {"action": "pause-deployment", "key": "firing-pause-what-keeps-failing.0"},
            },
        ],
        firings=[
            firing("build-on-push", "push-1"),
            firing("load-new-orders", "upload-1"),
            firing("report-after-load", "done-1"),
            firing("pause-what-keeps-failing", "f3", "f1", "f2", "f3"),
        ],
        runs=[
            run("build-shop", "firing-build-on-push.0"),
            run("load-orders", "firing-load-new-orders.0"),
            run("daily-report", "firing-report-after-load.0"),
            *(run("sync-partner", f"schedule/{number}", "Failed", number) for number in range(3)),
        ],
        logs={
            "run-build-shop-0": ["built acme/shop at 9fceb02"],
            "run-load-orders-0": ["loaded 102 rows from s3://raw/x"],
            "run-daily-report-0": ["report: 102 new rows came from s3://raw/x"],
        },
        deployments=[{"name": "sync-partner", "schedules": [{"paused": True}]}],
        notifications=[
            Received(at=START, path="/notify", headers={}, body=b'{"title": "sync-partner is paused", "message": "3 runs"}')
        ],
        incidents=[Received(at=START, path="/incidents", headers={**signed, "idempotency-key": key}, body=body)],
        signing_secret=SECRET,
    )  # fmt: skip


def tell(seen: Seen) -> list[Line]:
    return [line for chapter in CHAPTERS for line in chapter.tell(seen)]


def without(seen: Seen, field: str, **wanted: str) -> Seen:
    kept = [item for item in getattr(seen, field) if not all(item.get(name) == value for name, value in wanted.items())]
    assert len(kept) < len(getattr(seen, field))
    return replace(seen, **{field: kept})


def test_a_story_with_every_step_is_told() -> None:
    told = " ".join(f"{line.what} {line.about}" for line in tell(everything()))
    for text in (
        "github.push",
        "fires",
        "Completed after 1.00 s",
        "403",
        "the same event",
        "is paused",
        "signature verified",
    ):
        assert text in told


@pytest.mark.parametrize(
    ("spoil", "missing", "automation"),
    [
        (lambda seen: replace(seen, push=replace(seen.push, status=503, ids=())), "answers 202", None),
        (lambda seen: without(seen, "events", id="push-1"), "github.push push-1 is stored", None),
        (lambda seen: without(seen, "firings", automation="build-on-push"), "build-on-push fires", "build-on-push"),
        (lambda seen: without(seen, "runs", deployment="build-shop"), "starts a run of build-shop", "build-on-push"),
        (lambda seen: replace(seen, logs={}), "says “built acme/shop", None),
        (lambda seen: replace(seen, forged=replace(seen.forged, status=202)), "forged signature is refused", None),
        (lambda seen: replace(seen, again=None), "delivered a second time", None),
        (lambda seen: replace(seen, again=replace(seen.again, duplicates=())), "known to be the same event", "build-on-push"),
        (
            lambda seen: replace(seen, runs=[*seen.runs, run("build-shop", "other.0", number=7)]),
            "give one run of build-shop",
            "build-on-push",
        ),
        (lambda seen: without(seen, "events", event="flow-run.Completed"), "the end of load-orders is an event", None),
        (lambda seen: without(seen, "firings", automation="report-after-load"), "report-after-load fires", "report-after-load"),
        (lambda seen: without(seen, "runs", id="run-sync-partner-2"), "failed (so far 2)", None),
        (
            lambda seen: replace(seen, deployments=[{"name": "sync-partner", "schedules": [{"paused": False}]}]),
            "the schedule of sync-partner is paused",
            "pause-what-keeps-failing",
        ),
        (lambda seen: replace(seen, notifications=[]), "the notification arrives", "pause-what-keeps-failing"),
        (lambda seen: replace(seen, incidents=[]), "the outgoing webhook arrives", "pause-what-keeps-failing"),
        (lambda seen: replace(seen, signing_secret="whsec_b3RoZXI="), "is signed with the secret", "pause-what-keeps-failing"),
    ],
)  # fmt: skip
def test_a_step_that_was_not_seen_is_named(spoil: Any, missing: str, automation: str | None) -> None:
    with pytest.raises(Missing) as found:
        tell(spoil(everything()))
    assert missing in str(found.value)
    assert found.value.automation == automation


def test_the_requests_are_what_the_presets_understand() -> None:
    secrets = {"env:A": "github-secret", "env:B": "storage-token"}
    github = Webhook.model_validate({"name": "github", "preset": "github", "secret": "env:A"})
    storage = Webhook.model_validate(
        {"name": "storage", "preset": "s3", "verify": {"type": "bearer", "token": "env:B"}}
    )
    names = []
    for webhook, delivery in ((github, push("github-secret", START)), (storage, upload("storage-token", START))):
        translator = WebhookTranslator(webhook, resolve_secret=secrets.__getitem__)
        request = Request.of(method="POST", headers=delivery.headers, query={}, body=delivery.body)
        names += [(event.name, event.resource["id"]) for event in translator.translate(request, START).events]
    assert names == [
        ("github.push", "github.repository.acme/shop"),
        ("s3.file.uploaded", "s3://raw/orders/2026-01-31 morning.csv"),
    ]


def test_a_signature_is_checked_over_id_time_and_body() -> None:
    headers = signature_headers(SECRET, id="k", now=START, body=b"{}", reference="env:X")
    request = Received(at=START, path="/", headers=headers, body=b"{}")
    assert is_signed(request, SECRET)
    assert not is_signed(replace(request, body=b"{ }"), SECRET)
    assert not is_signed(replace(request, headers={**headers, "webhook-id": "other"}), SECRET)
    assert not is_signed(replace(request, headers={}), SECRET)


def test_the_project_names_the_automations_that_the_story_is_about(tmp_path: Path) -> None:
    rules = load_rules(copy_project(tmp_path))
    assert {automation.name for automation in rules.automations} == {
        item["automation"] for item in everything().firings
    }
    assert {item.name for item in rules.deployments} == {"build-shop", "load-orders", "daily-report", "sync-partner"}
    assert [webhook.name for webhook in rules.webhooks] == ["github", "storage"]
