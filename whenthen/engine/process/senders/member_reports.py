"""What the processes say of themselves in `SENDERS`, each under a subject of its own: read together, with the age of each.

A process that ended takes its report away, with an empty one; one that died has none that counts after `ALIVE_S`. Ages are those of the
server's clock.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

from whenthen.engine.bus.protocol import Delivery
from whenthen.engine.bus.request_client import RequestClient, stream_info
from whenthen.engine.bus.streams import SENDERS

__all__ = ["ALIVE_S", "FORGOTTEN_S", "read_reports"]

ALIVE_S = 20.0  #: a report that is older is of a process that died
FORGOTTEN_S = 600.0  #: and one that is so old is taken away by another process
_BATCH = 1000

T = TypeVar("T")


async def read_reports(
    client: RequestClient, subject: str, read: Callable[[bytes], T | None]
) -> list[tuple[T, timedelta]]:
    """All reports that are kept below `subject`, each with its age; `read` gives None for what is none. Raises BusUnavailable."""
    found: list[tuple[T, str]] = []
    begin, more = 1, True

    def receive(message: Delivery) -> None:
        nonlocal begin
        begin = int(message.headers["Nats-Sequence"]) + 1
        report = read(message.data)
        if report is not None:
            found.append((report, message.headers["Nats-Time-Stamp"]))

    while more:
        request = {"seq": begin, "next_by_subj": subject, "batch": _BATCH}
        more = await client.read_stored(SENDERS, request, receive)
    if not found:
        return []
    now = datetime.fromisoformat((await stream_info(client, SENDERS))["ts"])
    return [(report, now - datetime.fromisoformat(stored)) for report, stored in found]
