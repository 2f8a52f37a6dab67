"""What runs wrote, in the stream `LOGS`: one message for each batch of lines, in the order of their storing (`runs.stores.LogStore`)."""

from __future__ import annotations

import contextlib
from collections import OrderedDict, deque
from collections.abc import Sequence

import orjson

from whenthen.engine.bus.request_client import RequestClient
from whenthen.engine.bus.stream_reader import stored_messages
from whenthen.engine.bus.subjects import log_subject
from whenthen.engine.flow_runs.flow_streams import LOGS
from whenthen.engine.flow_runs.kv_bucket import publish_expecting
from whenthen.runs import LogLine, LogSlice

__all__ = ["NatsLogStore"]

_MAX_MESSAGE_BYTES = 512 * 1024
_PLACES = 256  #: runs whose logs are read page by page at one time


class NatsLogStore:
    """See `runs.stores.LogStore`."""

    def __init__(self, client: RequestClient) -> None:
        self._client = client
        # where the page after the last one begins that was read of a run: lines before a message, and its position
        self._places: OrderedDict[str, tuple[int, int]] = OrderedDict()

    async def append(self, run_id: str, lines: Sequence[LogLine]) -> None:
        if not lines:
            return
        data = orjson.dumps([(line.at, line.stream, line.attempt, line.text) for line in lines])
        if len(data) > _MAX_MESSAGE_BYTES and len(lines) > 1:
            middle = len(lines) // 2
            await self.append(run_id, lines[:middle])
            await self.append(run_id, lines[middle:])
            return
        await publish_expecting(self._client, log_subject(run_id), data, None)

    async def read(self, run_id: str, *, tail: int | None = None) -> list[LogLine]:
        lines: deque[LogLine] = deque(maxlen=tail)
        async for message in stored_messages(self._client, LOGS, _config(run_id)):
            lines.extend(_lines(message.data))
        return list(lines)

    async def page(self, run_id: str, *, after: int, limit: int, most_bytes: int) -> LogSlice:
        """See `LogStore`. Pages that are read one after the other cost what they hold, and not the log before them."""
        before, seq = self._places.get(run_id, (0, 0))
        if before > after:
            before, seq = 0, 0
        config = _config(run_id)
        if seq:
            config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": seq}
        found: list[LogLine] = []
        size = 0
        async with contextlib.aclosing(stored_messages(self._client, LOGS, config)) as messages:
            async for message in messages:
                lines = _lines(message.data)
                if before + len(lines) >= after:
                    self._remember(run_id, before, message.seq)
                for line in lines[max(0, after - before) :]:
                    size += len(line.text)
                    if len(found) == limit or (found and size > most_bytes):
                        return LogSlice(lines=found, more=True)
                    found.append(line)
                before += len(lines)
        return LogSlice(lines=found, more=False)

    def _remember(self, run_id: str, before: int, seq: int) -> None:
        self._places[run_id] = (before, seq)
        self._places.move_to_end(run_id)
        if len(self._places) > _PLACES:
            self._places.popitem(last=False)


def _config(run_id: str) -> dict[str, object]:
    return {"deliver_policy": "all", "filter_subject": log_subject(run_id)}


def _lines(data: bytes) -> list[LogLine]:
    return [
        LogLine(at=at, stream=stream, attempt=attempt, text=text) for at, stream, attempt, text in orjson.loads(data)
    ]
