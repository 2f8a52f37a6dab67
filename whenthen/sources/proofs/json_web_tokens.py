"""Does a token (JWT) prove the sender? A key of a public set has signed it, for this audience and by this issuer. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import orjson

from whenthen.schemas.errors import KeysUnavailable, Unproven
from whenthen.schemas.webhooks import JwtVerification
from whenthen.sources.hmac_signatures import credential
from whenthen.sources.proofs.public_keys import PublicKeys
from whenthen.sources.requests import Request

__all__ = ["check_token", "lacks_key"]

MOST_CHARS = 16_384  #: of a token
#: with a public key alone: a symmetric one would let whoever reads the set sign
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")


def check_token(request: Request, how: JwtVerification, keys: PublicKeys, now: datetime) -> None:
    """Return if the token holds.

    Raises:
        Unproven: it is missing, malformed, signed by another key, or for another audience.
        KeysUnavailable: the set of keys is not at hand.
    """
    import jwt

    token = _token(request, how)
    key_id, algorithm = _head(token)
    key = _key(keys.get(how.keys, now), key_id, algorithm, how)
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=how.audience,
            issuer=how.issuer,
            options={"require": ["exp", "iss", "aud"], "verify_exp": False, "verify_iat": False, "verify_nbf": False},
        )
    except jwt.PyJWTError as error:
        raise Unproven("proof_wrong", f"header {how.header}: {error}") from None
    _check_times(claims, now, how)
    for name, values in how.claims.items():
        value = claims.get(name)
        text = ("true" if value else "false") if isinstance(value, bool) else str(value)
        if value is None or text not in values:
            raise Unproven("proof_wrong", f"header {how.header}: the claim {name!r} is not accepted")


def lacks_key(request: Request, how: JwtVerification, document: bytes) -> bool:
    """Whether a set of keys has not the one that the request's token names: it may have been rotated."""
    try:
        key_id, _ = _head(_token(request, how))
    except Unproven:
        return False
    return all(each.get("kid") != key_id for each in _set(document, how))


def _token(request: Request, how: JwtVerification) -> str:
    given = credential(request, how.header)
    if how.header.lower() == "authorization":
        scheme, _, given = given.partition(" ")
        if scheme.lower() != "bearer":
            raise Unproven("proof_malformed", f"header {how.header}: `Bearer <token>` is expected", status=401)
    given = given.strip()
    if not given or len(given) > MOST_CHARS:
        raise Unproven("proof_malformed", f"header {how.header}: a token is expected", status=401)
    return given


def _head(token: str) -> tuple[str, str]:
    import jwt

    try:
        head = jwt.get_unverified_header(token)
    except jwt.PyJWTError:
        raise Unproven("proof_malformed", "the token can not be read", status=401) from None
    key_id, algorithm = head.get("kid"), head.get("alg")
    if not isinstance(key_id, str) or algorithm not in ALGORITHMS:
        raise Unproven("proof_malformed", "the token names no key, or is not signed by a public key", status=401)
    return key_id, algorithm


def _set(document: bytes, how: JwtVerification) -> list[dict[str, Any]]:
    try:
        found = orjson.loads(document)["keys"]
        return [each for each in found if isinstance(each, dict)]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise KeysUnavailable(f"{how.keys[:200]} has no set of keys") from None


def _key(document: bytes, key_id: str, algorithm: str, how: JwtVerification) -> Any:
    import jwt

    for each in _set(document, how):
        if each.get("kid") == key_id and each.get("kty") != "oct" and each.get("use", "sig") == "sig":
            try:
                return jwt.PyJWK.from_dict(each, algorithm=algorithm)
            except (jwt.PyJWTError, ValueError, TypeError):
                break
    raise Unproven("proof_wrong", f"header {how.header}: the token's key is none of those at {how.keys[:200]}")


def _check_times(claims: dict[str, Any], now: datetime, how: JwtVerification) -> None:
    leeway = how.leeway.total_seconds()
    for name, sign in (("exp", 1), ("nbf", -1), ("iat", -1)):
        value = claims.get(name)
        if value is None and name != "exp":
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise Unproven("proof_malformed", f"header {how.header}: the claim {name!r} is no time", status=401)
        if sign * (value - now.timestamp()) < -leeway:
            away = timedelta(seconds=round(abs(value - now.timestamp())))
            what = "has ended" if sign > 0 else "begins later"
            raise Unproven("clock_skew", f"header {how.header}: the token {what}, by {away}; check both clocks")
