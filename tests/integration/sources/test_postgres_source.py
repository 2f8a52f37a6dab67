"""PostgreSQL as a source: an outbox that loses nothing while either side is down, and a channel."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from tests.integration.sources.reading import reading
from tests.patience import until
from tests.postgres import postgres
from whenthen.engine.sources.edges.postgres_edge import outbox_sql

pytestmark = [pytest.mark.anyio, pytest.mark.requires("postgresql")]


def write(url: str, *bodies: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for body in bodies:
            connection.execute("insert into app.outbox (body) values (%s::jsonb)", (body,))


def left(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute("select count(*) from app.outbox").fetchone()
        assert found is not None
        return int(found[0])


def event(number: int) -> str:
    return f'{{"event": "order.placed", "resource": {{"id": "order.{number}"}}}}'


async def test_an_outbox_is_emptied_over_restarts_of_both_sides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with postgres() as cluster:
        url = cluster.database("shop")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("create schema app")
            for _ in range(2):  # it may be run again
                connection.execute(outbox_sql("app.outbox"))
        monkeypatch.setenv("SHOP_DATABASE", url)
        text = "sources:\n  - {name: shop, read: {type: postgres, url: 'env:SHOP_DATABASE', outbox: app.outbox}}\n"
        write(url, *map(event, range(150)))
        async with reading(tmp_path, text) as server:
            await server.come(150)
            write(url, '{"no": "event"}', event(150))
            await server.come(151)
            (kept,) = await server.aside()
            assert (kept["reason"], kept["shape"]) == ("invalid_event", "{no: text of 5}")

            async def emptied() -> bool:
                return left(url) == 0

            await until(emptied)
            cluster.stop()
            cluster.start()
            write(url, event(151))
            await server.come(152, within_s=60)
        write(url, event(152))
        async with reading(tmp_path, text) as server:
            events = await server.come(153)
            assert sorted(int(each["resource"]["id"][6:]) for each in events) == list(range(153))


async def test_what_a_channel_tells_becomes_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with postgres() as cluster:
        url = cluster.database("shop")
        monkeypatch.setenv("SHOP_DATABASE", url)
        text = "sources:\n  - {name: shop, read: {type: postgres, url: 'env:SHOP_DATABASE', channel: orders}}\n"
        async with reading(tmp_path, text) as server:

            async def reads() -> bool:
                return await server.metric('whenthen_source_reading{source="shop"}') == 1.0

            await until(reads)
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("select pg_notify('orders', %s)", (event(1),))
            (found,) = await server.come(1)
            assert found["resource"]["id"] == "order.1"
