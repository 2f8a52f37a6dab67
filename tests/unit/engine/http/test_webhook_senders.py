"""Webhooks of known senders at the HTTP edge: handshakes, methods, headers that come twice, and what a refusal tells whom."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from http_fakes import NOW, FakeApi, app_over

from whenthen.actions.http.signatures import signature_headers
from whenthen.schemas.webhooks import Webhook
from whenthen.sources import WebhookTranslator, builtin_names, find_provider

LARGE = b" " * 25_000_000
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass
class Hooks(FakeApi):
    """The API with real translators behind `/hooks/orders`."""

    webhook: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        webhook = Webhook.model_validate({"name": "orders", **self.webhook})
        self.translator = WebhookTranslator(webhook, resolve_secret=lambda _: SECRET)

    def hook(self, name: str) -> WebhookTranslator:
        return self.translator


def ask(
    api: Hooks, method: str = "POST", *, headers: Any = None, content: bytes = b"", query: str = ""
) -> httpx.Response:
    async def work() -> httpx.Response:
        transport = httpx.ASGITransport(app_over(api), client=("10.0.0.7", 4711))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.request(method, f"/hooks/orders{query}", headers=headers, content=content)

    return asyncio.run(work())


def test_what_call_webhook_signs_is_an_event_of_a_webhook_of_ours_and_a_repeated_attempt_the_same() -> None:
    api = Hooks(webhook={"preset": "standard-webhooks", "secret": "env:A"})
    body = b'{"type": "order.paid", "number": 7}'
    headers = {"content-type": "application/json"}
    headers |= signature_headers(SECRET, id="firing-1.0", now=NOW, body=body, reference="env:A")
    first, second = (ask(api, headers=headers, content=body) for _ in range(2))
    assert (first.status_code, first.json()["ids"]) == (202, ["orders/firing-1.0"])
    assert second.json()["duplicates"] == ["orders/firing-1.0"]
    assert api.stored["orders/firing-1.0"].name == "webhook.order.paid"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"webhook-signature": "v1,AAAA"}, "proof_wrong"),
        ({"webhook-signature": "AAAA"}, "proof_malformed"),
        ({"webhook-signature": ""}, "proof_missing"),
        ({"webhook-timestamp": "1000000000"}, "clock_skew"),
    ],
)
def test_what_of_a_proof_fails_is_in_the_log_the_record_and_the_metric_and_not_in_the_answer(
    change: dict[str, str], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    api = Hooks(webhook={"preset": "standard-webhooks", "secret": "env:A"})
    body = b"{}"
    headers = {"content-type": "application/json"}
    headers |= signature_headers(SECRET, id="m", now=NOW, body=body, reference="env:A")
    with caplog.at_level(logging.WARNING):
        response = ask(api, headers=headers | change, content=body)
    assert response.status_code == (401 if reason == "proof_missing" else 403)
    assert response.json() == {
        "error": {
            "reason": "refused",
            "field": None,
            "message": "the request does not prove who it is from; the server's log and `whenthen audit` say what of it fails",
        }
    }
    (record,) = caplog.records
    assert vars(record)["reason"] == reason
    assert [refusal[1] for refusal in api.refusals] == [reason]
    assert f'whenthen_events_refused_total{{reason="{reason}",source="webhook:orders"}} 1.0' in api.metrics().decode()


def test_header_of_a_proof_that_comes_twice_is_refused_whichever_is_right() -> None:
    api = Hooks(webhook={"preset": "standard-webhooks", "secret": "env:A"})
    body = b"{}"
    headers = [("content-type", "application/json"), ("x-forwarded-for", "a"), ("x-forwarded-for", "b")]
    headers += signature_headers(SECRET, id="m", now=NOW, body=body, reference="env:A").items()
    assert ask(api, headers=headers, content=body).status_code == 202
    for wrong in (("webhook-signature", "v1,AAAA"), ("webhook-id", "other")):
        for twice in ([wrong, *headers], [*headers, wrong]):
            assert ask(api, headers=twice, content=body).status_code == 403
    assert {refusal[1] for refusal in api.refusals} == {"proof_repeated"}


@pytest.mark.parametrize("name", builtin_names())
def test_a_body_of_25_megabytes_is_refused_before_it_is_read(name: str) -> None:
    verify = {} if find_provider(name).verify else {"verify": "none"}
    api = Hooks(webhook={"preset": name, **(verify or {"secret": "env:A"})})
    response = ask(api, headers={"content-type": "application/json"}, content=LARGE)
    proven_by_head = response.status_code in (401, 403)  # who proves nothing is not told of a limit
    assert proven_by_head or (response.status_code, response.json()["error"]["reason"]) == (413, "body_too_large")
    assert proven_by_head == bool(find_provider(name).verify)
    assert api.stored == {}


def test_handshake_is_answered_and_stores_nothing() -> None:
    api = Hooks(webhook={"preset": "slack", "verify": "none"})
    response = ask(
        api, headers={"content-type": "application/json"}, content=b'{"type": "url_verification", "challenge": "<b>"}'
    )
    assert (response.status_code, response.json()) == (200, {"challenge": "<b>"})
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert api.stored == {}


def test_handshake_by_options_needs_no_proof_and_no_body_and_other_methods_are_405() -> None:
    api = Hooks(webhook={"preset": "azure-event-grid", "verify": {"type": "bearer", "token": "env:A"}})
    response = ask(api, "OPTIONS", headers={"webhook-request-origin": "eventgrid.azure.net"})
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["webhook-allowed-origin"] == "eventgrid.azure.net"
    assert ask(api, "OPTIONS", headers={"webhook-request-origin": "a"}, content=b"x").status_code == 413
    assert ask(api, "OPTIONS").status_code == 400
    for method in ("GET", "PUT", "DELETE"):
        refused = ask(api, method)
        assert (refused.status_code, refused.headers["allow"]) == (405, "OPTIONS, POST")
    assert ask(api, content=b"[]", headers={"content-type": "application/json"}).status_code == 401
    assert api.stored == {}
