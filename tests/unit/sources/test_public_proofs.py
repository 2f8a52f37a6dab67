"""Proofs by certificates, tokens, Twilio's forms and a proxy's headers: made here with real keys, and refused when anything differs."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from jwt.algorithms import RSAAlgorithm
from multidict import MultiDict
from twilio.request_validator import RequestValidator

from whenthen.schemas.errors import InvalidInput, KeysUnavailable, Unproven
from whenthen.schemas.webhooks import Webhook
from whenthen.sources import PublicKeys, Request, WebhookTranslator
from whenthen.sources.proofs import public_keys

NOW = datetime(2026, 1, 31, 8, 0, 30, tzinfo=UTC)
TOPIC = "arn:aws:sns:eu-west-1:123456789012:alarms"
CERTIFICATE = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-7506a1e35b36ef5a444dd1a8e7cc3ed8.pem"
KEYS = "https://keys.example.com/certs"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def translator(keys: PublicKeys | None = None, **fields: Any) -> WebhookTranslator:
    webhook = Webhook.model_validate({"name": "hook", **fields})
    secrets = {"env:TOKEN": "12345", "env:OTHER": "67890"}
    return WebhookTranslator(webhook, resolve_secret=secrets.__getitem__, keys=keys)


def refusal(hook: WebhookTranslator, request: Request, now: datetime = NOW) -> Unproven:
    def whole() -> None:
        hook.check_head(request, now)
        hook.translate(request, now)

    with pytest.raises(Unproven) as caught:
        whole()
    return caught.value


# -- SNS


def certificate(
    key: rsa.RSAPrivateKey = KEY, *, name: str = "sns.amazonaws.com", begins: datetime = NOW - timedelta(days=1)
) -> bytes:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


def sns_message(kind: str = "Notification", *, version: str = "2", **fields: Any) -> dict[str, Any]:
    message: dict[str, Any] = {
        "Type": kind,
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": TOPIC,
        "Message": "Hello world!",
        "Timestamp": "2026-01-31T08:00:00.123Z",
        "SignatureVersion": version,
        "SigningCertURL": CERTIFICATE,
    }
    if kind != "Notification":
        message |= {
            "Token": "2336412f37",
            "SubscribeURL": f"https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=2336412f37",
        }
    message |= fields
    names = ["Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    signed = "".join(f"{name}\n{message[name]}\n" for name in names if name in message)
    digest = hashes.SHA256() if version == "2" else hashes.SHA1()
    message["Signature"] = base64.b64encode(KEY.sign(signed.encode(), padding.PKCS1v15(), digest)).decode()
    return message


def sns_request(message: dict[str, Any]) -> Request:
    headers = {"content-type": "text/plain; charset=UTF-8", "x-amz-sns-message-type": str(message["Type"])}
    return Request.of(headers=headers, body=json.dumps(message).encode())


def sns_hook(document: bytes | None = None, **fields: Any) -> WebhookTranslator:
    keys = PublicKeys()
    hook = translator(keys, **{"preset": "aws-sns", "verify": {"type": "sns", "topics": TOPIC}, **fields})
    keys.put(CERTIFICATE, certificate() if document is None else document, NOW)
    return hook


@pytest.mark.parametrize("version", ["1", "2"])
def test_message_of_sns_is_taken_and_repeated_it_is_the_same_event(version: str) -> None:
    request = sns_request(sns_message(version=version, Subject="hi"))
    first, again = (sns_hook().translate(request, NOW + timedelta(seconds=s)).events for s in (0, 9))
    assert [event.name for event in first] == ["sns.Notification"]
    assert first[0].resource["subject"] == "hi"
    assert first[0].id == again[0].id


@pytest.mark.parametrize("field", ["Message", "MessageId", "Timestamp", "Subject"])
def test_message_of_sns_that_was_changed_is_refused(field: str) -> None:
    changed = sns_message(Subject="hi")
    changed[field] = changed[field][:-1] + ("x" if field != "Timestamp" else "+00:00")
    assert refusal(sns_hook(), sns_request(changed)).reason == "proof_wrong"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"TopicArn": TOPIC.replace("alarms", "others")}, "proof_wrong"),
        ({"SigningCertURL": CERTIFICATE.replace("amazonaws.com", "amazonaws.com.evil.example")}, "proof_wrong"),
        ({"SigningCertURL": CERTIFICATE.replace("https", "http")}, "proof_wrong"),
        ({"SigningCertURL": CERTIFICATE.replace("sns.", "x@sns.")}, "proof_wrong"),
        ({"SigningCertURL": CERTIFICATE.replace("/Simple", "/../Simple")}, "proof_wrong"),
        ({"SigningCertURL": CERTIFICATE + "\n"}, "proof_wrong"),
        ({"SigningCertURL": "https://s3.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem"}, "proof_wrong"),
        ({"SigningCertURL": 5}, "proof_malformed"),
        ({"SignatureVersion": "3"}, "proof_malformed"),
        ({"Timestamp": "2026-01-31T05:00:00Z"}, "clock_skew"),
        ({"Timestamp": "2026-01-31T10:00:00Z"}, "clock_skew"),
        ({"Timestamp": "soon"}, "proof_malformed"),
        ({"Type": "Other"}, "proof_missing"),
    ],
)
def test_message_of_sns_that_is_not_ours_is_refused(fields: dict[str, Any], reason: str) -> None:
    assert refusal(sns_hook(), sns_request(sns_message(**fields))).reason == reason


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"5", b'{"Type": []}', b"{}"])
def test_body_that_is_no_message_of_sns_is_refused_and_nothing_is_fetched_for_it(body: bytes) -> None:
    request = Request.of(body=body)
    assert refusal(sns_hook(), request).reason == "proof_missing"
    assert sns_hook().wanted_keys(request, NOW) is None


@pytest.mark.parametrize(
    ("document", "error"),
    [
        (certificate(OTHER_KEY), "does not match"),
        (certificate(name="sns.amazonaws.com.evil.example"), "none of SNS"),
        (certificate(begins=NOW + timedelta(days=1)), "not valid now"),
        (certificate(begins=NOW - timedelta(days=60)), "not valid now"),
    ],
)
def test_certificate_of_another_is_refused(document: bytes, error: str) -> None:
    assert error in str(refusal(sns_hook(document), sns_request(sns_message())))


def test_certificate_that_can_not_be_read_refuses_nothing_for_good() -> None:
    request = sns_request(sns_message())
    with pytest.raises(KeysUnavailable):
        sns_hook(b"no certificate").translate(request, NOW)
    hook = translator(preset="aws-sns", verify={"type": "sns", "topics": TOPIC})
    assert hook.wanted_keys(request, NOW) == CERTIFICATE
    hook.put_keys(CERTIFICATE, None, NOW)
    with pytest.raises(KeysUnavailable, match="again later"):
        hook.translate(request, NOW)
    assert hook.wanted_keys(request, NOW + timedelta(seconds=10)) is None
    assert hook.wanted_keys(request, NOW + timedelta(seconds=40)) == CERTIFICATE


@pytest.mark.parametrize("confirm", [False, True])
def test_subscription_is_confirmed_only_when_that_is_asked_for(confirm: bool) -> None:
    hook = sns_hook(verify={"type": "sns", "topics": TOPIC, "confirm": confirm})
    found = hook.translate(sns_request(sns_message("SubscriptionConfirmation")), NOW)
    assert found.events == []
    assert found.confirms is confirm
    assert str(found.confirm).startswith("https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription")
    elsewhere = sns_message("SubscriptionConfirmation", SubscribeURL="https://evil.example/?Action=ConfirmSubscription")
    with pytest.raises(InvalidInput, match=r"body\.SubscribeURL"):
        hook.translate(sns_request(elsewhere), NOW)


def test_body_of_another_sender_inside_sns_is_read_by_its_preset() -> None:
    inside = {"action": "opened", "repository": {"full_name": "a/b"}, "issue": {"number": 7}}
    message = sns_message(Message=json.dumps(inside))
    message["MessageAttributes"] = {"X-GitHub-Event": {"Type": "String", "Value": "issues"}}
    hook = sns_hook(preset="github", envelope="sns")
    first, again = (hook.translate(sns_request(message), NOW + timedelta(seconds=s)).events for s in (0, 9))
    assert [event.name for event in first] == ["github.issues.opened"]
    assert first[0].resource["repository"] == "a/b"
    assert [event.id for event in first] == [event.id for event in again]
    dropped = hook.translate(sns_request(sns_message("UnsubscribeConfirmation")), NOW).dropped
    assert dropped == ["SNS UnsubscribeConfirmation: it carries no event"]


def test_text_inside_sns_is_read_by_a_mapping() -> None:
    mapping = {"event": "note", "resource": {"id": "n"}, "payload": "$.body"}
    hook = translator(verify="none", map=mapping, envelope="sns")
    [event] = hook.translate(sns_request(sns_message()), NOW).events
    assert event.payload == "Hello world!"


# -- tokens


def key_set(*keys: tuple[str, rsa.RSAPrivateKey]) -> bytes:
    return json.dumps(
        {
            "keys": [
                {**json.loads(RSAAlgorithm.to_jwk(key.public_key())), "kid": name, "use": "sig", "alg": "RS256"}
                for name, key in keys
            ]
        }
    ).encode()


CLAIMS = {
    "iss": "https://accounts.google.com",
    "aud": "https://events.example.com/hooks/hook",
    "email": "push@p.iam.gserviceaccount.com",
    "email_verified": True,
    "exp": int(NOW.timestamp()) + 3600,
    "iat": int(NOW.timestamp()) - 5,
}
JWT = {
    "type": "jwt",
    "keys": KEYS,
    "issuer": ["https://accounts.google.com", "accounts.google.com"],
    "audience": "https://events.example.com/hooks/hook",
    "claims": {"email": "push@p.iam.gserviceaccount.com", "email_verified": "true"},
}


def pubsub_request(
    claims: dict[str, Any] | None = None,
    *,
    key: Any = KEY,
    kid: str = "one",
    algorithm: str = "RS256",
    token: str | None = None,
    inside: bytes = b"{}",
    attributes: dict[str, str] | None = None,
) -> Request:
    made = token or jwt.encode({**CLAIMS, **(claims or {})}, key, algorithm=algorithm, headers={"kid": kid})
    message = {"data": base64.b64encode(inside).decode(), "messageId": "77", "attributes": attributes or {}}
    body = {"message": message, "subscription": "projects/p/subscriptions/s"}
    return Request.of(
        headers={"authorization": f"Bearer {made}", "content-type": "application/json"}, body=json.dumps(body).encode()
    )


def jwt_hook(**fields: Any) -> WebhookTranslator:
    keys = PublicKeys()
    keys.put(KEYS, key_set(("one", KEY)), NOW)
    return translator(keys, **{"preset": "google-pubsub", "verify": JWT, **fields})


def test_token_of_the_audience_and_sender_is_taken() -> None:
    [event] = jwt_hook().translate(pubsub_request(), NOW).events
    assert (event.name, event.id) == ("pubsub.projects.p.subscriptions.s", "hook/77")


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"aud": "https://events.example.com/hooks/other"}, "proof_wrong"),
        ({"iss": "https://evil.example"}, "proof_wrong"),
        ({"email": "other@p.iam.gserviceaccount.com"}, "proof_wrong"),
        ({"email_verified": False}, "proof_wrong"),
        ({"exp": int(NOW.timestamp()) - 3600}, "clock_skew"),
        ({"iat": int(NOW.timestamp()) + 3600}, "clock_skew"),
        ({"nbf": int(NOW.timestamp()) + 3600}, "clock_skew"),
        ({"exp": "soon"}, "proof_malformed"),
    ],
)
def test_token_for_another_is_refused(claims: dict[str, Any], reason: str) -> None:
    token = jwt.encode({**CLAIMS, **claims}, KEY, algorithm="RS256", headers={"kid": "one"})
    assert refusal(jwt_hook(), pubsub_request(token=token)).reason == reason


def test_token_of_another_key_or_none_is_refused() -> None:
    hook = jwt_hook()
    assert refusal(hook, pubsub_request(key=OTHER_KEY)).reason == "proof_wrong"
    assert refusal(hook, pubsub_request(kid="two")).reason == "proof_wrong"
    assert refusal(hook, pubsub_request(token="x.y.z")).reason == "proof_malformed"
    assert refusal(hook, pubsub_request(token="x" * 20_000)).reason == "proof_malformed"
    unsigned = jwt.encode(CLAIMS, "", algorithm="none", headers={"kid": "one"})
    assert refusal(hook, pubsub_request(token=unsigned)).reason == "proof_malformed"
    public = KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    head, claims = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in
                    ({"alg": "HS256", "kid": "one"}, CLAIMS))  # fmt: skip
    mark = base64.urlsafe_b64encode(hmac.digest(public, head + b"." + claims, "sha256")).rstrip(b"=")
    symmetric = b".".join((head, claims, mark)).decode()
    assert refusal(hook, pubsub_request(token=symmetric)).reason == "proof_malformed"
    bare = pubsub_request()
    bare.headers = {"content-type": "application/json"}
    assert refusal(hook, bare).reason == "proof_missing"


def test_set_of_keys_is_fetched_again_when_a_token_names_a_new_one_at_most_once_a_minute() -> None:
    hook = jwt_hook()
    rotated = pubsub_request(key=OTHER_KEY, kid="two")
    assert hook.wanted_keys(rotated, NOW + timedelta(seconds=30)) is None
    later = NOW + timedelta(seconds=90)
    assert hook.wanted_keys(pubsub_request(), later) is None
    assert hook.wanted_keys(rotated, later) == KEYS
    hook.put_keys(KEYS, key_set(("one", KEY), ("two", OTHER_KEY)), later)
    assert hook.translate(rotated, later).events
    assert hook.wanted_keys(pubsub_request(), NOW + timedelta(hours=2)) == KEYS


def test_keys_that_can_not_be_fetched_anew_count_for_another_hour() -> None:
    hook = jwt_hook()
    later = NOW + timedelta(minutes=90)
    hook.put_keys(KEYS, None, later)
    token = pubsub_request({"exp": int(later.timestamp()) + 60})
    assert hook.translate(token, later).events
    with pytest.raises(KeysUnavailable):
        hook.translate(pubsub_request({"exp": int(later.timestamp()) + 9000}), NOW + timedelta(hours=3))


def test_requests_that_prove_nothing_make_few_fetches_and_keep_few_keys() -> None:
    keys = PublicKeys()
    asked = [keys.wants(f"{KEYS}/{number}", NOW) for number in range(1000)]
    assert sum(asked) == public_keys.MOST_FETCHES
    for number in range(1000):
        keys.put(f"{KEYS}/{number}", b"x", NOW)
    assert len(keys._kept) == public_keys.MOST


def test_body_of_another_sender_inside_pubsub_is_read_by_its_preset() -> None:
    inside = json.dumps({"type": "charge.failed", "id": "evt_1", "object": "event", "data": {"object": {"id": "ch_1"}}})
    hook = jwt_hook(preset="stripe", envelope="pubsub")
    [event] = hook.translate(pubsub_request(inside=inside.encode()), NOW).events
    assert (event.name, event.id) == ("stripe.charge.failed", "hook/evt_1")
    broken = pubsub_request()
    broken.body = b'{"message": {"data": "!"}}'
    with pytest.raises(InvalidInput, match=r"body\.message\.data: base64"):
        hook.translate(broken, NOW)


# -- Twilio

URL = "https://mycompany.com/myapp.php"
FORM = {
    "CallSid": "CA1234567890ABCDE",
    "Caller": "+14158675309",
    "Digits": "1234",
    "From": "+14158675309",
    "To": "+18005551212",
}


def twilio_hook(token: Any = "env:TOKEN") -> WebhookTranslator:
    mapping = {"event": "call", "resource": {"id": "x"}}
    return translator(map=mapping, verify={"type": "twilio", "token": token, "url": URL})


def twilio_request(
    signature: str, body: bytes, query: str = "foo=1&bar=2", kind: str = "application/x-www-form-urlencoded"
) -> Request:
    pairs = dict(part.split("=") for part in query.split("&")) if query else {}
    request = Request.of(headers={"X-Twilio-Signature": signature, "content-type": kind}, query=pairs, body=body)
    request.raw_query = query
    return request


def test_signature_of_twilios_documentation_and_of_its_library_is_taken() -> None:
    request = twilio_request("RSOYDt4T1cUTdK1PDd93/VVr8B8=", urlencode(FORM).encode())
    assert twilio_hook().translate(request, NOW).events
    assert twilio_hook(["env:OTHER", "env:TOKEN"]).translate(request, NOW).events
    fields = MultiDict([("B", "2"), ("B", "1"), ("B", "1"), ("A", ""), ("ü", "ß &")])
    made = RequestValidator("12345").compute_signature(f"{URL}?a=b", fields)
    body = urlencode(list(fields.items())).encode()
    assert twilio_hook().translate(twilio_request(made, body, "a=b"), NOW).events


def test_request_of_twilio_that_differs_is_refused() -> None:
    good = "RSOYDt4T1cUTdK1PDd93/VVr8B8="
    body = urlencode(FORM).encode()
    hook = twilio_hook()
    assert refusal(hook, twilio_request(good, body + b"&x=1")).reason == "proof_wrong"
    assert refusal(hook, twilio_request(good, body, "foo=1&bar=3")).reason == "proof_wrong"
    assert refusal(hook, twilio_request(good[:-1], body)).reason == "proof_wrong"
    assert refusal(twilio_hook("env:OTHER"), twilio_request(good, body)).reason == "proof_wrong"
    bare = twilio_request(good, body)
    bare.headers = {"content-type": "application/x-www-form-urlencoded"}
    assert refusal(hook, bare).reason == "proof_missing"
    doubled = twilio_request(good, body)
    doubled.repeated = frozenset({"x-twilio-signature"})
    assert refusal(hook, doubled).reason == "proof_repeated"


def test_json_of_twilio_is_covered_by_the_digest_in_its_address_alone() -> None:
    body = b'{"a": 1}'
    query = "bodySHA256=" + hashlib.sha256(body).hexdigest()
    text = f"{URL}?{query}".encode()
    made = base64.b64encode(hmac.new(b"12345", text, hashlib.sha1).digest()).decode()
    hook = twilio_hook()
    assert hook.translate(twilio_request(made, body, query, "application/json"), NOW).events
    assert refusal(hook, twilio_request(made, b'{"a": 2}', query, "application/json")).reason == "proof_wrong"
    uncovered = base64.b64encode(hmac.new(b"12345", URL.encode(), hashlib.sha1).digest()).decode()
    assert refusal(hook, twilio_request(uncovered, body, "", "application/json")).reason == "proof_missing"


# -- headers of a proxy


@pytest.fixture
def proxied() -> Callable[..., tuple[WebhookTranslator, Request]]:
    def make(**headers: str) -> tuple[WebhookTranslator, Request]:
        verify = {"type": "proxy", "headers": {"X-Verify": "SUCCESS", "X-Subject": ["CN=a", "CN=b"]}}
        hook = translator(map={"event": "x", "resource": {"id": "x"}}, verify=verify)
        request = Request.of(headers={name.replace("_", "-"): value for name, value in headers.items()}, body=b"{}")
        request.from_proxy = True
        return hook, request

    return make


def test_headers_of_a_trusted_proxy_prove_a_request(proxied: Any) -> None:
    hook, request = proxied(x_verify="SUCCESS", x_subject="CN=b")
    hook.check_head(request, NOW)
    assert hook.translate(request, NOW).events
    request.from_proxy = False
    assert "trusted_proxies" in str(refusal(hook, request))


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"x_verify": "SUCCESS"}, "proof_missing"),
        ({"x_verify": "NONE", "x_subject": "CN=a"}, "proof_wrong"),
        ({"x_verify": "SUCCESS", "x_subject": "CN=a,O=x"}, "proof_wrong"),
    ],
)
def test_other_headers_of_a_proxy_are_refused(proxied: Any, headers: dict[str, str], reason: str) -> None:
    hook, request = proxied(**headers)
    assert refusal(hook, request).reason == reason


@pytest.mark.parametrize(
    "verify",
    [
        {"type": "sns", "topics": []},
        {"type": "sns", "topics": ["alarms"]},
        {"type": "jwt", "keys": "http://keys.example.com", "issuer": "a", "audience": "b"},
        {"type": "jwt", "keys": KEYS, "issuer": "a"},
        {"type": "twilio", "token": "env:TOKEN", "url": f"{URL}?a=b"},
        {"type": "proxy", "headers": {}},
    ],
)
def test_proof_that_would_prove_nothing_is_refused_in_the_rules(verify: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="verify"):
        translator(preset="aws-sns", verify=verify)


def test_proof_without_its_libraries_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public_keys, "find_spec", lambda name: None)
    with pytest.raises(InvalidInput, match=r"whenthen\[signatures\]"):
        translator(preset="aws-sns", verify={"type": "sns", "topics": TOPIC})
