"""One recipe says how nearly all senders sign: times, several signatures, several secrets, encoded keys, and what is refused why."""

from __future__ import annotations

import base64
import hmac
from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from whenthen.actions.http.signatures import signature_headers
from whenthen.schemas.errors import NotFound, SecretUnreadable, Unproven
from whenthen.schemas.times import parse_time
from whenthen.schemas.webhooks import HmacVerification, Verification
from whenthen.sources import Request, verify, verify_head
from whenthen.sources.verification import unreadable_secrets

NOW = parse_time("2026-01-31T08:00:00Z")
STAMP = str(int(NOW.timestamp()))
BODY = b'{"a": 1}'
SECRETS = {
    "env:A": "alpha-1",
    "env:B": "beta-2",
    "env:KEY": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "env:BAD": "whsec_?",
}

STANDARD: dict[str, Any] = {
    "type": "hmac", "secret": "env:KEY", "header": "webhook-signature", "separator": " ", "prefix": "v1,", "encoding": "base64",
    "timestamp": {"header": "webhook-timestamp"}, "signed": "{webhook-id}.{timestamp}.{body}",
    "key": {"strip": "whsec_", "decode": "base64"},
}  # fmt: skip
STRIPE: dict[str, Any] = {
    "type": "hmac", "secret": ["env:A", "env:B"], "header": "Stripe-Signature", "separator": ",", "prefix": "v1=",
    "timestamp": {"field": "t="},
}  # fmt: skip
SLACK: dict[str, Any] = {
    "type": "hmac", "secret": "env:A", "header": "X-Slack-Signature", "prefix": "v0=",
    "timestamp": {"header": "X-Slack-Request-Timestamp"}, "signed": "v0:{timestamp}:{body}",
}  # fmt: skip


def resolve(reference: str) -> str:
    if reference not in SECRETS:
        raise NotFound(f"{reference} is not set")
    return SECRETS[reference]


def check(
    how: dict[str, Any], headers: dict[str, str], body: bytes = BODY, *, now: datetime = NOW, repeated: str = ""
) -> None:
    verification: Any = TypeAdapter(Verification).validate_python(how)
    request = Request.of(headers=headers, body=body)
    request.repeated = frozenset(repeated.split())
    verify(request, verification, now=now, resolve_secret=resolve)


def reason(how: dict[str, Any], headers: dict[str, str], body: bytes = BODY, **options: Any) -> str:
    with pytest.raises(Unproven) as caught:
        check(how, headers, body, **options)
    assert caught.value.reason in Unproven.REASONS
    assert not any(secret in str(caught.value) for secret in SECRETS.values())
    return caught.value.reason


def hexed(secret: str, signed: bytes, algorithm: str = "sha256") -> str:
    return hmac.new(secret.encode(), signed, algorithm).hexdigest()


def stripe(secret: str, stamp: str = STAMP, body: bytes = BODY) -> str:
    return hexed(secret, stamp.encode() + b"." + body)


def test_what_call_webhook_signs_arrives_at_a_webhook_of_ours() -> None:
    headers = signature_headers(SECRETS["env:KEY"], id="firing-1", now=NOW, body=BODY, reference="env:KEY")
    check(STANDARD, headers)
    assert reason(STANDARD, headers, BODY + b" ") == "proof_wrong"
    assert reason(STANDARD, {**headers, "webhook-id": "firing-2"}) == "proof_wrong"
    assert reason(STANDARD, headers, now=NOW + timedelta(minutes=6)) == "clock_skew"


def test_published_vector_of_standard_webhooks_holds() -> None:
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    check(STANDARD, headers, b'{"test": 2432232314}', now=parse_time("2021-02-25T15:02:10Z"))


def test_published_vector_of_slack_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SECRETS, "env:A", "8f742231b10e8888abcd99yyyzzz85a5")
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar"
        b"&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com"
        b"%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121"
        b".803a0bc887a14d10d2c447fce8b6703c"
    )
    headers = {
        "X-Slack-Request-Timestamp": "1531420618",
        "X-Slack-Signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
    }
    check(SLACK, headers, body, now=parse_time("2018-07-12T18:36:58Z"))


def test_signature_that_stripes_library_made_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SECRETS, "env:A", "whsec_test_secret")
    body = b'{"id":"evt_1","object":"event","type":"charge.succeeded","created":1769846400}'
    made = "00b2e8d80c7db589aa290da3bfa46a66f496e71fd2cad80b3c5b165d50d5ce21"  # by stripe 16.1.0, WebhookSignature
    check(STRIPE, {"stripe-signature": f"t=1769846400,v1={made}"}, body)


