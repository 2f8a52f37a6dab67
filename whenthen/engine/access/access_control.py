"""Who asks? Tokens, sessions and one-time addresses are found, made and ended here; what a route needs is `engine.http.access`'s.

The token of the settings, or of the first start, is the process's own and needs no NATS: it may do everything. Each other one is looked up
for each request, so that a revoked token ends at once, in every process; while NATS is away it is refused (503). A session has the scopes
of its token and ends with it, at its own time, or when somebody logs out.

Acts are noted: logins, tokens that are made and revoked, and that a token is used, once in `NOTE_EVERY_S` in each process.
"""

from __future__ import annotations

import contextlib
import hmac
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Protocol

from whenthen.engine.access.access_records import (
    MOST_TOKENS,
    SERVER_TOKEN,
    AccessScope,
    OwnerRecord,
    SecretRecord,
    TokenRecord,
    check_name,
    digest_of,
    forgery_token,
    new_id,
    new_secret,
    owner_of_server_token,
    split_secret,
    split_value,
    value_of,
)
from whenthen.engine.access.access_store import AccessStore
from whenthen.engine.access.grants import EVERYTHING, Grant, NewSession
from whenthen.schemas.errors import BusUnavailable, Conflict, InvalidInput, NotFound, Refused
from whenthen.schemas.times import format_time, parse_time

__all__ = ["ADDRESS_LASTS", "AccessControl", "AccessNote", "NotAdmitted"]

NOTE_EVERY_S = 3600.0  #: of the use of one token
ADDRESS_LASTS = timedelta(minutes=10)  #: a one-time address
KEPT_EXPIRED = timedelta(days=7)  #: so long a token that is over is listed, unless its name is wanted
MOST_CHARS = 512  #: of what is offered as a token
_WRONG = "the token is none of this server's, or it was revoked"
_NO_LOGIN = "this server needs no token (open_loopback), so nobody has to log in"
_OVER = "the session is over; log in again"


class AccessNote(Protocol):
    """Puts an act on record (`engine.audit.AuditLog.note`)."""

    def __call__(self, kind: str, *, what: str, detail: str = "", cause: str = "") -> None: ...


class NotAdmitted(Refused):
    """What was shown proves nothing."""

    reason = "unauthorized"


