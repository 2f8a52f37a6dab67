"""Who is about to serve a deployment: of programs that ask at once one has the place, until a worker is there or the time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from whenthen.runs.limits.pool_presence import PoolPresence
from whenthen.runs.shared.served_places import give_back, take_place
from whenthen.runs.stores import Stores
from whenthen.schemas.deployments import Deployment
from whenthen.schemas.work_pools import WorkPool, served_pool

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LASTS = timedelta(seconds=60)


def program(unique: str, folder: str, **more: str) -> Deployment:
    """A deployment of one name, served by the program in `folder`."""
    fields = {"name": unique, "entrypoint": "etl.py:run", "code": {"folder": folder}, "work_pool": served_pool(unique)}
    return Deployment.model_validate({**fields, **more})


async def take(stores: Stores, one: Deployment, *, at: datetime = NOW) -> str | None:
    assert one.code is not None
    return await take_place(stores.flags, one, place=str(one.code.folder), now=at, lasts=LASTS)


async def test_of_programs_that_ask_at_once_one_has_the_place_and_the_others_hear_of_it(
    stores: Stores, unique: str
) -> None:
    folders = [f"/srv/{number}" for number in range(8)]
    answers = await asyncio.gather(*(take(stores, program(unique, folder)) for folder in folders))
    [place] = [folder for folder, other in zip(folders, answers, strict=True) if other is None]
    assert {other for other in answers if other is not None} == {place}


async def test_a_later_version_of_the_program_keeps_the_place(stores: Stores, unique: str) -> None:
    assert await take(stores, program(unique, "/srv/a")) is None
    assert await take(stores, program(unique, "/srv/a", version="2"), at=NOW + LASTS) is None
    assert await take(stores, program(unique, "/srv/b"), at=NOW + 2 * LASTS) == "/srv/a"


async def test_a_place_is_free_when_its_time_is_over_or_it_is_given_back(stores: Stores, unique: str) -> None:
    one, other = program(unique, "/srv/a"), program(unique, "/srv/b")
    assert await take(stores, one) is None
    assert await take(stores, other, at=NOW + LASTS) == "/srv/a"
    assert await take(stores, other, at=NOW + LASTS + timedelta(seconds=1)) is None
    await give_back(stores.flags, other.work_pool, of=one)  # it is not its any more
    assert await take(stores, one, at=NOW + LASTS) == "/srv/b"
    await give_back(stores.flags, other.work_pool, of=other)
    assert await take(stores, one, at=NOW + LASTS) is None
    await give_back(stores.flags, other.work_pool)
    await give_back(stores.flags, other.work_pool)  # of nobody
    assert await take(stores, other, at=NOW + LASTS) is None


class OnePool:
    """As much of the deployments as a presence looks at."""

    def __init__(self, name: str) -> None:
        self._name = name

    def work_pools(self) -> dict[str, WorkPool]:
        return {self._name: WorkPool(name=self._name)}


async def test_a_worker_is_known_before_it_gives_the_place_back(
    stores: Stores, unique: str, eventually: Callable[..., Awaitable[None]]
) -> None:
    one, other = program(unique, "/srv/a"), program(unique, "/srv/b")
    assert await take(stores, one) is None
    presence = PoolPresence(
        stores,
        OnePool(one.work_pool),  # type: ignore[arg-type]
        worker=f"{unique}-worker",
        pool=one.work_pool,
        concurrency=1,
        every=timedelta(seconds=1),
        clock=lambda: NOW,
    )
    beating = asyncio.create_task(presence.run(lambda: 0))
    try:

        async def free() -> bool:
            return await take(stores, other) is None

        await eventually(free)
        assert one.work_pool in {worker.pool for worker in await stores.workers.all()}
    finally:
        beating.cancel()
        await presence.leave()
