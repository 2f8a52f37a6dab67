"""Tokens, sessions and one-time addresses, over buckets in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from whenthen.engine.access import (
    MOST_TOKENS,
    AccessControl,
    AccessScope,
    AccessStore,
    Grant,
    MemoryBucket,
    NotAdmitted,
)
from whenthen.engine.access.access_records import MOST_ADDRESSES, MOST_SESSIONS
from whenthen.engine.bus.buckets import Revision
from whenthen.schemas.errors import BusUnavailable, Conflict, InvalidInput, NotFound

START = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)
OWN = "token-of-the-settings"
READ, EMIT, OPERATE, ADMIN = AccessScope

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class House:
    """Processes over the same buckets, with one clock."""

    tokens: MemoryBucket = field(default_factory=MemoryBucket)
    sessions: MemoryBucket = field(default_factory=MemoryBucket)
    now: datetime = START
    notes: list[tuple[str, str, str]] = field(default_factory=list)

    def process(self, token: str | None = OWN) -> AccessControl:
        store = AccessStore(self.tokens, self.sessions)
        return AccessControl(
            store, token=token, note=self._note, clock=lambda: self.now, monotonic=lambda: self.now.timestamp()
        )

    def _note(self, kind: str, *, what: str, detail: str = "", cause: str = "") -> None:
        self.notes.append((kind, what, detail))

    async def kept(self) -> bytes:
        """Everything in the buckets."""
        found = [await self.tokens.get("tokens"), *self.sessions._held.values()]
        return b"".join(each.value for each in found if each is not None)


async def made(
    access: AccessControl, name: str = "ci", scopes: Sequence[AccessScope] = (READ,), **more: timedelta
) -> str:
    return (await access.create_token(name, scopes, **more))[1]


async def test_a_token_has_the_scopes_that_it_was_made_with_and_no_others() -> None:
    access = House().process()
    grant = await access.by_token(await made(access, scopes=[EMIT, READ, EMIT]))
    assert (grant.name, grant.scopes) == ("ci", {READ, EMIT})
    assert [grant.allows(scope) for scope in AccessScope] == [True, True, False, False]


async def test_a_token_with_admin_and_the_one_of_the_settings_may_do_everything() -> None:
    access = House().process()
    for value in (OWN, await made(access, scopes=[ADMIN])):
        grant = await access.by_token(value)
        assert all(map(grant.allows, AccessScope))


async def test_what_was_revoked_is_refused_by_every_process_from_then_on() -> None:
    house = House()
    one, other = house.process(), house.process()
    value = await made(one)
    session = await other.log_in(value)
    address = await other.new_address(await other.by_token(value))
    await other.by_session(session.cookie)
    await one.revoke_token("ci")
    for refused in (
        one.by_token(value),
        other.by_token(value),
        other.by_session(session.cookie),
        other.log_in(value),
        other.log_in_once(address),
    ):
        with pytest.raises(NotAdmitted):
            await refused
    # a later token of the name has nothing to do with it
    await made(one)
    with pytest.raises(NotAdmitted):
        await other.by_token(value)
    with pytest.raises(NotAdmitted):
        await other.by_session(session.cookie)


async def test_nothing_that_opens_anything_is_kept_or_noted() -> None:
    house = House()
    access = house.process()
    value = await made(access)
    session = await access.log_in(value)
    own = await access.log_in(OWN)
    address = await access.new_address(access.own)
    kept = (await house.kept()).decode() + str(house.notes)
    for secret in (value, value.split("_", 2)[2], session.cookie, own.cookie, own.cookie.split(".")[1], address, OWN):
        assert secret not in kept
    assert "ci" in kept


async def test_a_session_does_not_go_on_in_others() -> None:
    access = House().process()
    value = await made(access)
    for begun in (
        await access.log_in(value),
        await access.log_in(OWN),
        await access.log_in_once(await access.new_address(access.own)),
    ):
        for grant in (begun.grant, await access.by_session(begun.cookie)):
            with pytest.raises(Conflict, match="send the token for one"):
                await access.new_address(grant)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda value: value[:-1],
        lambda value: value + "A",
        lambda value: value[:-1] + ("A" if value[-1] != "A" else "B"),
        lambda value: value.upper(),
        lambda value: f" {value}",
        lambda value: f"wt_000000000000_{value.split('_', 2)[2]}",
        lambda value: value.split("_", 2)[2],
        lambda value: "",
        lambda value: "x" * 1_000_000,
        lambda value: value + "\x00",
        lambda value: value + "\n",
        lambda value: "wt_\u0660" + value[4:],
        lambda value: "\ud800",
    ],
)
async def test_a_near_token_is_refused(spoil: object) -> None:
    access = House().process()
    value = await made(access)
    assert callable(spoil)
    with pytest.raises(NotAdmitted, match="none of this server's, or it was revoked"):
        await access.by_token(spoil(value))
    with pytest.raises(NotAdmitted):
        await access.by_session(spoil(value))
    with pytest.raises(NotAdmitted):
        await access.log_in_once(spoil(value))


async def test_a_token_ends_at_its_time_and_its_sessions_with_it() -> None:
    house = House()
    access = house.process()
    value = await made(access, lasts=timedelta(hours=1))
    session = await access.log_in(value)
    assert session.grant.expires == START + timedelta(hours=1), "not the twelve hours of other sessions"
    house.now += timedelta(minutes=59, seconds=59)
    await access.by_token(value)
    await access.by_session(session.cookie)
    house.now += timedelta(seconds=1)
    with pytest.raises(NotAdmitted, match=r"ci expired at 2026-01-31T09:00:00\.0+Z"):
        await access.by_token(value)
    with pytest.raises(NotAdmitted, match="log in again"):
        await access.by_session(session.cookie)
    assert [access.expired(each) for each in await access.list_tokens()] == [True]


async def test_a_session_is_known_to_every_process_until_it_ends() -> None:
    house = House()
    one, other = house.process(), house.process()
    session = await one.log_in(OWN, where="10.0.0.7")
    grant = await other.by_session(session.cookie)
    assert (grant.name, grant.allows(ADMIN)) == ("api-token", True)
    assert grant.forgery_token == session.grant.forgery_token
    assert grant.forgery_token not in session.cookie
    await other.log_out(grant)
    with pytest.raises(NotAdmitted):
        await one.by_session(session.cookie)
    later = await one.log_in(OWN)
    house.now += timedelta(hours=12)
    with pytest.raises(NotAdmitted):
        await other.by_session(later.cookie)
    assert [note[0] for note in house.notes] == ["logged-in", "logged-out", "logged-in"]


async def test_sessions_end_when_the_settings_get_another_token() -> None:
    house = House()
    session = await house.process().log_in(OWN)
    with pytest.raises(NotAdmitted):
        await house.process("another-token-of-the-settings").by_session(session.cookie)


async def test_a_session_of_one_token_is_none_of_another_one() -> None:
    house = House()
    access = house.process()
    reads, admin = await made(access, "reads"), await made(access, "admin", [ADMIN])
    cookie = (await access.log_in(reads)).cookie
    forged = f"{(await access.by_token(admin)).owner}.{cookie.split('.')[1]}"
    for value in (forged, f"{access.own.owner}.{cookie.split('.')[1]}", f"tokens.{cookie.split('.')[1]}"):
        with pytest.raises(NotAdmitted):
            await access.by_session(value)


async def test_a_one_time_address_logs_in_once_whoever_is_asked() -> None:
    house = House()
    one, other = house.process(), house.process()
    value = await made(one)
    code = await one.new_address(await one.by_token(value))
    answers = await asyncio.gather(
        *[process.log_in_once(code) for process in (one, other, one, other)], return_exceptions=True
    )
    (session,) = [each for each in answers if not isinstance(each, BaseException)]
    assert sum(isinstance(each, NotAdmitted) for each in answers) == 3
    assert session.grant.scopes == {READ}
    await other.by_session(session.cookie)


async def test_a_one_time_address_lasts_ten_minutes() -> None:
    house = House()
    access = house.process()
    code = await access.new_address(access.own)
    house.now += timedelta(minutes=10)
    with pytest.raises(NotAdmitted, match="older than 10 minutes"):
        await access.log_in_once(code)


async def test_what_one_token_begins_is_bounded_and_pushes_out_nobody_elses() -> None:
    house = House()
    access = house.process()
    value = await made(access)
    owns, owns_address = await access.log_in(OWN), await access.new_address(access.own)
    sessions = [await access.log_in(value) for _ in range(MOST_SESSIONS + 1)]
    grant = await access.by_token(value)
    addresses = [await access.new_address(grant) for _ in range(MOST_ADDRESSES + 1)]
    with pytest.raises(NotAdmitted):
        await access.by_session(sessions[0].cookie)
    with pytest.raises(NotAdmitted):
        await access.log_in_once(addresses[0])
    await access.by_session(sessions[1].cookie)
    await access.by_session(owns.cookie)
    await access.log_in_once(addresses[1])
    await access.log_in_once(owns_address)


async def test_there_are_so_many_tokens_and_no_more() -> None:
    house = House()
    access = house.process()
    for number in range(MOST_TOKENS):
        await made(access, f"t{number}")
    with pytest.raises(Conflict, match="there are 100 tokens, and may be 100; revoke some"):
        await made(access, "one-more")
    await access.revoke_token("t7")
    await made(access, "one-more")
    found = await house.tokens.get("tokens")
    assert found is not None
    assert len(found.value) < 64 << 10


async def test_of_two_that_create_one_name_at_once_one_does() -> None:
    house = House()
    processes = [house.process() for _ in range(8)]
    answers = await asyncio.gather(*[made(each) for each in processes], return_exceptions=True)
    (value,) = [each for each in answers if isinstance(each, str)]
    assert [str(each) for each in answers if isinstance(each, Conflict)] == [
        "there is a token ci already; revoke it first, or take another name"
    ] * 7
    await processes[3].by_token(value)


async def test_those_who_create_other_names_at_once_all_do() -> None:
    house = House()
    values = await asyncio.gather(*[made(house.process(), f"t{number}") for number in range(8)])
    access = house.process()
    assert [(await access.by_token(value)).name for value in values] == [f"t{number}" for number in range(8)]


@pytest.mark.parametrize(
    "name", ["", "a b", "a\n", "\x1b[31m", "a" * 65, "-a", ".", "ü", "a\x00", "\u202e", "\ud800", "api-token", "a/b"]
)
async def test_a_name_that_could_be_misread_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        await made(House().process(), name)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("lasts", [timedelta(), timedelta(seconds=-1), timedelta(days=3_000_000)])
async def test_a_time_that_can_not_be_is_refused(lasts: timedelta) -> None:
    with pytest.raises(InvalidInput):
        await made(House().process(), lasts=lasts)


async def test_the_name_of_a_token_that_is_over_can_be_given_again() -> None:
    house = House()
    access = house.process()
    before = await made(access, lasts=timedelta(hours=1))
    house.now += timedelta(hours=1)
    after = await made(access)
    assert len(await access.list_tokens()) == 1
    await access.by_token(after)
    with pytest.raises(NotAdmitted):
        await access.by_token(before)


async def test_revoking_what_there_is_not_says_so() -> None:
    access = House().process()
    with pytest.raises(NotFound, match="no token is named 'ci'"):
        await access.revoke_token("ci")
    with pytest.raises(NotFound, match="changed in its settings"):
        await access.revoke_token("api-token")


async def test_a_token_that_is_revoked_is_so_though_the_bus_goes_away_before_its_sessions_are_dropped() -> None:
    class Gone(MemoryBucket):
        async def purge(self, key: str, *, revision: int | None = None) -> None:
            raise BusUnavailable("away")

    access = House(sessions=Gone()).process()
    value = await made(access)
    session = await access.log_in(value)
    assert (await access.revoke_token("ci")).name == "ci"
    with pytest.raises(NotAdmitted):
        await access.by_session(session.cookie)


async def test_acts_are_on_record_and_uses_once_an_hour() -> None:
    house = House()
    access = house.process()
    value = await made(access, scopes=[READ, EMIT], lasts=timedelta(days=1))
    for _ in range(100):
        await access.by_token(value)
    house.now += timedelta(hours=1)
    await access.by_token(value)
    await access.revoke_token("ci")
    token_id = value.split("_")[1]
    assert house.notes == [
        ("token-created", "ci", f"id={token_id}; scopes=read,emit; expires=2026-02-01T08:00:00.000000Z"),
        ("token-used", "ci", f"id={token_id}"),
        ("token-used", "ci", f"id={token_id}; 99 more uses since the last such note of this process"),
        ("token-revoked", "ci", f"id={token_id}; scopes=read,emit"),
    ]


async def test_where_no_token_is_needed_nobody_logs_in() -> None:
    access = House().process(token=None)
    assert access.open
    assert access.own.allows(ADMIN)
    for refused in (access.log_in(OWN), access.new_address(access.own)):
        with pytest.raises(Conflict, match="nobody has to log in"):
            await refused


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"{", "can not be read"),
        (b"[]", "can not be read"),
        (b'{"format": 2, "tokens": []}', "use a later version"),
        (b'{"format": 1, "tokens": [{"id": "x"}]}', "can not be read"),
        (b'{"format": 1}', "can not be read"),
    ],
)
async def test_tokens_that_can_not_be_read_admit_nobody_but_the_servers_own(data: bytes, said: str) -> None:
    house = House()
    value = await made(house.process())
    found = await house.tokens.get("tokens")
    assert found is not None
    await house.tokens.update("tokens", data, revision=found.number)
    access = house.process()
    await access.by_token(OWN)
    for refused in (access.by_token(value), access.revoke_token("ci"), made(access, "other")):
        with pytest.raises(Conflict, match=said):
            await refused


class Slow(MemoryBucket):
    """Counts reads, which take a while."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.fail: Exception | None = None

    async def get(self, key: str) -> Revision | None:
        self.reads += 1
        found = await super().get(key)
        for _ in range(5):
            await asyncio.sleep(0)
        if self.fail is not None:
            raise self.fail
        return found


