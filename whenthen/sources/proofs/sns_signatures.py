"""Is a message of Amazon SNS genuine? Signed with the key of a certificate at Amazon's own host, of a topic that is ours. Pure.

https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import datetime
from typing import Any

from whenthen.schemas.errors import KeysUnavailable, Unproven, WhenthenError
from whenthen.schemas.times import parse_time
from whenthen.schemas.webhooks import SnsVerification
from whenthen.sources.json_bodies import decode_json
from whenthen.sources.proofs.public_keys import PublicKeys
from whenthen.sources.requests import Request

__all__ = ["certificate_of", "check_sns", "confirmation_of"]

_HOST = r"sns\.[a-z0-9-]{2,40}\.amazonaws\.com(?:\.cn)?"
_CERTIFICATE = re.compile(rf"https://{_HOST}/SimpleNotificationService-[0-9a-zA-Z]{{1,64}}\.pem", re.ASCII)
_CONFIRM = re.compile(rf"https://{_HOST}/\?[A-Za-z0-9&=:%._~-]{{1,4096}}", re.ASCII)
_SUBJECT = re.compile(r"sns(?:\.[a-z0-9-]{2,40})?\.amazonaws\.com(?:\.cn)?", re.ASCII)
_OF_NOTIFICATION = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_OF_SUBSCRIPTION = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_SIGNED = {
    "Notification": _OF_NOTIFICATION,
    "SubscriptionConfirmation": _OF_SUBSCRIPTION,
    "UnsubscribeConfirmation": _OF_SUBSCRIPTION,
}
LEAST_BITS = 2048


def certificate_of(request: Request, how: SnsVerification) -> str:
    """The address of the certificate that a message names.

    Raises:
        Unproven: it is no message of SNS, of another topic, or the certificate is not at Amazon's host.
    """
    return str(_message(request, how)["SigningCertURL"])


def check_sns(request: Request, how: SnsVerification, keys: PublicKeys, now: datetime) -> str:
    """Return if the signature holds: the message's id, which a repeated one has again.

    Raises:
        Unproven: it does not, or as `certificate_of`.
        KeysUnavailable: the certificate is not at hand.
    """
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    message = _message(request, how)
    url = message["SigningCertURL"]
    try:
        certificate = x509.load_pem_x509_certificate(keys.get(url, now))
        key = certificate.public_key()
        names = [str(each.value) for each in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
    except ValueError:
        raise KeysUnavailable(f"{url} has no certificate") from None
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < LEAST_BITS or not any(map(_SUBJECT.fullmatch, names)):
        raise Unproven("proof_wrong", f"the certificate at {url} is none of SNS")
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise Unproven("clock_skew", f"the certificate at {url} is not valid now; check the clock")
    digest = hashes.SHA256() if message["SignatureVersion"] == "2" else hashes.SHA1()
    try:
        signature = base64.b64decode(str(message["Signature"]), validate=True)
    except (binascii.Error, ValueError):
        raise Unproven("proof_malformed", "body.Signature: base64 is expected", status=401) from None
    try:
        key.verify(signature, _signed(message), padding.PKCS1v15(), digest)
    except InvalidSignature:
        raise Unproven("proof_wrong", "body.Signature: the signature does not match the message") from None
    try:
        age = now - parse_time(message["Timestamp"])
    except ValueError:
        raise Unproven("proof_malformed", "body.Timestamp: no time", status=401) from None
    if abs(age) > how.max_age:
        raise Unproven("clock_skew", f"body.Timestamp: the message is {age} old; at most {how.max_age} are allowed")
    return str(message["MessageId"])


def confirmation_of(body: Any) -> str | None:
    """Where a subscription is confirmed, of a message that is verified; None for every other message, or at another host."""
    if not isinstance(body, dict) or body.get("Type") != "SubscriptionConfirmation":
        return None
    url = body.get("SubscribeURL")
    return url if isinstance(url, str) and _CONFIRM.fullmatch(url) else None


def _message(request: Request, how: SnsVerification) -> dict[str, Any]:
    try:
        message = decode_json(request.body)
    except WhenthenError:
        message = None
    fields = _SIGNED.get(
        message.get("Type", "") if isinstance(message, dict) and isinstance(message.get("Type"), str) else ""
    )
    if fields is None or not isinstance(message, dict):
        raise Unproven("proof_missing", "body: a message of SNS is expected, with Type and Signature", status=401)
    for field in (*fields, "Signature", "SigningCertURL", "SignatureVersion"):
        value = message.get(field)
        if not isinstance(value, str) and not (field == "Subject" and value is None):
            raise Unproven("proof_malformed", f"body.{field}: text is expected", status=401)
    if message["SignatureVersion"] not in ("1", "2"):
        raise Unproven("proof_malformed", "body.SignatureVersion: 1 or 2 is expected", status=401)
    if message["TopicArn"] not in how.topics:
        raise Unproven(
            "proof_wrong", f"body.TopicArn: {message['TopicArn'][:300]!r} is none of this webhook's `topics`"
        )
    if not _CERTIFICATE.fullmatch(message["SigningCertURL"]):
        raise Unproven("proof_wrong", "body.SigningCertURL: it is not at https://sns.<region>.amazonaws.com/")
    return message


def _signed(message: dict[str, Any]) -> bytes:
    parts = [(field, message[field]) for field in _SIGNED[message["Type"]] if message.get(field) is not None]
    return "".join(f"{field}\n{value}\n" for field, value in parts).encode("utf-8", "replace")
