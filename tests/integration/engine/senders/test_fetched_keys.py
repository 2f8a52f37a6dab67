"""Certificates of SNS and keys of Google, fetched over https from a server whose authority is a test's own."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from jwt.algorithms import RSAAlgorithm

from tests.integration.authority import Authority, Documents, documents
from tests.integration.sources.reading import reading
from tests.patience import until

pytestmark = pytest.mark.anyio

TOPIC = "arn:aws:sns:eu-west-1:123456789012:alarms"
SNS = "sns.eu-west-1.amazonaws.com"
GOOGLE = "www.googleapis.com"
CERTIFICATE = "/SimpleNotificationService-7506a1e35b36ef5a444dd1a8e7cc3ed8.pem"
KEYS = "/oauth2/v3/certs"
CONFIRM = f"/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=2336412f37"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
RULES = f"""
webhooks:
  - {{name: silent, preset: aws-sns, verify: {{type: sns, topics: "{TOPIC}"}}}}
  - {{name: confirming, preset: aws-sns, verify: {{type: sns, topics: "{TOPIC}", confirm: true}}}}
  - name: pubsub
    preset: google-pubsub
    verify:
      type: jwt
      keys: https://{GOOGLE}{KEYS}
      issuer: https://accounts.google.com
      audience: https://events.example.com/hooks/pubsub
"""


def certificate() -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sns.amazonaws.com")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(KEY, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


def keys() -> bytes:
    ours = {**json.loads(RSAAlgorithm.to_jwk(KEY.public_key())), "kid": "one", "use": "sig", "alg": "RS256"}
    return json.dumps({"keys": [ours]}).encode()


def message(kind: str = "Notification") -> dict[str, Any]:
    found = {
        "Type": kind,
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": TOPIC,
        "Message": "Hello world!",
        "Timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "SignatureVersion": "2",
        "SigningCertURL": f"https://{SNS}{CERTIFICATE}",
    }
    if kind != "Notification":
        found |= {"Token": "2336412f37", "SubscribeURL": f"https://{SNS}{CONFIRM}"}
    names = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    signed = "".join(f"{name}\n{found[name]}\n" for name in names if name in found).encode()
    found["Signature"] = base64.b64encode(KEY.sign(signed, padding.PKCS1v15(), hashes.SHA256())).decode()
    return found


async def push(client: httpx.AsyncClient) -> httpx.Response:
    now = datetime.now(UTC).timestamp()
    claims = {
        "iss": "https://accounts.google.com",
        "aud": "https://events.example.com/hooks/pubsub",
        "iat": int(now) - 5,
        "exp": int(now) + 600,
    }
    token = jwt.encode(claims, KEY, algorithm="RS256", headers={"kid": "one"})
    body = {
        "message": {"data": "e30=", "messageId": "77", "attributes": {}},
        "subscription": "projects/p/subscriptions/s",
    }
    return await client.post("/hooks/pubsub", json=body, headers={"Authorization": f"Bearer {token}"})


def lead_there(monkeypatch: pytest.MonkeyPatch, trusted: Authority, server: Documents) -> None:
    """Have the names of Amazon and Google lead to the server, and the authority be trusted as a machine trusts one of its own."""
    connect = anyio.connect_tcp

    async def there(remote_host: str, remote_port: int, **options: Any) -> Any:
        if remote_host in (SNS, GOOGLE):
            assert remote_port == 443
            remote_host, remote_port = "127.0.0.1", server.port
        return await connect(remote_host, remote_port, **options)

    monkeypatch.setattr(anyio, "connect_tcp", there)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted.ca))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


async def test_keys_are_fetched_once_and_a_subscription_is_confirmed_only_when_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "authority")
    held = {CERTIFICATE: certificate(), KEYS: keys(), "/": b"<ConfirmSubscriptionResponse/>"}
    async with documents(authority.server(SNS, GOOGLE), held) as server:
        lead_there(monkeypatch, authority, server)
        async with reading(tmp_path, RULES) as here:
            for hook in ("silent", "confirming"):
                asked = await here.client.post(f"/hooks/{hook}", json=message("SubscriptionConfirmation"))
                assert asked.status_code == 200, asked.text
                assert (await here.client.post(f"/hooks/{hook}", json=message())).status_code == 202
            assert (await push(here.client)).status_code == 202

            async def confirmed() -> bool:
                return f"https://{SNS}{CONFIRM}" in server.asked

            await until(confirmed)
    assert sorted(server.asked) == sorted(
        f"https://{each}" for each in (f"{SNS}{CERTIFICATE}", f"{SNS}{CONFIRM}", f"{GOOGLE}{KEYS}")
    )


async def test_a_server_of_another_authority_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    async with documents(theirs.server(SNS, GOOGLE), {CERTIFICATE: certificate(), KEYS: keys()}) as server:
        lead_there(monkeypatch, ours, server)
        async with reading(tmp_path, RULES) as here:
            refused = await here.client.post("/hooks/silent", json=message())
            assert refused.status_code == 503
            assert "can not be read at the moment; send it again later" in refused.text
            assert (await push(here.client)).status_code == 503
    assert server.asked == []


async def test_a_server_of_another_name_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path / "authority")
    async with documents(authority.server("evil.example"), {CERTIFICATE: certificate()}) as server:
        lead_there(monkeypatch, authority, server)
        async with reading(tmp_path, RULES) as here:
            assert (await here.client.post("/hooks/silent", json=message())).status_code == 503
    assert server.asked == []
