"""A process that projects everything from one NATS server into one database, until it is killed: `projector_process URL WHERE`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from whenthen.engine.bus.connection import Bus
from whenthen.engine.projection import PROJECTED, DecisionProjector, HistoryWriter, StreamProjector
from whenthen.history import Database, Keep


async def project(url: str, where: str) -> None:
    bus = Bus(url)
    await bus.connect()
    writer = HistoryWriter(Database(where if "://" in where else Path(where)), Keep())
    projectors = [StreamProjector(bus.client, writer, stream) for stream in PROJECTED]
    await asyncio.gather(DecisionProjector(bus, writer, shards=2).run(), *(each.run() for each in projectors))


if __name__ == "__main__":
    asyncio.run(project(*sys.argv[1:]))
