"""Verification: who is let in, who is not, and what a refusal says."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from whenthen.schemas.errors import NotFound, Refused
from whenthen.schemas.times import parse_time
from whenthen.schemas.webhooks import Verification, Webhook
from whenthen.sources import Request, WebhookTranslator, verify, verify_head

SECRETS = {
    "env:OLD": "old secret",
    "env:NEW": "new secret",
    "env:EMPTY": "",
    "env:BLANK": " \n",
    "env:LINE": "new secret\n",
}
NOW = parse_time("2026-01-31T08:00:00Z")
BODY = b'{"a": 1}'


def resolve(reference: str) -> str:
    if reference not in SECRETS:
        raise NotFound(f"{reference} is not set")
    return SECRETS[reference]


def check(how: dict[str, Any], headers: dict[str, str], body: bytes = BODY, now: datetime = NOW) -> None:
    verification: Any = TypeAdapter(Verification).validate_python(how)
    verify(Request.of(headers=headers, body=body), verification, now=now, resolve_secret=resolve)


def refused(how: dict[str, Any], headers: dict[str, str], body: bytes = BODY, now: datetime = NOW) -> Refused:
    with pytest.raises(Refused) as caught:
        check(how, headers, body, now)
    for secret in ("old secret", "new secret"):
        assert secret not in str(caught.value)
        assert sign(secret) not in str(caught.value)
    return caught.value


def sign(secret: str = "new secret", body: bytes = BODY, algorithm: str = "sha256") -> str:
    return hmac.new(secret.encode(), body, algorithm).hexdigest()


HMAC: dict[str, Any] = {"type": "hmac", "secret": "env:NEW", "header": "X-Signature", "prefix": "sha256="}


def test_signature_of_the_raw_body_is_accepted() -> None:
    check(HMAC, {"x-signature": "sha256=" + sign()})
    check(HMAC, {"X-SIGNATURE": "sha256=" + sign().upper()})
    check(HMAC, {"x-signature": "sha256=" + sign(body=b"\xff\x00")}, b"\xff\x00")


def test_published_example_of_github_is_accepted() -> None:
    how = {**HMAC, "header": "X-Hub-Signature-256"}
    signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    verification: Any = TypeAdapter(Verification).validate_python(how)
    request = Request.of(headers={"X-Hub-Signature-256": signature}, body=b"Hello, World!")
    verify(request, verification, now=NOW, resolve_secret=lambda _: "It's a Secret to Everybody")


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
def test_each_algorithm_and_encoding_is_understood(algorithm: str) -> None:
    digest = hmac.new(b"new secret", BODY, getattr(hashlib, algorithm)).digest()
    how = {**HMAC, "algorithm": algorithm, "prefix": ""}
    check(how, {"x-signature": digest.hex()})
    check({**how, "encoding": "base64"}, {"x-signature": base64.b64encode(digest).decode()})


def test_either_secret_is_accepted_while_it_is_rotated() -> None:
    how = {**HMAC, "secret": ["env:OLD", "env:NEW"]}
    check(how, {"x-signature": "sha256=" + sign("old secret")})
    check(how, {"x-signature": "sha256=" + sign("new secret")})
    assert refused(how, {"x-signature": "sha256=" + sign("third")}).status == 403


def test_missing_signature_is_401_and_a_wrong_one_403() -> None:
    assert refused(HMAC, {}).status == 401
    assert refused(HMAC, {"x-signature": ""}).status == 401
    for wrong in ("sha256=", "sha256=" + "0" * 64, sign(), "sha1=" + sign(), "sha256=" + sign()[:-1], "sha256=é"):
        assert refused(HMAC, {"x-signature": wrong}).status == 403
    assert refused(HMAC, {"x-signature": "sha256=" + sign()}, BODY + b" ").status == 403


def test_signed_time_must_be_recent() -> None:
    how = {**HMAC, "timestamp_header": "X-Time", "tolerance": "5m"}

    def headers(moment: datetime) -> dict[str, str]:
        stamp = str(int(moment.timestamp()))
        return {"x-time": stamp, "x-signature": "sha256=" + sign(body=stamp.encode() + b"." + BODY)}

    for age in (0, 299, -299):
        check(how, headers(NOW - timedelta(seconds=age)))
    for age in (301, -301, 10**9):
        assert refused(how, headers(NOW - timedelta(seconds=age))).status == 403
    assert refused(how, {"x-signature": "sha256=" + sign()}).status == 401
    assert refused(how, {"x-time": "soon", "x-signature": "sha256=" + sign()}).status == 403
    moved = {**headers(NOW - timedelta(hours=1)), "x-time": str(int(NOW.timestamp()))}
    assert refused(how, moved).status == 403


def test_bearer_token_is_compared_with_all_accepted_ones() -> None:
    how = {"type": "bearer", "token": ["env:OLD", "env:LINE"]}
    check(how, {"authorization": "Bearer old secret"})
    check(how, {"authorization": "bearer  new secret"})
    for missing in ({}, {"authorization": "Basic abc"}, {"authorization": "Bearer"}, {"authorization": "old secret"}):
        assert refused(how, missing).status == 401
    assert refused(how, {"authorization": "Bearer new"}).status == 403


def test_token_may_stand_alone_in_its_own_header() -> None:
    how = {"type": "bearer", "token": "env:NEW", "header": "X-Gitlab-Token"}
    check(how, {"x-gitlab-token": "new secret"})
    assert refused(how, {"x-gitlab-token": "Bearer new secret"}).status == 403
    assert refused(how, {}).status == 401


def test_basic_authentication_needs_user_and_password() -> None:
    how = {"type": "basic", "username": "ada", "password": ["env:OLD", "env:NEW"]}

    def headers(text: str) -> dict[str, str]:
        return {"authorization": "Basic " + base64.b64encode(text.encode()).decode()}

    check(how, headers("ada:new secret"))
    check(how, headers("ada:old secret"))
    for wrong in ("ada:", "ada:x", "bob:new secret", ":", "ada:new secret "):
        assert refused(how, headers(wrong)).status == 403
    for missing in ({}, {"authorization": "Basic"}, {"authorization": "Basic !!"}, headers("ada"), headers("")):
        assert refused(how, missing).status == 401


@pytest.mark.parametrize("reference", ["env:GONE", "env:EMPTY", "env:BLANK"])
def test_secret_that_can_not_be_read_accepts_nobody(reference: str) -> None:
    for key in ("", " ", "\n", "None"):
        assert refused({**HMAC, "secret": reference}, {"x-signature": "sha256=" + sign(key)}).status == 403
        bearer = {"type": "bearer", "token": reference, "header": "X-Token"}
        assert refused(bearer, {"x-token": key.strip() or "x"}).status == 403
    user = {"authorization": "Basic " + base64.b64encode(b"ada:").decode()}
    assert refused({"type": "basic", "username": "ada", "password": reference}, user).status == 403


def test_one_unreadable_secret_leaves_the_other_one_working() -> None:
    how = {**HMAC, "secret": ["env:GONE", "env:NEW"]}
    check(how, {"x-signature": "sha256=" + sign()})
    assert refused(how, {"x-signature": "sha256=" + sign("")}).status == 403


@given(st.text(max_size=80), st.binary(max_size=40), st.sampled_from(["hmac", "bearer", "basic", "stamp"]))
def test_no_header_is_let_in_by_chance_or_crashes(header: str, body: bytes, kind: str) -> None:
    how: dict[str, Any] = {
        "hmac": HMAC,
        "stamp": {**HMAC, "timestamp_header": "X-Signature"},
        "bearer": {"type": "bearer", "token": "env:NEW"},
        "basic": {"type": "basic", "username": "ada", "password": "env:NEW"},
    }[kind]
    headers = {"x-signature": header, "authorization": ("Basic " if kind == "basic" else "Bearer ") + header}
    with pytest.raises(Refused):
        check(how, headers, body)


@pytest.mark.parametrize(
    ("how", "headers", "status"),
    [
        ({"type": "bearer", "token": "env:NEW"}, {"Authorization": "Bearer new secret"}, None),
        ({"type": "bearer", "token": "env:NEW"}, {"Authorization": "Bearer old secret"}, 403),
        ({"type": "bearer", "token": "env:NEW", "header": "X-Token"}, {}, 401),
        ({"type": "basic", "username": "u", "password": "env:NEW"}, {}, 401),
        ({"type": "hmac", "secret": "env:NEW", "header": "X-Sign"}, {}, 401),
        ({"type": "hmac", "secret": "env:NEW", "header": "X-Sign", "prefix": "v1="}, {"X-Sign": "v0=abc"}, 403),
        ({"type": "hmac", "secret": "env:NEW", "header": "X-Sign"}, {"X-Sign": "may be right"}, None),
        ({"type": "hmac", "secret": "env:NEW", "header": "X-Sign", "timestamp_header": "X-At"}, {"X-Sign": "a"}, 401),
        (
            {"type": "hmac", "secret": "env:NEW", "header": "X-Sign", "timestamp_header": "X-At"},
            {"X-Sign": "a", "X-At": "1000000000"},
            403,
        ),
    ],
)
def test_headers_that_prove_nothing_are_refused_before_the_body_is_there(
    how: dict[str, Any], headers: dict[str, str], status: int | None
) -> None:
    verification: Any = TypeAdapter(Verification).validate_python(how)
    request = Request.of(headers=headers)
    if status is None:
        verify_head(request, verification, now=NOW, resolve_secret=resolve)
        return
    with pytest.raises(Refused) as caught:
        verify_head(request, verification, now=NOW, resolve_secret=resolve)
    assert caught.value.status == status


def test_a_token_is_looked_at_once_for_a_request_and_again_by_other_rules() -> None:
    asked: list[str] = []

    def resolve_noted(reference: str) -> str:
        asked.append(reference)
        return SECRETS[reference]

    def translator(token: str) -> WebhookTranslator:
        fields = {"name": "hook", "verify": {"type": "bearer", "token": token}}
        mapping = {"event": "made", "resource": {"id": "it"}}
        return WebhookTranslator(Webhook.model_validate({**fields, "map": mapping}), resolve_secret=resolve_noted)

    request = Request.of(headers={"authorization": "Bearer new secret"})
    before = translator("env:NEW")
    before.check_head(request, NOW)
    request.body = BODY
    assert len(before.translate(request, NOW).events) == 1
    assert asked == ["env:NEW"]
    assert request.proven
    # the rules that are in force when the body is there want another token
    with pytest.raises(Refused):
        translator("env:OLD").translate(request, NOW)


def test_a_signature_is_looked_at_again_when_the_body_is_there() -> None:
    fields = {"name": "hook", "verify": HMAC, "map": {"event": "made", "resource": {"id": "it"}}}
    translator = WebhookTranslator(Webhook.model_validate(fields), resolve_secret=resolve)
    request = Request.of(headers={"x-signature": "sha256=" + sign()})
    translator.check_head(request, NOW)
    request.body = b'{"a": 2}'
    with pytest.raises(Refused):
        translator.translate(request, NOW)
