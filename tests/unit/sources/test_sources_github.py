"""GitHub's deliveries, checked on payloads that GitHub published."""

from __future__ import annotations

import copy
import hashlib
import hmac
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from whenthen.schemas.errors import InvalidEvent, Refused
from whenthen.schemas.events import decode_event
from whenthen.sources import Request

GIVEN = json.loads((Path(__file__).parents[2] / "conformance" / "github_webhooks.json").read_text())
PAYLOADS: dict[str, Any] = {entry["name"]: entry["example"] for entry in GIVEN}


def deliver(kind: str, body: Any, delivery: str | None = "72d3162e", **headers: str) -> Request:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = {"Content-Type": "application/json", "X-GitHub-Event": kind, **headers}
    if delivery:
        found["X-GitHub-Delivery"] = delivery
    return Request.of(headers=found, body=raw)


def test_signed_delivery_is_an_event_and_its_redelivery_the_same(build: Any, now: datetime) -> None:
    hook = build(name="github", preset="github", secret=["env:OLD", "env:NEW"], verify=None)
    raw = json.dumps(PAYLOADS["push"]).encode()
    signature = "sha256=" + hmac.new(b"new secret", raw, hashlib.sha256).hexdigest()
    request = deliver("push", raw, **{"X-Hub-Signature-256": signature})
    [event] = hook.translate(request, now).events
    assert event.id == "github/72d3162e"
    assert hook.translate(request, now).events[0].id == event.id
    assert event.data["source"] == "webhook:github"
    assert event.occurred == now
    with pytest.raises(Refused) as caught:
        hook.translate(deliver("push", raw + b" ", **{"X-Hub-Signature-256": signature}), now)
    assert caught.value.status == 403
    with pytest.raises(Refused) as caught:
        hook.translate(deliver("push", raw), now)
    assert caught.value.status == 401


@pytest.mark.parametrize(
    ("kind", "name", "labels", "roles"),
    [
        ("push", "github.push", {"ref": "refs/tags/simple-tag", "tag": "simple-tag", "created": "true"},
         {"sender", "commit"}),
        ("ping", "github.ping", {"repository": "Octocoders/Hello-World"}, {"sender"}),
        ("issues", "github.issues.edited", {"action": "edited", "number": "1", "state": "open"}, {"sender", "issue"}),
        ("pull_request", "github.pull_request.opened", {"branch": "changes", "base": "master", "merged": "false"},
         {"sender", "pull_request"}),
        ("release", "github.release.published", {"tag": "0.0.1", "prerelease": "false"}, {"sender", "release"}),
        ("workflow_run", "github.workflow_run.completed", {"workflow": "Manually triggered workflow", "branch": "main"},
         {"sender", "organization", "workflow", "workflow_run"}),
    ],
)  # fmt: skip
def test_published_payload_becomes_its_event(
    build: Any, now: datetime, kind: str, name: str, labels: dict[str, str], roles: set[str]
) -> None:
    [event] = build(preset="github").translate(deliver(kind, PAYLOADS[kind]), now).events
    assert event.name == name
    full_name = PAYLOADS[kind]["repository"]["full_name"]
    assert event.resource["id"] == f"github.repository.{full_name}"
    assert labels.items() <= event.resource.items()
    assert {"repository": full_name, "sender": "Codertocat", "event": kind}.items() <= event.resource.items()
    assert {resource["role"] for resource in event.related} == roles
    assert event.payload == PAYLOADS[kind]
    assert decode_event(event.encode()).data == event.data


def test_every_published_payload_is_covered() -> None:
    assert {"push", "ping", "issues", "pull_request", "release", "workflow_run"} == set(PAYLOADS)


def test_form_encoded_delivery_is_the_same_event(build: Any, now: datetime) -> None:
    hook = build(preset="github")
    form = urlencode({"payload": json.dumps(PAYLOADS["issues"])}).encode()
    request = deliver("issues", form, **{"Content-Type": "application/x-www-form-urlencoded"})
    plain = hook.translate(deliver("issues", PAYLOADS["issues"]), now).events[0]
    assert hook.translate(request, now).events[0].data == plain.data


@pytest.mark.parametrize(
    ("kind", "body", "labels"),
    [
        ("push", {"ref": "refs/heads/feature/x"}, {"ref": "refs/heads/feature/x", "branch": "feature/x"}),
        ("create", {"ref": "v1", "ref_type": "tag"}, {"ref": "refs/tags/v1", "tag": "v1", "ref_type": "tag"}),
        ("delete", {"ref": "old", "ref_type": "branch"}, {"ref": "refs/heads/old", "branch": "old"}),
    ],
)
def test_branch_and_tag_stand_beside_the_ref(
    build: Any, now: datetime, kind: str, body: dict[str, Any], labels: dict[str, str]
) -> None:
    [event] = build(preset="github").translate(deliver(kind, body), now).events
    assert labels.items() <= event.resource.items()


@pytest.mark.parametrize(
    ("body", "id"),
    [
        ({"organization": {"login": "acme"}}, "github.organization.acme"),
        ({"enterprise": {"slug": "big"}}, "github.enterprise.big"),
        ({"installation": {"id": 5}}, "github.installation.5"),
        ({"hook_id": 9, "zen": "..."}, "github.hook.9"),
        ({"sender": {"login": "ada"}}, "github.user.ada"),
        ({}, "github"),
    ],
)
def test_event_without_a_repository_is_about_what_it_names(
    build: Any, now: datetime, body: dict[str, Any], id: str
) -> None:
    assert build(preset="github").translate(deliver("ping", body), now).events[0].resource["id"] == id


