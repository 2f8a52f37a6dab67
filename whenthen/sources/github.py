"""Translates GitHub's webhooks to events. Pure; `sources.translator` has verified the signature.

Called by `sources.translator` for `preset: github`. Meaning, with examples: docs/sources.md, "GitHub". Shapes: GitHub's
documentation of webhook events and payloads; every field that is not needed to name the event may be missing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from whenthen.schemas.errors import InvalidEvent
from whenthen.schemas.events import new_event
from whenthen.sources.json_bodies import decode_json
from whenthen.sources.labels import Labels, dig, name_part
from whenthen.sources.mapping import SourceLimits, Translation, delivery_event_id
from whenthen.sources.requests import Request, decode_body, kind_of

__all__ = ["SIGNATURE_HEADER", "SIGNATURE_PREFIX", "translate_github"]

SIGNATURE_HEADER = "X-Hub-Signature-256"
SIGNATURE_PREFIX = "sha256="

_WORD = re.compile(r"[A-Za-z0-9_-]{1,100}", re.ASCII)

#: labels of the resource and where they stand in a payload, for each event or, with "", for all
_LABELS: dict[str, dict[str, str]] = {
    "": {
        "repository": "repository.full_name",
        "owner": "repository.owner.login",
        "name": "repository.name",
        "visibility": "repository.visibility",
        "default_branch": "repository.default_branch",
        "organization": "organization.login",
        "sender": "sender.login",
        "label": "label.name",
    },
    "push": {"ref": "ref", "after": "after", "before": "before", "forced": "forced", "created": "created",
             "deleted": "deleted"},
    "create": {"ref_type": "ref_type"},
    "delete": {"ref_type": "ref_type"},
    "pull_request": {"number": "pull_request.number", "state": "pull_request.state", "merged": "pull_request.merged",
                     "draft": "pull_request.draft", "branch": "pull_request.head.ref",
                     "base": "pull_request.base.ref"},
    "issues": {"number": "issue.number", "state": "issue.state"},
    "issue_comment": {"number": "issue.number", "state": "issue.state"},
    "release": {"tag": "release.tag_name", "prerelease": "release.prerelease", "draft": "release.draft"},
    "workflow_run": {"workflow": "workflow_run.name", "status": "workflow_run.status",
                     "conclusion": "workflow_run.conclusion", "branch": "workflow_run.head_branch",
                     "trigger": "workflow_run.event"},
    "workflow_job": {"workflow": "workflow_job.workflow_name", "job": "workflow_job.name",
                     "status": "workflow_job.status", "conclusion": "workflow_job.conclusion",
                     "branch": "workflow_job.head_branch"},
    "check_run": {"check": "check_run.name", "status": "check_run.status", "conclusion": "check_run.conclusion",
                  "branch": "check_run.check_suite.head_branch"},
    "check_suite": {"status": "check_suite.status", "conclusion": "check_suite.conclusion",
                    "branch": "check_suite.head_branch"},
    "deployment": {"environment": "deployment.environment", "ref": "deployment.ref"},
    "deployment_status": {"environment": "deployment_status.environment", "state": "deployment_status.state",
                          "ref": "deployment.ref"},
    "status": {"state": "state", "context": "context"},
}  # fmt: skip
_LABELS["pull_request_review"] = {**_LABELS["pull_request"], "review": "review.state"}
_LABELS["pull_request_review_comment"] = _LABELS["pull_request"]

#: related objects of the repository, by the payload's field and role: how their id is made, and their labels
_RELATED: dict[str, tuple[str, dict[str, str]]] = {
    "pull_request": ("github.pull_request.{repository}#{number}",
                     {"number": "number", "state": "state", "title": "title", "author": "user.login",
                      "branch": "head.ref", "base": "base.ref", "merged": "merged", "draft": "draft",
                      "url": "html_url"}),
    "issue": ("github.issue.{repository}#{number}",
              {"number": "number", "state": "state", "title": "title", "author": "user.login", "url": "html_url"}),
    "release": ("github.release.{repository}@{tag_name}",
                {"tag": "tag_name", "title": "name", "author": "author.login", "url": "html_url"}),
    "workflow_run": ("github.workflow_run.{id}",
                     {"name": "name", "number": "run_number", "attempt": "run_attempt", "status": "status",
                      "conclusion": "conclusion", "branch": "head_branch", "sha": "head_sha", "url": "html_url"}),
    "workflow_job": ("github.workflow_job.{id}",
                     {"name": "name", "status": "status", "conclusion": "conclusion", "run": "run_id",
                      "url": "html_url"}),
    "workflow": ("github.workflow.{id}", {"name": "name", "path": "path", "state": "state"}),
    "check_run": ("github.check_run.{id}",
                  {"name": "name", "status": "status", "conclusion": "conclusion", "sha": "head_sha",
                   "url": "html_url"}),
    "check_suite": ("github.check_suite.{id}",
                    {"status": "status", "conclusion": "conclusion", "branch": "head_branch", "sha": "head_sha"}),
    "deployment": ("github.deployment.{id}",
                   {"environment": "environment", "ref": "ref", "sha": "sha", "task": "task"}),
    "comment": ("github.comment.{id}", {"author": "user.login", "url": "html_url"}),
    "review": ("github.review.{id}", {"author": "user.login", "state": "state", "url": "html_url"}),
    "head_commit": ("github.commit.{id}", {"sha": "id", "author": "author.username", "url": "url"}),
    "milestone": ("github.milestone.{id}", {"title": "title", "state": "state"}),
    "installation": ("github.installation.{id}", {}),
}  # fmt: skip
#: people and organizations, by the payload's field and role
_ACCOUNTS = {"sender": "user", "organization": "organization", "assignee": "user", "requested_reviewer": "user"}
_ROLES = {"head_commit": "commit"}


def translate_github(request: Request, *, name: str, now: datetime, limits: SourceLimits) -> Translation:
    """The event of one delivery: `github.<event>.<action>` of the repository, with its parts as related resources.

    `occurred` is the arrival: a payload says when its object changed, not when the delivery's event happened. The id is
    `<webhook>-<X-GitHub-Delivery>`, which GitHub keeps when it delivers again.

    Raises:
        InvalidEvent: a header or the body is missing or wrong; names the field.
    """
    kind = request.headers.get("x-github-event", "")
    if not kind:
        raise InvalidEvent("missing; this address is for GitHub's webhooks", path=("headers", "x-github-event"))
    if not _WORD.fullmatch(kind):
        raise InvalidEvent(f"{kind[:40]!r} is not the name of an event", path=("headers", "x-github-event"))
    body = _decode(request)
    action = body.get("action")
    if action is not None and not isinstance(action, str):
        raise InvalidEvent(f"text is expected, found {kind_of(action)}", path=("body", "action"))
    # a fixed word of GitHub's for most events; of `repository_dispatch` whatever text the sender chose
    part = action if action is None or _WORD.fullmatch(action) else name_part(action)
    delivery = request.headers.get("x-github-delivery")
    event = new_event(
        f"github.{kind}.{part}" if part else f"github.{kind}",
        resource=_resource(kind, action, body),
        related=_related(body)[: limits.event.related],
        payload=body,
        id=delivery_event_id(name, delivery) if delivery else None,
        now=now,
        source=f"webhook:{name}",
        limits=limits.event,
    )
    return Translation(events=[event])


def _decode(request: Request) -> dict[str, Any]:
    body = decode_body(request)
    if request.media_type == "application/x-www-form-urlencoded":
        document = body.get("payload")
        if not isinstance(document, str):
            raise InvalidEvent("missing; GitHub sends its JSON in this form field", path=("body", "payload"))
        body = decode_json(document.encode(), ("body", "payload"))
    if not isinstance(body, dict):
        raise InvalidEvent(f"a JSON object is expected, found {kind_of(body)}", path=("body",))
    return body


def _resource(kind: str, action: str | None, body: Mapping[str, Any]) -> dict[str, str]:
    labels = Labels(_resource_id(body))
    labels.put("event", kind)
    labels.put("action", action)
    for label, path in {**_LABELS[""], **_LABELS.get(kind, {})}.items():
        labels.put(label, dig(body, path))
    _put_ref(labels, kind, body)
    return labels.done()


def _resource_id(body: Mapping[str, Any]) -> str:
    for path, prefix in (
        ("repository.full_name", "github.repository."),
        ("organization.login", "github.organization."),
        ("enterprise.slug", "github.enterprise."),
        ("installation.id", "github.installation."),
        ("hook_id", "github.hook."),
        ("sender.login", "github.user."),
    ):
        found = dig(body, path)
        if isinstance(found, (str, int)) and not isinstance(found, bool) and str(found).strip():
            return f"{prefix}{found}"
    return "github"


def _put_ref(labels: Labels, kind: str, body: Mapping[str, Any]) -> None:
    """`ref` as Git spells it, with `branch` or `tag` beside it."""
    ref = body.get("ref")
    if not isinstance(ref, str):
        return
    if kind in ("create", "delete"):
        prefix = {"branch": "refs/heads/", "tag": "refs/tags/"}.get(str(body.get("ref_type")), "")
        ref = prefix + ref
        labels.put("ref", ref)
    if ref.startswith("refs/heads/"):
        labels.put("branch", ref.removeprefix("refs/heads/"))
    elif ref.startswith("refs/tags/"):
        labels.put("tag", ref.removeprefix("refs/tags/"))


def _related(body: Mapping[str, Any]) -> list[dict[str, str]]:
    related = []
    for field, kind in _ACCOUNTS.items():
        login = dig(body, f"{field}.login")
        if isinstance(login, str) and login:
            labels = Labels(f"github.{kind}.{login}", role=field)
            labels.put("login", login)
            labels.put("type", dig(body, f"{field}.type"))
            related.append(labels.done())
    repository = dig(body, "repository.full_name")
    for field, (pattern, wanted) in _RELATED.items():
        found = body.get(field)
        if not isinstance(found, dict):
            continue
        parts = {"repository": repository, **{part: found.get(part) for part in ("id", "number", "tag_name")}}
        if any(f"{{{part}}}" in pattern and not isinstance(value, (str, int)) for part, value in parts.items()):
            continue
        labels = Labels(pattern.format_map(parts), role=_ROLES.get(field, field))
        for label, path in wanted.items():
            labels.put(label, dig(found, path))
        related.append(labels.done())
    return related