class AccessControl:
    """Admission to one process. `token` is its own; None admits everybody to everything.

    Every method that is awaited may raise `BusUnavailable`, and `Conflict` for records that can not be read.
    """

    def __init__(
        self,
        store: AccessStore,
        *,
        token: str | None,
        note: AccessNote = lambda kind, *, what, detail="", cause="": None,
        session_lasts: timedelta = timedelta(hours=12),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._note = note
        self._session_lasts = session_lasts
        self._clock = clock
        self._monotonic = monotonic
        self._digest = None if token is None else digest_of(token)
        owner = "" if token is None else owner_of_server_token(token)
        self.own = Grant(name="" if token is None else SERVER_TOKEN, owner=owner, scopes=EVERYTHING)
        self._used: dict[str, tuple[float, int]] = {}  #: by id, when a use was noted last, and how many came since

    @property
    def open(self) -> bool:
        """Whether nobody needs a token."""
        return self._digest is None

    # -- who asks

    def is_own(self, value: str) -> bool:
        """Whether `value` is the process's own token."""
        return self._digest is not None and hmac.compare_digest(digest_of(value), self._digest)

    async def by_token(self, value: str) -> Grant:
        """What the token with this value allows.

        Raises:
            NotAdmitted: it is none, or its time is over.
        """
        if self.is_own(value):
            return self.own
        parts = split_value(value) if len(value) <= MOST_CHARS else None
        if parts is None:
            raise NotAdmitted(_WRONG)
        record = await self._token(parts[0])
        if record is None or not hmac.compare_digest(digest_of(parts[1]), record.digest):
            raise NotAdmitted(_WRONG)
        if record.expired(self._clock()):
            raise NotAdmitted(f"the token {record.name} expired at {record.expires}; create another one")
        self._note_use(record)
        return _granted(record)

    async def by_session(self, cookie: str) -> Grant:
        """What the session of a cookie allows. Raises `NotAdmitted`, see `by_token`."""
        parts = split_secret(cookie)
        if parts is None:
            raise NotAdmitted(_OVER)
        owner, secret = parts
        grant = await self._of_owner(owner)
        digest = digest_of(secret)
        now = self._clock()
        for session in (await self._store.owner(owner)).sessions:
            if hmac.compare_digest(session.digest, digest) and not session.expired(now):
                expires = parse_time(session.expires)
                return replace(
                    grant,
                    expires=min(expires, grant.expires or expires),
                    session=digest,
                    forgery_token=forgery_token(secret),
                )
        raise NotAdmitted(_OVER)

    # -- sessions

    async def log_in(self, value: str, *, where: str = "") -> NewSession:
        """Begin a session with the value of a token. `where` is the address of who does. Raises `NotAdmitted`, and `Conflict` where
        nobody needs one."""
        if self.open:
            raise Conflict(_NO_LOGIN)
        grant = await self.by_token(value)
        cookie, session = self._new_session(grant, where)
        await self._store.change_owner(grant.owner, partial(_with_session, session, self._clock()))
        return self._begun(cookie, grant, session, "with the token")

    async def log_in_once(self, code: str, *, where: str = "") -> NewSession:
        """Begin a session with what `new_address` gave; nobody can do so again. Raises `NotAdmitted`."""
        parts = split_secret(code)
        if parts is None:
            raise NotAdmitted("this is no one-time address; `whenthen open` makes one")
        owner, secret = parts
        grant = await self._of_owner(owner)
        cookie, session = self._new_session(grant, where)
        digest, now = digest_of(secret), self._clock()

        def change(record: OwnerRecord) -> OwnerRecord:
            if not any(hmac.compare_digest(each.digest, digest) for each in record.kept(now).addresses):
                minutes = ADDRESS_LASTS // timedelta(minutes=1)
                raise NotAdmitted(
                    f"the address was used, or is older than {minutes} minutes; `whenthen open` makes another one"
                )
            return _with_session(session, now, record.without_address(digest))

        await self._store.change_owner(owner, change)
        return self._begun(cookie, grant, session, "with a one-time address")

    async def new_address(self, grant: Grant) -> str:
        """What a one-time address ends with, by which whoever has it logs in as `grant` does, within `ADDRESS_LASTS`.

        Raises:
            Conflict: nobody needs to log in; or `grant` came by a session, which would go on for ever, and after its end, in others.
        """
        if not grant.owner:
            raise Conflict(_NO_LOGIN)
        if grant.session:
            raise Conflict(
                "a session makes no one-time address, as it would not end with itself; send the token for one"
            )
        secret, now = new_secret(), self._clock()
        address = SecretRecord(
            digest=digest_of(secret), created=format_time(now), expires=format_time(now + ADDRESS_LASTS)
        )

        def change(record: OwnerRecord) -> OwnerRecord:
            return replace(record, addresses=(*record.kept(now).addresses, address)).kept(now)

        await self._store.change_owner(grant.owner, change)
        return f"{grant.owner}.{secret}"

    async def log_out(self, grant: Grant) -> None:
        """End the session that `grant` came by."""
        await self._store.change_owner(grant.owner, lambda record: record.without_session(grant.session))
        self._note("logged-out", what=grant.name)

    # -- tokens

    async def list_tokens(self) -> list[TokenRecord]:
        """The named tokens, by name."""
        return sorted(await self._store.tokens(), key=lambda token: token.name)

    async def create_token(
        self, name: str, scopes: Sequence[AccessScope], *, lasts: timedelta | None = None, by: str = ""
    ) -> tuple[TokenRecord, str]:
        """Make a token; gives its record and its value, which is kept nowhere.

        Raises:
            InvalidInput: a name or a time that can not be. Conflict: there is one of that name, or there are too many.
        """
        check_name(name)
        if not scopes:
            raise InvalidInput("a token has one scope at least", path=("scopes",))
        secret, now = new_secret(), self._clock()
        try:
            expires = None if lasts is None else format_time(now + lasts)
        except OverflowError:
            raise InvalidInput("the token would last beyond the year 9999", path=("lasts",)) from None
        if lasts is not None and lasts <= timedelta():
            raise InvalidInput("the token would be over at once", path=("lasts",))
        token = TokenRecord(
            id=new_id(),
            name=name,
            scopes=tuple(scope for scope in AccessScope if scope in scopes),
            digest=digest_of(secret),
            created=format_time(now),
            created_by=by,
            expires=expires,
        )

        def change(tokens: list[TokenRecord]) -> list[TokenRecord]:
            kept = [
                each
                for each in tokens
                if not (each.expired(now) and each.name == name) and not each.expired(now - KEPT_EXPIRED)
            ]
            if any(each.name == name for each in kept):
                raise Conflict(f"there is a token {name} already; revoke it first, or take another name")
            if len(kept) >= MOST_TOKENS:
                raise Conflict(f"there are {len(kept)} tokens, and may be {MOST_TOKENS}; revoke some")
            return [*kept, token]

        await self._store.change_tokens(change)
        until = f"; expires={expires}" if expires else ""
        self._note("token-created", what=name, detail=f"id={token.id}; scopes={_words(token)}{until}")
        return token, value_of(token.id, secret)

    async def revoke_token(self, name: str) -> TokenRecord:
        """End a token, with its sessions. Raises `NotFound`."""
        gone: list[TokenRecord] = []

        def change(tokens: list[TokenRecord]) -> list[TokenRecord]:
            gone[:] = [each for each in tokens if each.name == name]
            if not gone:
                own = "; the server's own token is changed in its settings" if name == SERVER_TOKEN else ""
                raise NotFound(f"no token is named {name[:80]!r}; whenthen tokens list has them{own}")
            return [each for each in tokens if each.name != name]

        await self._store.change_tokens(change)
        self._note("token-revoked", what=name, detail=f"id={gone[0].id}; scopes={_words(gone[0])}")
        # without their token they are nothing already; what stays of them goes by itself
        with contextlib.suppress(BusUnavailable):
            await self._store.forget_owner(gone[0].id)
        return gone[0]

    def expired(self, token: TokenRecord) -> bool:
        """Whether its time is over."""
        return token.expired(self._clock())

    # -- parts

    async def _token(self, token_id: str) -> TokenRecord | None:
        return next((each for each in await self._store.tokens() if each.id == token_id), None)

    async def _of_owner(self, owner: str) -> Grant:
        """What the token allows that sessions of `owner` belong to."""
        if self.own.owner and hmac.compare_digest(owner, self.own.owner):
            return self.own
        record = None if owner.startswith("s") else await self._token(owner)
        if record is None or record.expired(self._clock()):
            raise NotAdmitted(_OVER)
        self._note_use(record)
        return _granted(record)

    def _new_session(self, grant: Grant, where: str) -> tuple[str, SecretRecord]:
        """The cookie of a session that begins now, and what is kept of it."""
        if not grant.owner:
            raise Conflict(_NO_LOGIN)
        secret, now = new_secret(), self._clock()
        expires = now + self._session_lasts
        session = SecretRecord(
            digest=digest_of(secret),
            created=format_time(now),
            expires=format_time(min(expires, grant.expires or expires)),
            where=where[:100],
        )
        return f"{grant.owner}.{secret}", session

    def _begun(self, cookie: str, grant: Grant, session: SecretRecord, how: str) -> NewSession:
        self._note("logged-in", what=grant.name, detail=f"{how}; until {session.expires}")
        secret = cookie.partition(".")[2]
        return NewSession(
            cookie=cookie,
            grant=replace(
                grant,
                expires=parse_time(session.expires),
                session=session.digest,
                forgery_token=forgery_token(secret),
            ),
        )

    def _note_use(self, record: TokenRecord) -> None:
        now = self._monotonic()
        noted, count = self._used.get(record.id, (now - NOTE_EVERY_S, 0))
        if now - noted < NOTE_EVERY_S:
            self._used[record.id] = (noted, count + 1)
            return
        if len(self._used) > 2 * MOST_TOKENS:  # most of them are revoked by now
            self._used.clear()
        self._used[record.id] = (now, 0)
        more = f"; {count} more uses since the last such note of this process" if count else ""
        self._note("token-used", what=record.name, detail=f"id={record.id}{more}", cause=record.id)


def _granted(record: TokenRecord) -> Grant:
    return Grant(
        name=record.name,
        owner=record.id,
        scopes=frozenset(record.scopes),
        expires=None if record.expires is None else parse_time(record.expires),
    )


def _with_session(session: SecretRecord, now: datetime, record: OwnerRecord) -> OwnerRecord:
    return replace(record, sessions=(*record.kept(now).sessions, session)).kept(now)


def _words(token: TokenRecord) -> str:
    return ",".join(token.scopes)