def _without_each_part(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(document, dict) and len(path) < 3:
        for key, value in document.items():
            yield (*path, key)
            yield from _without_each_part(value, (*path, key))


@pytest.mark.parametrize("kind", sorted(PAYLOADS))
@pytest.mark.parametrize("instead", ["gone", None, 5, "text", [], {}])
def test_no_part_of_a_payload_is_needed_or_trusted(build: Any, now: datetime, kind: str, instead: Any) -> None:
    hook = build(preset="github")
    for path in _without_each_part(PAYLOADS[kind]):
        if path == ("action",) and instead not in ("gone", None, "text"):
            continue
        body = copy.copy(PAYLOADS[kind])
        parent = body
        for key in path[:-1]:
            parent[key] = copy.copy(parent[key])
            parent = parent[key]
        if instead == "gone":
            del parent[path[-1]]
        else:
            parent[path[-1]] = instead
        [event] = hook.translate(deliver(kind, body), now).events
        assert event.name.startswith(f"github.{kind}")


def test_delivery_without_an_id_still_is_an_event(build: Any, now: datetime) -> None:
    hook = build(preset="github")
    first, second = (hook.translate(deliver("ping", {}, None), now).events[0].id for _ in range(2))
    assert first != second


def test_condition_of_a_preset_drops_events(build: Any, now: datetime) -> None:
    hook = build(preset="github", when="event.resource.branch == 'main'")
    assert len(hook.translate(deliver("push", {"ref": "refs/heads/main"}), now).events) == 1
    other = hook.translate(deliver("push", {"ref": "refs/heads/x"}), now)
    assert (other.events, other.dropped) == ([], ["github.push hook/72d3162e: when: does not hold"])
    tag = hook.translate(deliver("push", {"ref": "refs/tags/x"}), now)
    assert tag.events == []
    assert "branch" in tag.dropped[0]


@pytest.mark.parametrize(
    ("kind", "body", "field"),
    [
        ("", {}, "headers.x-github-event"),
        ("push > x", {}, "headers.x-github-event"),
        ("push", [], "body"),
        ("push", b"", "body"),
        ("push", b"{", "body"),
        ("push", {"action": 5}, "body.action"),
    ],
)
def test_wrong_delivery_is_refused_with_the_field(build: Any, now: datetime, kind: str, body: Any, field: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        build(preset="github").translate(deliver(kind, body), now)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("action", "name"),
    [
        ("vercel.deployment.success", "vercel.deployment.success"),
        ("release.published", "release.published"),
        ("deploy-prod", "deploy-prod"),
        ("deploy:prod", "deploy-prod"),
        ("acme/lib updated", "acme-lib-updated"),
        ("développer", "développer"),
        ("de\u0301ployer", "déployer"),
        ("部署 完成", "部署-完成"),
        ("..a..b. -c- .", "a.b.c"),
        ("two\nlines", "two-lines"),
        ("flow-run.Failed", "flow-run.Failed"),
        ("*?[x]!", "x"),
        ("a" * 300, "a" * 100),
        ("a" * 99 + ".b", "a" * 99),
    ],
)
def test_free_text_of_a_dispatch_is_made_a_name_and_stays_exact_in_a_label(
    build: Any, now: datetime, action: str, name: str
) -> None:
    body = {"action": action, "client_payload": {}, "repository": {"full_name": "acme/site"}}
    [event] = build(preset="github").translate(deliver("repository_dispatch", body), now).events
    assert event.name == f"github.repository_dispatch.{name}"
    assert event.resource["action"] == action.replace("\n", "%0A")
    assert event.payload["action"] == action


@pytest.mark.parametrize("action", ["", "!!", "..", None])
def test_action_of_which_nothing_is_left_for_the_name_is_an_event_all_the_same(
    build: Any, now: datetime, action: Any
) -> None:
    [event] = build(preset="github").translate(deliver("repository_dispatch", {"action": action}), now).events
    assert event.name == "github.repository_dispatch"
    assert event.resource.get("action") == (action or None)


def test_odd_names_of_workflows_checks_and_contexts_stay_in_labels(build: Any, now: datetime) -> None:
    odd = "build (linux, x86) / äöü: 1/2\tok"
    for kind, body, label in (
        ("workflow_run", {"action": "completed", "workflow_run": {"name": odd}}, "workflow"),
        ("check_run", {"action": "requested_action", "check_run": {"name": odd}}, "check"),
        ("deployment", {"action": "created", "deployment": {"environment": odd}}, "environment"),
        ("status", {"context": odd, "state": "success"}, "context"),
    ):
        [event] = build(preset="github").translate(deliver(kind, body), now).events
        assert event.resource[label] == odd.replace("\t", "%09")
        assert event.name.startswith(f"github.{kind}")


def test_form_without_a_payload_is_refused(build: Any, now: datetime) -> None:
    request = deliver("push", b"a=1", **{"Content-Type": "application/x-www-form-urlencoded"})
    with pytest.raises(InvalidEvent, match=r"body\.payload"):
        build(preset="github").translate(request, now)
