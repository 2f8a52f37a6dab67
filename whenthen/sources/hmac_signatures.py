"""Does a signature of the raw body hold? The one recipe that says how nearly all senders sign. Pure.

Called by `sources.verification`. A header may hold several signatures, of which one must match; a time may be signed with the body,
in a header of its own, in that of the signature, or in the body. Meaning: docs/sources.md, "Signatures".
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from whenthen.schemas.errors import InvalidInput, Unproven, WhenthenError
from whenthen.schemas.times import parse_time
from whenthen.schemas.webhooks import SIGNED_PARTS, HmacRecipe, SignedTime, SigningKey
from whenthen.sources.json_bodies import decode_json
from whenthen.sources.labels import dig
from whenthen.sources.requests import Request

__all__ = ["check_signature", "check_signature_head", "credential", "key_of"]

MOST_ITEMS = 32  #: of one header; each signature among them costs a comparison a secret
_MOST_DIGITS = {"s": 11, "ms": 14}


@dataclass(frozen=True, slots=True)
class _Stamp:
    """A signed time as the sender wrote it, where it stands, and what it means in seconds since 1970."""

    text: str
    where: str
    seconds: float


def check_signature(request: Request, how: HmacRecipe, *, keys: Callable[[], list[bytes]], now: datetime) -> str | None:
    """Return if a signature matches: what was signed beside the body, where a time was signed; the same for a repeated request.

    `keys` gives the accepted ones; all of them are compared with every signature, whichever matches.

    Raises:
        Unproven: the signature is missing, malformed, wrong, or too old.
    """
    items = _items(request, how)
    signatures = _signatures(items, how)
    # a time in the body is covered by its signature, and read once that holds
    inside = how.signed is None and how.time is not None and how.time.body is not None
    stamp = None if inside else _stamp(request, how, items, whole=True)
    beside, signed = ("", request.body) if inside else _signed(request, how, stamp)
    accepted = False
    for key in keys():
        digest = hmac.digest(key, signed, how.algorithm)  # in one call, which takes half the time of an object
        expected = digest.hex().encode() if how.encoding == "hex" else base64.b64encode(digest)
        for signature in signatures:
            accepted |= hmac.compare_digest(expected, signature)
    if not accepted:
        raise Unproven(
            "proof_wrong",
            f"header {how.header}: the signature does not match the body; compare the secret on both sides",
        )
    if inside and (stamp := _stamp(request, how, items, whole=True)) is not None:
        beside = stamp.text
    _check_age(stamp, how, now)
    return None if stamp is None else beside


def check_signature_head(request: Request, how: HmacRecipe, *, now: datetime) -> None:
    """Return if the headers may be those of a request whose signature holds; its body is not there yet. Raises as `check_signature`."""
    items = _items(request, how)
    _signatures(items, how)
    _check_age(_stamp(request, how, items, whole=False), how, now)


def key_of(secret: str, form: SigningKey) -> bytes:
    """The key that a secret stands for.

    Raises:
        InvalidInput: it is not encoded as the sender's are; the value is not named.
    """
    text = secret.removeprefix(form.strip)
    if form.decode is None:
        return text.encode()
    try:
        key = base64.b64decode(text, validate=True) if form.decode == "base64" else bytes.fromhex(text)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        before = f"{form.strip} and then " if form.strip else ""
        raise InvalidInput(f"is no key: {before}{form.decode} is expected")
    return key


def credential(request: Request, header: str) -> str:
    """What a header that proves something holds.

    Raises:
        Unproven: it is missing, or there several times, of which others might read another one.
    """
    name = header.lower()
    value = request.headers.get(name, "").strip()
    if not value:
        raise Unproven("proof_missing", f"header {header} is missing", status=401)
    if name in request.repeated:
        raise Unproven("proof_repeated", f"header {header} is there several times; send it once")
    return value


def _items(request: Request, how: HmacRecipe) -> list[str]:
    given = credential(request, how.header)
    if how.separator is None:
        return [given]
    items = given.split(how.separator, MOST_ITEMS)
    if len(items) > MOST_ITEMS:
        raise Unproven("proof_malformed", f"header {how.header}: more than {MOST_ITEMS} items")
    return [item.strip() for item in items]


def _signatures(items: list[str], how: HmacRecipe) -> list[bytes]:
    size = len(how.prefix)
    found = [item[size:] for item in items if item.startswith(how.prefix)]
    if not found:
        raise Unproven("proof_malformed", f"header {how.header}: a signature starts with {how.prefix!r}")
    if how.encoding == "hex":
        found = [signature.lower() for signature in found]
    return [signature.encode("utf-8", "replace") for signature in found]


def _stamp(request: Request, how: HmacRecipe, items: list[str], *, whole: bool) -> _Stamp | None:
    """The signed time; None when none is signed, or when it stands in a body that is not there yet."""
    time = how.time
    if time is None:
        return None
    if time.header is not None:
        where = f"header {time.header}"
        if not time.required and time.header.lower() not in request.headers:
            return None
        return _Stamp(text := credential(request, time.header), where, _seconds(text, time, where))
    if time.field is not None:
        where = f"header {how.header}"
        found = [item[len(time.field) :] for item in items if item.startswith(time.field)]
        if not found and not time.required:
            return None
        if len(found) != 1:
            raise Unproven(
                "proof_malformed", f"{where}: one item that starts with {time.field!r} is expected, found {len(found)}"
            )
        return _Stamp(found[0], where, _seconds(found[0], time, where))
    if not whole:
        return None
    assert time.body is not None
    where = f"body.{time.body}"
    try:
        value = dig(decode_json(request.body), time.body)
    except WhenthenError:
        value = None
    if value is None and not time.required:
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise Unproven("proof_malformed", f"{where}: the signed time is not there")
    return _Stamp(str(value), where, _seconds(str(value), time, where))


def _seconds(text: str, time: SignedTime, where: str) -> float:
    if time.unit == "iso":
        try:
            return parse_time(text[:64]).timestamp()
        except ValueError:
            raise Unproven("proof_malformed", f"{where}: a time such as 2026-01-31T08:00:00Z is expected") from None
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS[time.unit]):
        unit = "seconds" if time.unit == "s" else "milliseconds"
        raise Unproven("proof_malformed", f"{where}: a time in {unit} since 1970 is expected")
    return int(text) / (1 if time.unit == "s" else 1000)


def _signed(request: Request, how: HmacRecipe, stamp: _Stamp | None) -> tuple[str, bytes]:
    """What was signed beside the body, as text, and all that was signed."""
    if how.signed is None:
        if stamp is None:
            return "", request.body
        return stamp.text, stamp.text.encode("utf-8", "replace") + b"." + request.body
    if stamp is None and how.time is not None:  # which may be left out, and then nothing stands around the body
        return "", request.body
    parts: list[bytes] = []
    beside: list[str] = []
    for literal, name in _parts_of(how.signed):
        parts.append(literal)
        if name == "body":
            parts.append(request.body)
        elif name is not None:
            text = stamp.text if name == "timestamp" and stamp is not None else credential(request, name)
            parts.append(text.encode("latin-1", "replace"))
            beside.append(text)
    return ".".join(beside), b"".join(parts)


@lru_cache(maxsize=512)
def _parts_of(signed: str) -> tuple[tuple[bytes, str | None], ...]:
    """The literal parts of `signed`, each with the name that comes after it."""
    pieces = SIGNED_PARTS.split(signed)
    names = [*pieces[1::2], None]
    return tuple((literal.encode(), name) for literal, name in zip(pieces[::2], names, strict=True))


def _check_age(stamp: _Stamp | None, how: HmacRecipe, now: datetime) -> None:
    if stamp is not None and abs(now.timestamp() - stamp.seconds) > how.tolerance.total_seconds():
        raise Unproven(
            "clock_skew",
            f"{stamp.where}: the request is {_age(now, stamp.seconds)}; at most {how.tolerance} are allowed, check both clocks",
        )


def _age(now: datetime, seconds: float) -> str:
    away = timedelta(seconds=round(abs(now.timestamp() - seconds)))
    return f"{away} old" if seconds <= now.timestamp() else f"{away} ahead of this clock"
