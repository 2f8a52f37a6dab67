"""Authenticates requests: signatures, tokens and passwords, compared in constant time, on the raw body.

Called by `sources.translator` before anything is decoded. It fails closed: a secret that can not be read, or is empty,
refuses every request. Secrets and expected signatures appear in no message. Meaning: docs/sources.md, "Verification".
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable
from datetime import datetime
from typing import cast

from whenthen.schemas.errors import InvalidInput, SecretUnreadable, Unproven, WhenthenError
from whenthen.schemas.webhooks import (
    BasicVerification,
    BearerVerification,
    HmacVerification,
    JwtVerification,
    ProxyVerification,
    SigningKey,
    SnsVerification,
    TwilioVerification,
    Verification,
)
from whenthen.sources.hmac_signatures import check_signature, check_signature_head, credential, key_of
from whenthen.sources.proofs import (
    PublicKeys,
    certificate_of,
    check_proxy,
    check_sns,
    check_token,
    check_twilio,
    lacks_key,
)
from whenthen.sources.requests import Request

__all__ = [
    "ResolveSecret",
    "is_all_in_head",
    "proof_headers",
    "references",
    "unreadable_secrets",
    "verify",
    "verify_head",
    "wanted_keys",
]

#: the secret that a reference such as `env:NAME` stands for; raises when there is none
ResolveSecret = Callable[[str], str]

_UNREADABLE = (WhenthenError, OSError, LookupError, ValueError)
_PLAIN = SigningKey()
_ALL_IN_HEAD = (BearerVerification, BasicVerification)
TWILIO_HEADER = "X-Twilio-Signature"


def verify(
    request: Request,
    verification: Verification,
    *,
    now: datetime,
    resolve_secret: ResolveSecret,
    keys: PublicKeys | None = None,
) -> str | None:
    """Return if the request is authentic: the time that was signed with its body, as text, where one was.

    Raises:
        Unproven: 401 when credentials are missing or unreadable; 403 when they are wrong or too old, or when no secret can
            be read.
        KeysUnavailable: public `keys` are needed that are not at hand.
    """
    # by type, exactly: `isinstance` of a model costs more than the rest of most verifications
    kind = type(verification)
    if kind is HmacVerification:
        return _verify_hmac(request, cast(HmacVerification, verification), now, resolve_secret)
    if kind is BearerVerification:
        _verify_bearer(request, cast(BearerVerification, verification), resolve_secret)
    elif kind is BasicVerification:
        _verify_basic(request, cast(BasicVerification, verification), resolve_secret)
    else:
        return _verify_otherwise(request, verification, now, resolve_secret, keys or PublicKeys())
    return None


def wanted_keys(request: Request, verification: Verification, *, now: datetime, keys: PublicKeys) -> str | None:
    """The address of public keys that are to be fetched before the request can be verified; None where nothing is.

    Of SNS the body is needed; a request that is none of it needs no keys to be refused.
    """
    if isinstance(verification, JwtVerification):
        how = verification
        wanted = keys.wants(how.keys, now, lacks=lambda document: lacks_key(request, how, document))
        return how.keys if wanted else None
    if isinstance(verification, SnsVerification) and request.body:
        try:
            url = certificate_of(request, verification)
        except Unproven:
            return None
        return url if keys.wants(url, now) else None
    return None


def verify_head(
    request: Request,
    verification: Verification,
    *,
    now: datetime,
    resolve_secret: ResolveSecret,
    keys: PublicKeys | None = None,
) -> None:
    """Return if the headers may be those of an authentic request: a token or password is right, a signature is there.

    Called before the body is read, so that nobody has the server read one without credentials. Raises as `verify`.
    """
    kind = type(verification)
    if kind is HmacVerification:
        check_signature_head(request, cast(HmacVerification, verification), now=now)
    elif kind is TwilioVerification:
        credential(request, TWILIO_HEADER)
    elif kind is not SnsVerification:  # whose proof is all in the body
        verify(request, verification, now=now, resolve_secret=resolve_secret, keys=keys)


def is_all_in_head(verification: Verification) -> bool:
    """Whether `verify_head` sees all of the proof, and none of it depends on the time: a request need not be verified again."""
    return type(verification) in _ALL_IN_HEAD


def references(verification: Verification) -> list[str]:
    """The references to the secrets that it accepts."""
    if isinstance(verification, HmacVerification):
        return verification.secret
    if isinstance(verification, (BearerVerification, TwilioVerification)):
        return verification.token
    return verification.password if isinstance(verification, BasicVerification) else []


def proof_headers(verification: Verification) -> list[str]:
    """The headers that a proof needs, in lower case; none where it is in the body."""
    if isinstance(verification, (HmacVerification, BearerVerification, JwtVerification)):
        return [verification.header.lower()]
    if isinstance(verification, ProxyVerification):
        return [header.lower() for header in verification.headers]
    if isinstance(verification, TwilioVerification):
        return [TWILIO_HEADER.lower()]
    return ["authorization"] if isinstance(verification, BasicVerification) else []


def unreadable_secrets(verification: Verification, *, resolve_secret: ResolveSecret) -> dict[str, str]:
    """Why secrets can not be read, by the reference of each that can not, without any value."""
    found: dict[str, str] = {}
    form = verification.key if isinstance(verification, HmacVerification) else _PLAIN
    for reference in references(verification):
        try:
            secret = resolve_secret(reference).rstrip("\r\n")
            if not secret.strip():
                found[reference] = f"{reference} is blank; give it a value"
            else:
                _key(reference, secret, form)
        except _UNREADABLE as error:
            found[reference] = str(error)
    return found


def _verify_hmac(request: Request, how: HmacVerification, now: datetime, resolve_secret: ResolveSecret) -> str | None:
    def keys() -> list[bytes]:
        return _secrets(how.secret, resolve_secret, how.key)

    return check_signature(request, how, keys=keys, now=now)


def _verify_otherwise(
    request: Request, how: Verification, now: datetime, resolve_secret: ResolveSecret, keys: PublicKeys
) -> str | None:
    if isinstance(how, SnsVerification):
        return check_sns(request, how, keys, now)
    if isinstance(how, JwtVerification):
        check_token(request, how, keys, now)
    elif isinstance(how, TwilioVerification):
        check_twilio(request, how, _secrets(how.token, resolve_secret))
    elif isinstance(how, ProxyVerification):
        check_proxy(request, how)
    else:
        raise TypeError(f"{type(how).__name__} is no verification")
    return None


def _verify_bearer(request: Request, how: BearerVerification, resolve_secret: ResolveSecret) -> None:
    given = credential(request, how.header)
    if how.header.lower() == "authorization":
        scheme, _, given = given.partition(" ")
        given = given.strip()
        if scheme.lower() != "bearer" or not given:
            raise Unproven("proof_malformed", f"header {how.header}: `Bearer <token>` is expected", status=401)
    accepted = False
    for secret in _secrets(how.token, resolve_secret):
        accepted |= hmac.compare_digest(secret, _bytes(given))
    if not accepted:
        raise Unproven("proof_wrong", f"header {how.header}: the token is not accepted")


def _verify_basic(request: Request, how: BasicVerification, resolve_secret: ResolveSecret) -> None:
    scheme, _, encoded = credential(request, "Authorization").partition(" ")
    if scheme.lower() != "basic":
        raise Unproven("proof_malformed", "header Authorization: HTTP basic authentication is expected", status=401)
    try:
        user, colon, password = base64.b64decode(_bytes(encoded.strip()), validate=True).partition(b":")
    except binascii.Error:
        raise Unproven(
            "proof_malformed", "header Authorization: the credentials are not valid base64", status=401
        ) from None
    if not colon:
        raise Unproven("proof_malformed", "header Authorization: `user:password` is expected inside", status=401)
    accepted = False
    for secret in _secrets(how.password, resolve_secret):
        accepted |= hmac.compare_digest(secret, password)
    accepted &= hmac.compare_digest(how.username.encode(), user)
    if not accepted:
        raise Unproven("proof_wrong", "header Authorization: user or password is not accepted")


def _secrets(given: list[str], resolve_secret: ResolveSecret, form: SigningKey = _PLAIN) -> list[bytes]:
    """The secrets that can be read. During a rotation one may be missing; without any, every request is refused."""
    secrets: list[bytes] = []
    cause: Exception | None = None
    for reference in given:
        try:
            secret = resolve_secret(reference).rstrip("\r\n")
            if secret.strip():
                secrets.append(_key(reference, secret, form))
        except _UNREADABLE as error:
            cause = error
    if not secrets:
        raise SecretUnreadable(
            "no secret of this webhook can be read on the server, so no request is accepted", status=403
        ) from cause
    return secrets


def _key(reference: str, secret: str, form: SigningKey) -> bytes:
    try:
        return key_of(secret, form)
    except InvalidInput as error:
        raise InvalidInput(f"{reference} {error.detail}") from None


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")
