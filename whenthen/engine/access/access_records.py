"""What lies in `WT_tokens` and `WT_sessions`, as bytes; and the secrets that only their hashes are kept of. Pure.

Written and read by `engine.access.access_store`. All tokens are one record, so that their number, their names and what is revoked change
together. What a token has brought about, sessions and one-time addresses, is one record for each token, its owner.

Secrets are 256 random bits, which is why a plain SHA-256 keeps them: there is nothing to guess. The token of the settings is never kept.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

import orjson

from whenthen.schemas.errors import Conflict, InvalidInput
from whenthen.schemas.times import format_time, parse_time

__all__ = [
    "MOST_ADDRESSES",
    "MOST_SESSIONS",
    "MOST_TOKENS",
    "SERVER_TOKEN",
    "AccessScope",
    "OwnerRecord",
    "SecretRecord",
    "TokenRecord",
    "check_name",
    "decode_owner",
    "decode_tokens",
    "digest_of",
    "encode_owner",
    "encode_tokens",
    "forgery_token",
    "new_id",
    "new_secret",
    "owner_of_server_token",
    "split_secret",
    "split_value",
    "value_of",
]

FORMAT = 1
MOST_TOKENS = 100
MOST_SESSIONS = 20  #: of one token; a further login ends the oldest
MOST_ADDRESSES = 5  #: one-time addresses of one token; a further one takes the place of the oldest
SERVER_TOKEN = "api-token"  #: what the token of the settings, or of the first start, is called; no other one is
MOST_NAME = 64  #: characters
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_VALUE = re.compile(r"wt_([0-9a-f]{12})_([A-Za-z0-9_-]{43})", re.ASCII)
#: of a cookie, or of a one-time address: whose it is, and the secret
_OWNED = re.compile(r"(s?[0-9a-f]{12,32})\.([A-Za-z0-9_-]{43})", re.ASCII)


class AccessScope(StrEnum):
    """What a token may be used for."""

    READ = "read"  #: everything that is asked for with GET, but for backups and tokens
    EMIT = "emit"  #: sending events
    OPERATE = "operate"  #: pausing, running, cancelling, redriving, dropping; reading the rules files again
    ADMIN = "admin"  #: all of it; and putting rules in force, backups, tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """A named token, without its value."""

    id: str  #: stands in the value, too
    name: str
    scopes: tuple[AccessScope, ...]
    digest: str  #: of the secret in the value
    created: str
    created_by: str
    expires: str | None = None

    def expired(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.expires is not None and now >= parse_time(self.expires)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretRecord:
    """A session, or a one-time address."""

    digest: str
    created: str
    expires: str
    where: str = ""  #: the address of who logged in

    def expired(self, now: datetime) -> bool:
        return now >= parse_time(self.expires)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerRecord:
    """The sessions and one-time addresses of one token, the oldest first."""

    sessions: tuple[SecretRecord, ...] = ()
    addresses: tuple[SecretRecord, ...] = ()

    def kept(self, now: datetime) -> OwnerRecord:
        """Without what is over."""
        return OwnerRecord(
            sessions=tuple(each for each in self.sessions if not each.expired(now))[-MOST_SESSIONS:],
            addresses=tuple(each for each in self.addresses if not each.expired(now))[-MOST_ADDRESSES:],
        )

    def without_session(self, digest: str) -> OwnerRecord:
        return replace(self, sessions=tuple(each for each in self.sessions if each.digest != digest))

    def without_address(self, digest: str) -> OwnerRecord:
        return replace(self, addresses=tuple(each for each in self.addresses if each.digest != digest))


def check_name(name: str) -> None:
    """Return if a token can be called so.

    Raises:
        InvalidInput: it can not.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name[:80]!r} is no name of a token: 1 to {MOST_NAME} letters, digits, `.`, `_` and `-`, the first a letter or digit",
            path=("name",),
        )
    if name == SERVER_TOKEN:
        raise InvalidInput(
            f"{SERVER_TOKEN} is what the server's own token is called; take another name", path=("name",)
        )


def new_id() -> str:
    return secrets.token_hex(6)


def new_secret() -> str:
    return secrets.token_urlsafe(32)


def digest_of(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def value_of(token_id: str, secret: str) -> str:
    """What its user sends."""
    return f"wt_{token_id}_{secret}"


def split_value(value: str) -> tuple[str, str] | None:
    """The id and the secret in the value of a token; None when it is no such value."""
    found = _VALUE.fullmatch(value)
    return None if found is None else (found[1], found[2])


def split_secret(value: str) -> tuple[str, str] | None:
    """The owner and the secret of a cookie or a one-time address; None when it is none."""
    found = _OWNED.fullmatch(value)
    return None if found is None else (found[1], found[2])


def owner_of_server_token(token: str) -> str:
    """Under which its sessions are kept: they end when the settings get another token."""
    return "s" + hmac.digest(token.encode(), b"whenthen: owner of sessions", "sha256").hex()[:32]


def forgery_token(secret: str) -> str:
    """What a changing request of a session must bring beside its cookie; other sites can not read it."""
    return urlsafe_b64encode(hmac.digest(secret.encode(), b"whenthen: against forgery", "sha256")).decode().rstrip("=")


def encode_tokens(tokens: Iterable[TokenRecord]) -> bytes:
    return orjson.dumps({"format": FORMAT, "tokens": [asdict(token) for token in tokens]})


def decode_tokens(data: bytes) -> list[TokenRecord]:
    """The tokens that are kept.

    Raises:
        Conflict: a later version wrote them, or they are damaged: then nobody knows what was revoked.
    """
    fields = _fields(data, "the tokens")
    try:
        return [
            TokenRecord(
                id=str(each["id"]),
                name=str(each["name"]),
                scopes=tuple(map(AccessScope, each["scopes"])),
                digest=str(each["digest"]),
                created=str(each["created"]),
                created_by=str(each["created_by"]),
                expires=None if each["expires"] is None else format_time(parse_time(each["expires"])),
            )
            for each in fields["tokens"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged("the tokens", error) from None


def encode_owner(record: OwnerRecord) -> bytes:
    return orjson.dumps({"format": FORMAT, **asdict(record)})


def decode_owner(data: bytes) -> OwnerRecord:
    """Sessions and one-time addresses. Raises `Conflict`, see `decode_tokens`."""
    fields = _fields(data, "the sessions of a token")
    try:
        return OwnerRecord(sessions=_secrets(fields["sessions"]), addresses=_secrets(fields["addresses"]))
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged("the sessions of a token", error) from None


def _secrets(items: Sequence[Any]) -> tuple[SecretRecord, ...]:
    return tuple(
        SecretRecord(
            digest=str(each["digest"]),
            created=str(each["created"]),
            expires=format_time(parse_time(each["expires"])),
            where=str(each["where"]),
        )
        for each in items
    )


def _fields(data: bytes, what: str) -> Any:
    try:
        fields = orjson.loads(data)
        found = fields["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(what, error) from None
    if found != FORMAT:
        raise Conflict(f"{what} have format {str(found)[:40]}, and this version knows {FORMAT}; use a later version")
    return fields


def _damaged(what: str, error: Exception) -> Conflict:
    return Conflict(
        f"{what} can not be read ({type(error).__name__}: {str(error)[:100]}); the server's own token goes on working: "
        "delete the record in NATS (WT_tokens, WT_sessions) and create them again"
    )
