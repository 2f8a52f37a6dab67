"""Authenticates requests: signatures, tokens and passwords, compared in constant time, on the raw body.

Called by `sources.translator` before anything is decoded. It fails closed: a secret that can not be read, or is empty,
refuses every request. Secrets and expected signatures appear in no message. Meaning: docs/sources.md, "Verification".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import cast

from whenthen.schemas.errors import Refused, SecretUnreadable, WhenthenError
from whenthen.schemas.webhooks import (
    BasicVerification,
    BearerVerification,
    HmacVerification,
    Verification,
)
from whenthen.sources.requests import Request

__all__ = ["ResolveSecret", "references", "unreadable_secrets", "verify", "verify_head"]

#: the secret that a reference such as `env:NAME` stands for; raises when there is none
ResolveSecret = Callable[[str], str]

_UNREADABLE = (WhenthenError, OSError, LookupError, ValueError)
_SECONDS = re.compile(r"[0-9]{1,11}", re.ASCII)


def verify(request: Request, verification: Verification, *, now: datetime, resolve_secret: ResolveSecret) -> str | None:
    """Return if the request is authentic: the time that was signed with its body, as text, where one was.

    Raises:
        Refused: 401 when credentials are missing or unreadable; 403 when they are wrong or too old, or when no secret can
            be read.
    """
    # by type, exactly: `isinstance` of a model costs more than the rest of most verifications
    kind = type(verification)
    if kind is HmacVerification:
        return _verify_hmac(request, cast(HmacVerification, verification), now, resolve_secret)
    if kind is BearerVerification:
        _verify_bearer(request, cast(BearerVerification, verification), resolve_secret)
    else:
        _verify_basic(request, cast(BasicVerification, verification), resolve_secret)
    return None


def verify_head(request: Request, verification: Verification, *, now: datetime, resolve_secret: ResolveSecret) -> None:
    """Return if the headers may be those of an authentic request: a token or password is right, a signature is there.

    Called before the body is read, so that nobody has the server read one without credentials. Raises as `verify`.
    """
    if type(verification) is HmacVerification:
        _, _, stamp = _signature(request, verification)
        _check_age(stamp, verification, now)
    else:
        verify(request, verification, now=now, resolve_secret=resolve_secret)


def references(verification: Verification) -> list[str]:
    """The references to the secrets that it accepts."""
    if isinstance(verification, HmacVerification):
        return verification.secret
    return verification.token if isinstance(verification, BearerVerification) else verification.password


def unreadable_secrets(verification: Verification, *, resolve_secret: ResolveSecret) -> list[str]:
    """Why secrets can not be read, one text for each that can not, without any value."""
    found = []
    for reference in references(verification):
        try:
            blank = not resolve_secret(reference).strip()
        except _UNREADABLE as error:
            found.append(str(error))
        else:
            if blank:
                found.append(f"{reference} is blank; give it a value")
    return found


def _signature(request: Request, how: HmacVerification) -> tuple[str, str, int | None]:
    """The signature without its prefix, the text of its time, and that as seconds since 1970."""
    given = _credential(request, how.header)
    text, stamp = "", None
    if how.timestamp_header is not None:
        text = _credential(request, how.timestamp_header)
        if not _SECONDS.fullmatch(text):
            raise Refused(f"header {how.timestamp_header}: a time in seconds since 1970 is expected", status=403)
        stamp = int(text)
    if not given.startswith(how.prefix):
        raise Refused(f"header {how.header}: the signature starts with {how.prefix!r}", status=403)
    return given[len(how.prefix) :], text, stamp


def _verify_hmac(request: Request, how: HmacVerification, now: datetime, resolve_secret: ResolveSecret) -> str | None:
    signature, text, stamp = _signature(request, how)
    signed = request.body if stamp is None else text.encode() + b"." + request.body
    if how.encoding == "hex":
        signature = signature.lower()
    accepted = False
    for secret in _secrets(how.secret, resolve_secret):
        digest = hmac.new(secret, signed, getattr(hashlib, how.algorithm)).digest()
        expected = digest.hex().encode() if how.encoding == "hex" else base64.b64encode(digest)
        accepted |= hmac.compare_digest(expected, _bytes(signature))
    if not accepted:
        raise Refused(
            f"header {how.header}: the signature does not match the body; compare the secret on both sides", status=403
        )
    _check_age(stamp, how, now)
    return None if stamp is None else text


def _check_age(stamp: int | None, how: HmacVerification, now: datetime) -> None:
    if stamp is not None and abs(now.timestamp() - stamp) > how.tolerance.total_seconds():
        raise Refused(
            f"header {how.timestamp_header}: the request is {_age(now, stamp)}; at most {how.tolerance} are allowed,"
            " check both clocks",
            status=403,
        )


def _verify_bearer(request: Request, how: BearerVerification, resolve_secret: ResolveSecret) -> None:
    given = _credential(request, how.header)
    if how.header.lower() == "authorization":
        scheme, _, given = given.partition(" ")
        given = given.strip()
        if scheme.lower() != "bearer" or not given:
            raise Refused(f"header {how.header}: `Bearer <token>` is expected", status=401)
    accepted = False
    for secret in _secrets(how.token, resolve_secret):
        accepted |= hmac.compare_digest(secret, _bytes(given))
    if not accepted:
        raise Refused(f"header {how.header}: the token is not accepted", status=403)


def _verify_basic(request: Request, how: BasicVerification, resolve_secret: ResolveSecret) -> None:
    scheme, _, encoded = _credential(request, "Authorization").partition(" ")
    if scheme.lower() != "basic":
        raise Refused("header Authorization: HTTP basic authentication is expected", status=401)
    try:
        user, colon, password = base64.b64decode(_bytes(encoded.strip()), validate=True).partition(b":")
    except binascii.Error:
        raise Refused("header Authorization: the credentials are not valid base64", status=401) from None
    if not colon:
        raise Refused("header Authorization: `user:password` is expected inside", status=401)
    accepted = False
    for secret in _secrets(how.password, resolve_secret):
        accepted |= hmac.compare_digest(secret, password)
    accepted &= hmac.compare_digest(how.username.encode(), user)
    if not accepted:
        raise Refused("header Authorization: user or password is not accepted", status=403)


def _credential(request: Request, header: str) -> str:
    value = request.headers.get(header.lower(), "").strip()
    if not value:
        raise Refused(f"header {header} is missing", status=401)
    return value


def _secrets(given: list[str], resolve_secret: ResolveSecret) -> list[bytes]:
    """The secrets that can be read. During a rotation one may be missing; without any, every request is refused."""
    secrets: list[bytes] = []
    cause: Exception | None = None
    for reference in given:
        try:
            secret = resolve_secret(reference).rstrip("\r\n")
        except _UNREADABLE as error:
            cause = error
            continue
        if secret.strip():
            secrets.append(secret.encode())
    if not secrets:
        raise SecretUnreadable(
            "no secret of this webhook can be read on the server, so no request is accepted", status=403
        ) from cause
    return secrets


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _age(now: datetime, stamp: int) -> str:
    away = timedelta(seconds=round(abs(now.timestamp() - stamp)))
    return f"{away} old" if stamp <= now.timestamp() else f"{away} ahead of this clock"