async def test_requests_that_come_at_once_share_a_read_and_none_an_older_one() -> None:
    house = House(tokens=Slow())
    access = house.process()
    value = await made(access)
    assert isinstance(house.tokens, Slow)
    house.tokens.reads = 0
    first = asyncio.ensure_future(access.by_token(value))
    for _ in range(3):
        await asyncio.sleep(0)  # its read is under way, and has found the token
    await house.tokens.purge("tokens")
    later = await asyncio.gather(*[access.by_token(value) for _ in range(50)], return_exceptions=True)
    assert isinstance(await first, Grant)
    assert {type(each) for each in later} == {NotAdmitted}
    assert house.tokens.reads == 2


async def test_while_the_bus_is_away_tokens_are_refused_for_now_and_the_servers_own_is_not() -> None:
    house = House(tokens=Slow())
    access = house.process()
    value = await made(access)
    assert isinstance(house.tokens, Slow)
    house.tokens.fail = BusUnavailable("away")
    answers = await asyncio.gather(*[access.by_token(value) for _ in range(3)], return_exceptions=True)
    assert {type(each) for each in answers} == {BusUnavailable}
    await access.by_token(OWN)
    house.tokens.fail = None
    await access.by_token(value)


async def test_a_request_that_is_given_up_takes_no_read_from_others() -> None:
    house = House(tokens=Slow())
    access = house.process()
    value = await made(access)
    one, other = (asyncio.ensure_future(access.by_token(value)) for _ in range(2))
    await asyncio.sleep(0)
    one.cancel()
    assert (await other).name == "ci"
    assert (await access.by_token(value)).name == "ci"
