"""No request crashes a translation: it gives events that can be written and read again, or an error of ours."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from whenthen.schemas.errors import WhenthenError
from whenthen.schemas.events import decode_event
from whenthen.schemas.webhooks import Webhook
from whenthen.sources import Request, WebhookTranslator

NOW = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)
FORMS: list[dict[str, Any]] = [
    {"preset": "github", "when": "event.resource.branch != 'x'"},
    {"preset": "s3"},
    {"map": {"event": "e.{{ body.a }}", "resource": {"id": "$.body.id", "b": "{{ body.b | upper }}"}, "id": "$.body.b"}},
    {"map": {"each": "$.body", "event": "e", "resource": {"id": "{{ item }}"}, "when": "item.a > 0",
             "occurred": "$.item.a"}},
    {"map": {"each": "$..a", "event": "e", "resource": {"id": "$.headers.x-id"}, "payload": "$",
             "related": [{"id": "$.query.q"}]}},
]  # fmt: skip
HOOKS = [
    WebhookTranslator(
        Webhook.model_validate({"name": "hook", "verify": "none", **form}),
        resolve_secret=lambda reference: "",
    )
    for form in FORMS
]
TYPES = [
    "application/json",
    "application/x-www-form-urlencoded",
    "text/plain",
    "text/plain; charset=latin-1",
    "",
    "a/b",
]
WORDS = [
    "a", "b", "id", "action", "ref", "repository", "full_name", "sender", "login", "issue", "number", "Records", "s3",
    "bucket", "name", "object", "key", "eventName", "eventTime", "detail-type", "detail", "Type", "Message",
    "ObjectCreated:Put", "Notification", "refs/heads/x", "%41+", "payload", "2026-01-31T07:00:00Z",
]  # fmt: skip
texts = st.sampled_from(WORDS) | st.text(max_size=6)
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=6),
    max_leaves=25,
)
bodies = (
    st.binary(max_size=60)
    | documents.map(lambda document: json.dumps(document).encode())
    | st.builds(lambda name, document: f"{name}={json.dumps(document)}".encode(), texts.filter(str.isascii), documents)
)
records = st.fixed_dictionaries(
    {"eventName": texts, "s3": st.fixed_dictionaries({"bucket": st.fixed_dictionaries({"name": texts}),
                                                     "object": st.dictionaries(texts, documents) | documents})},
    optional={"eventTime": texts, "eventSource": texts, "responseElements": documents},
)  # fmt: skip


@given(
    bodies | st.lists(records, max_size=3).map(lambda found: json.dumps({"Records": found}).encode()),
    st.sampled_from(TYPES),
    st.text(max_size=8),
    st.sampled_from(["push", "issues", "create"]) | st.text(max_size=5),
)
def test_no_request_crashes_a_translation(body: bytes, type: str, text: str, kind: str) -> None:
    headers = {"Content-Type": type, "X-GitHub-Event": kind, "X-GitHub-Delivery": text, "X-Id": text}
    request = Request.of(headers=headers, query={"q": text}, body=body)
    for hook in HOOKS:
        with contextlib.suppress(WhenthenError):
            for event in hook.translate(request, NOW).events:
                assert decode_event(event.encode()).data == event.data