def test_any_of_several_signatures_and_any_of_several_secrets_matches() -> None:
    wrong = "0" * 64
    for header in (
        f"t={STAMP},v1={stripe('alpha-1')}",
        f"t={STAMP},v1={wrong},v1={stripe('beta-2')}",
        f"v0=old, v1={stripe('beta-2').upper()} ,v1={wrong},t={STAMP}",
    ):
        check(STRIPE, {"stripe-signature": header})
    assert reason(STRIPE, {"stripe-signature": f"t={STAMP},v1={wrong},v1={wrong}"}) == "proof_wrong"
    # what an older scheme signs is none of ours, whatever it is
    assert reason(STRIPE, {"stripe-signature": f"t={STAMP},v0={stripe('alpha-1')}"}) == "proof_malformed"


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ("", "proof_missing"),
        ("v1=", "proof_malformed"),
        (f"v1={'0' * 64}", "proof_malformed"),
        (f"t={STAMP},t={STAMP},v1={stripe('alpha-1')}", "proof_malformed"),
        (f"t=soon,v1={stripe('alpha-1')}", "proof_malformed"),
        (f"t=-1,v1={stripe('alpha-1')}", "proof_malformed"),
        (f"t={'9' * 400},v1={stripe('alpha-1')}", "proof_malformed"),
        (f"t={STAMP}," + ",".join(["v1=0"] * 10_000), "proof_malformed"),
        (f"t={STAMP},v1={stripe('gamma')}", "proof_wrong"),
        (f"t={int(STAMP) - 301},v1={stripe('alpha-1', str(int(STAMP) - 301))}", "clock_skew"),
        (f"t={int(STAMP) + 301},v1={stripe('alpha-1', str(int(STAMP) + 301))}", "clock_skew"),
    ],
)
def test_what_of_a_proof_fails_is_told_apart(header: str, why: str) -> None:
    assert reason(STRIPE, {"stripe-signature": header}) == why


def test_skew_says_how_far_the_clocks_are_apart_and_in_which_direction() -> None:
    late = str(int(STAMP) + 600)
    with pytest.raises(Unproven, match=r"0:10:00 ahead of this clock; at most 0:05:00 are allowed, check both clocks"):
        check(STRIPE, {"stripe-signature": f"t={late},v1={stripe('alpha-1', late)}"})


@pytest.mark.parametrize("name", ["webhook-signature", "webhook-timestamp", "webhook-id"])
def test_header_of_a_proof_that_comes_twice_is_refused(name: str) -> None:
    headers = signature_headers(SECRETS["env:KEY"], id="firing-1", now=NOW, body=BODY, reference="env:KEY")
    assert reason(STANDARD, headers, repeated=f"x-other {name}") == "proof_repeated"
    check(STANDARD, headers, repeated="x-forwarded-for")


@pytest.mark.parametrize(
    ("unit", "text"),
    [("s", STAMP), ("ms", STAMP + "250"), ("iso", "2026-01-31T08:00:00Z"), ("iso", "2026-01-31T09:00:00+01:00")],
)
@pytest.mark.parametrize("place", ["header", "body"])
def test_signed_time_is_read_in_its_unit_from_its_place(unit: str, text: str, place: str) -> None:
    body = b'{"meta": {"sent": "%s"}}' % text.encode()
    where = {"header": "X-At"} if place == "header" else {"body": "meta.sent"}
    how = {
        "type": "hmac",
        "secret": "env:A",
        "header": "X-Sign",
        "timestamp": {**where, "unit": unit},
        "signed": "{timestamp}:{body}",
    }
    headers = {"X-At": text, "X-Sign": hexed("alpha-1", text.encode() + b":" + body)}
    check(how, headers, body)
    assert reason(how, headers, body, now=NOW + timedelta(hours=1)) == "clock_skew"


def test_time_that_a_setting_may_leave_out_is_signed_where_it_is_there() -> None:
    how = {
        "type": "hmac",
        "secret": "env:A",
        "header": "X-Sign",
        "signed": "{timestamp}:{body}",
        "timestamp": {"header": "X-At", "required": False},
    }
    check(how, {"X-Sign": hexed("alpha-1", BODY)})
    check(how, {"X-Sign": hexed("alpha-1", STAMP.encode() + b":" + BODY), "X-At": STAMP})
    assert reason(how, {"X-Sign": hexed("alpha-1", STAMP.encode() + b":" + BODY)}) == "proof_wrong"
    assert reason(how, {"X-Sign": hexed("alpha-1", BODY), "X-At": STAMP}) == "proof_wrong"


