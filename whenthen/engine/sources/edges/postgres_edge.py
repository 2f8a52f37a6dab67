"""PostgreSQL: an outbox table, whose rows are deleted once their events are stored, or a channel of LISTEN alone.

NOTIFY only wakes the reader of an outbox, which looks every few seconds anyway: a notification that was lost delays a row and loses none.
Needs the extra `postgres`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson

from whenthen.engine.log_lines import one_line
from whenthen.engine.sources.message_intake import MessageIntake, SourceTrouble
from whenthen.schemas.base import REFERENCE
from whenthen.schemas.event_sources import PostgresReading
from whenthen.sources.readings import SourceMessage

__all__ = ["PostgresEdge", "outbox_sql"]

LOOK_EVERY_S = 5.0  #: without any notification
BATCH = 100  #: rows that are read at one time
CONNECT_S = 5

_SQL = """\
-- The outbox that whenthen reads: an application inserts a row in the transaction of what the row tells of, and whenthen deletes it
-- once the event is stored. `body` is an event, or whatever the `map` of the source takes.
create table if not exists {table} (
  id bigint generated always as identity primary key,
  uid uuid not null default gen_random_uuid(),  -- makes a row that is read twice one event
  body jsonb not null,
  headers jsonb not null default '{{}}',
  created timestamptz not null default now()
);
create or replace function {table}_tell() returns trigger language plpgsql as $$
begin
  perform pg_notify('{channel}', '');
  return null;
end $$;
create or replace trigger {name}_tell after insert on {table} for each statement execute function {table}_tell();
-- whenthen's user needs no more than this:
--   grant select, delete on {table} to whenthen;
"""


def outbox_sql(table: str) -> str:
    """What makes an outbox table with its trigger. It may be run again."""
    return _SQL.format(table=table, channel=_channel(table), name=table.rpartition(".")[2])


def _channel(table: str) -> str:
    return table.replace(".", "_")[:63]


class PostgresEdge:
    def __init__(self, reading: PostgresReading, *, resolve_secret: Callable[[str], str]) -> None:
        self._reading = reading
        self._resolve_secret = resolve_secret

    async def run(self, intake: MessageIntake) -> None:
        """Read until it is cancelled.

        Raises:
            SourceTrouble: the database, or the table, can not be read, or psycopg is not installed.
        """
        try:
            import psycopg
        except ImportError:
            raise SourceTrouble("PostgreSQL is read with psycopg: pip install 'whenthen[postgres]'") from None
        reading = self._reading
        url = self._resolve_secret(reading.url) if REFERENCE.fullmatch(reading.url) else reading.url
        try:
            async with await psycopg.AsyncConnection.connect(
                url,
                autocommit=True,
                connect_timeout=CONNECT_S,
                application_name="whenthen source",
                keepalives_idle=5,
                keepalives_interval=2,
                keepalives_count=3,
            ) as connection:
                channel = reading.channel or _channel(reading.outbox or "")
                await connection.execute(f'listen "{channel}"')
                if reading.outbox is None:
                    await self._listen(connection, intake)
                await self._empty(connection, reading.outbox or "", intake)
        except psycopg.Error as error:
            raise SourceTrouble(
                f"PostgreSQL can not be read: {one_line(str(error) or type(error).__name__)}; check the address and login in `url`"
                + (
                    ""
                    if reading.outbox is None
                    else f", and that its user may read and delete rows of {reading.outbox}, which `whenthen sources sql {reading.outbox}` makes"
                )
            ) from error

    async def _listen(self, connection: Any, intake: MessageIntake) -> None:
        intake.reads()
        while True:
            async for told in connection.notifies(timeout=LOOK_EVERY_S):
                await intake.deliver(
                    SourceMessage(body=told.payload.encode(), about={"channel": told.channel, "pid": told.pid})
                )
            await connection.execute("select 1")  # that the server is still there

    async def _empty(self, connection: Any, table: str, intake: MessageIntake) -> None:
        name = ".".join(f'"{part}"' for part in table.split("."))
        select = f"select id, uid::text, body::text, headers from {name} order by id limit {BATCH}"
        while True:
            rows = await (await connection.execute(select)).fetchall()
            intake.reads()
            if rows:
                await asyncio.gather(*(intake.deliver(self._message(table, row)) for row in rows))
                await connection.execute(f"delete from {name} where id = any(%s)", ([row[0] for row in rows],))
                continue
            async for _ in connection.notifies(timeout=LOOK_EVERY_S, stop_after=1):
                pass

    def _message(self, table: str, row: tuple[int, str, str, Any]) -> SourceMessage:
        number, uid, body, headers = row
        texts = (
            {
                str(name): value if isinstance(value, str) else orjson.dumps(value).decode()
                for name, value in headers.items()
            }
            if isinstance(headers, dict)
            else {}
        )
        return SourceMessage(body=body.encode(), headers=texts, delivery=uid, about={"table": table, "row": number})
