"""Tokens and sessions in the buckets of a real server, read and changed by several processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.integration.conftest import NatsServer
from tests.patience import until
from whenthen.engine.access import MOST_TOKENS, AccessControl, AccessScope, NotAdmitted, nats_access_store
from whenthen.engine.access.access_records import MOST_SESSIONS
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.streams import SESSIONS, TOKENS, StreamSettings, ensure_streams
from whenthen.schemas.errors import BusUnavailable, Conflict

pytestmark = pytest.mark.anyio

OWN = "token-of-this-test-0123456789"
READ = [AccessScope.READ]


def over(bus: Bus) -> AccessControl:
    return AccessControl(nats_access_store(bus.client), token=OWN)


@pytest.fixture
async def other(nats_server: NatsServer, bus: Bus) -> AsyncIterator[Bus]:
    """The connection of another process."""
    found = Bus(nats_server.url)
    await found.connect()
    yield found
    await found.close()


async def test_a_token_that_one_process_revoked_the_other_refuses_at_once(bus: Bus, other: Bus) -> None:
    one, two = over(bus), over(other)
    for turn in range(20):
        record, value = await one.create_token(f"t{turn}", READ)
        session = await two.log_in(value)
        assert (await one.by_session(session.cookie)).owner == record.id
        await one.revoke_token(record.name)
        for refused in (two.by_token(value), two.by_session(session.cookie), one.by_session(session.cookie)):
            with pytest.raises(NotAdmitted):
                await refused


async def test_of_processes_that_create_one_name_at_once_one_does(bus: Bus, other: Bus) -> None:
    for turn in range(10):
        answers = await asyncio.gather(
            *[over(each).create_token(f"t{turn}", READ) for each in (bus, other) * 4], return_exceptions=True
        )
        (made,) = [each for each in answers if isinstance(each, tuple)]
        assert sum(isinstance(each, Conflict) for each in answers) == 7
        assert (await over(other).by_token(made[1])).name == f"t{turn}"
    assert len(await over(bus).list_tokens()) == 10


async def test_processes_that_create_at_once_make_no_more_than_there_may_be(bus: Bus, other: Bus) -> None:
    for number in range(MOST_TOKENS - 3):
        await over(bus).create_token(f"t{number}", READ)
    answers = await asyncio.gather(
        *[over(bus if number % 2 else other).create_token(f"late-{number}", READ) for number in range(12)],
        return_exceptions=True,
    )
    assert sum(isinstance(each, tuple) for each in answers) == 3
    assert len(await over(other).list_tokens()) == MOST_TOKENS


async def test_a_one_time_address_is_used_by_one_of_two_processes(bus: Bus, other: Bus) -> None:
    one, two = over(bus), over(other)
    for _ in range(10):
        code = await one.new_address(one.own)
        answers = await asyncio.gather(one.log_in_once(code), two.log_in_once(code), return_exceptions=True)
        (failed,) = [each for each in answers if isinstance(each, BaseException)]
        assert isinstance(failed, NotAdmitted)


async def test_a_session_outlives_the_processes(nats_server: NatsServer, bus: Bus) -> None:
    cookie = (await over(bus).log_in(OWN)).cookie
    later = Bus(nats_server.url)
    await later.connect()
    await ensure_streams(later.js, StreamSettings())
    assert (await over(later).by_session(cookie)).name == "api-token"
    await later.close()


async def test_a_name_can_be_given_again_after_it_was_revoked(bus: Bus) -> None:
    access = over(bus)
    for _ in range(3):
        _, value = await access.create_token("ci", READ)
        await access.log_in(value)
        await access.revoke_token("ci")
    assert await access.list_tokens() == []


async def test_what_is_kept_of_one_token_is_small_however_often_somebody_logs_in(bus: Bus) -> None:
    access = over(bus)
    for _ in range(MOST_SESSIONS * 2):
        await access.log_in(OWN, where="2001:db8::/64")
    info = await bus.js.stream_info(f"KV_{SESSIONS}")
    assert info.state.messages == 1
    assert info.state.bytes < 16 << 10


async def test_tokens_of_a_bucket_that_was_made_again_are_gone(bus: Bus) -> None:
    access = over(bus)
    _, value = await access.create_token("ci", READ)
    await access.by_token(value)
    await bus.js.delete_stream(f"KV_{TOKENS}")
    with pytest.raises(BusUnavailable):
        await access.by_token(value)
    assert (await access.by_token(OWN)).name == "api-token"
    await ensure_streams(bus.js, StreamSettings())
    with pytest.raises(NotAdmitted):
        await access.by_token(value)
    # at the same position of the new stream there may be another record
    _, other = await access.create_token("ci", READ)
    await access.by_token(other)
    with pytest.raises(NotAdmitted):
        await access.by_token(value)


async def test_while_nats_is_away_a_named_token_waits_and_the_servers_own_does_not(
    nats_server: NatsServer, bus: Bus
) -> None:
    access = over(bus)
    _, value = await access.create_token("ci", READ)
    nats_server.kill()
    with pytest.raises(BusUnavailable):
        await access.by_token(value)
    await access.by_token(OWN)
    nats_server.start()

    async def admitted() -> bool:
        try:
            return (await access.by_token(value)).name == "ci"
        except BusUnavailable:
            return False

    await until(admitted, what="the connection is back")