def test_secret_that_is_no_key_is_named_and_accepts_nobody() -> None:
    how: Any = {**STANDARD, "secret": "env:BAD"}
    headers = signature_headers(SECRETS["env:KEY"], id="firing-1", now=NOW, body=BODY, reference="env:KEY")
    with pytest.raises(SecretUnreadable) as caught:
        check(how, headers)
    assert "env:BAD is no key: whsec_ and then base64 is expected" in str(caught.value.__cause__)
    verification = HmacVerification.model_validate(how)
    assert unreadable_secrets(verification, resolve_secret=resolve) == {"env:BAD": str(caught.value.__cause__)}
    check({**STANDARD, "secret": ["env:BAD", "env:KEY"]}, headers)


def test_same_request_gives_the_same_text_beside_its_body_and_another_one_another() -> None:
    verification: Any = TypeAdapter(Verification).validate_python(STANDARD)

    def signed(id: str) -> str | None:
        headers = signature_headers(SECRETS["env:KEY"], id=id, now=NOW, body=BODY, reference="env:KEY")
        return verify(Request.of(headers=headers, body=BODY), verification, now=NOW, resolve_secret=resolve)

    assert signed("a") == signed("a") != signed("b")


def test_old_request_is_refused_before_its_body_is_there() -> None:
    verification: Any = TypeAdapter(Verification).validate_python(STRIPE)
    for stamp, refused in ((STAMP, False), ("1000000000", True)):
        request = Request.of(headers={"Stripe-Signature": f"t={stamp},v1={'0' * 64}"})
        if refused:
            with pytest.raises(Unproven, match="check both clocks"):
                verify_head(request, verification, now=NOW, resolve_secret=resolve)
        else:
            verify_head(request, verification, now=NOW, resolve_secret=resolve)


def test_bytes_that_are_no_utf8_in_a_signed_header_are_signed_as_they_came() -> None:
    how = {"type": "hmac", "secret": "env:A", "header": "X-Sign", "encoding": "base64", "signed": "{x-kind}{body}"}
    signature = base64.b64encode(hmac.digest(b"alpha-1", b"gr\xfc\xdfe" + BODY, "sha256")).decode()
    check(how, {"X-Sign": signature, "X-Kind": "grüße"})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"signed": "{timestamp}"}, "name {body} once"),
        ({"signed": "{body}{body}"}, "name {body} once"),
        ({"signed": "{body"}, "a brace has no name"),
        ({"signed": "{}{body}"}, "a brace has no name"),
        ({"signed": "{timestamp}.{body}"}, "say with `timestamp` where it is"),
        ({"signed": "{body}", "timestamp": {"header": "X-At"}}, "must name {timestamp}"),
        ({"timestamp": {"field": "t="}}, "say with `separator`"),
        ({"timestamp": {}}, "say where the time is"),
        ({"timestamp": {"header": "a", "body": "b"}}, "say where the time is"),
        ({"timestamp_header": "X-At", "timestamp": {"header": "X-At"}}, "not both"),
    ],
)
def test_recipe_that_proves_nothing_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        HmacVerification.model_validate({"type": "hmac", "secret": "env:A", "header": "X-Sign", **wrong})


def test_time_in_a_body_that_is_signed_whole_is_checked_once_the_signature_holds() -> None:
    how = {"type": "hmac", "secret": "env:A", "header": "X-Sign", "timestamp": {"body": "sent", "unit": "ms"}}
    body = b'{"sent": %s000}' % STAMP.encode()
    check(how, {"X-Sign": hexed("alpha-1", body)}, body)
    assert reason(how, {"X-Sign": hexed("alpha-1", body)}, body, now=NOW + timedelta(hours=1)) == "clock_skew"
    assert reason(how, {"X-Sign": hexed("gamma", body)}, body) == "proof_wrong"
    for other in (b"{}", b"[]", b"{", b'{"sent": true}', b'{"sent": "soon"}'):
        assert reason(how, {"X-Sign": hexed("alpha-1", other)}, other) == "proof_malformed"
