"""The runs of tasks and flows within runs, in the stream `TASK_RUNS`: one message for each batch of moves (`runs.stores.TaskRunStore`)."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import orjson

from whenthen.engine.bus.buckets import publish_with, purge_subject
from whenthen.engine.bus.request_client import RequestClient
from whenthen.engine.bus.stream_reader import stored_messages
from whenthen.engine.bus.subjects import task_runs_subject
from whenthen.engine.flow_runs.flow_streams import TASK_RUNS
from whenthen.runs.reports import task_runs

__all__ = ["NatsTaskRunStore"]

log = logging.getLogger(__name__)

_MAX_MESSAGE_BYTES: Final = 512 * 1024
_KNOWN: Final = (
    100_000  #: task runs of which is remembered that they were described; one that is forgotten is described again
)


class NatsTaskRunStore:
    """See `runs.stores.TaskRunStore`."""

    def __init__(self, client: RequestClient) -> None:
        self._client = client
        self._known: OrderedDict[tuple[str, str, int], None] = OrderedDict()

    async def append(self, run_id: str, moves: Sequence[task_runs.TaskRunMove]) -> None:
        if not moves:
            return
        records, described = [], []
        for move in moves:
            key = run_id, move.id, move.attempt
            known = key in self._known or key in described
            records.append(task_runs.record_of_move(move, known=known))
            if not known:
                described.append(key)
        data = orjson.dumps(records)
        if len(records) > 1 and len(data) > _MAX_MESSAGE_BYTES:
            middle = len(moves) // 2
            await self.append(run_id, moves[:middle])
            await self.append(run_id, moves[middle:])
            return
        await publish_with(self._client, task_runs_subject(run_id), data, {})
        for key in described:
            self._known[key] = None
        while len(self._known) > _KNOWN:
            self._known.popitem(last=False)

    async def forget(self, run_id: str) -> None:
        await purge_subject(self._client, TASK_RUNS, task_runs_subject(run_id))

    async def page(self, run_id: str, *, after: int, limit: int) -> task_runs.TaskRunPage:
        """See `TaskRunStore`. Reads all moves of the run, whatever the page: at most three or so of each of `MAX_TASK_RUNS`."""
        found = task_runs.TaskRuns()
        config: dict[str, object] = {"deliver_policy": "all", "filter_subject": task_runs_subject(run_id)}
        async for message in stored_messages(self._client, TASK_RUNS, config):
            try:
                found.add([task_runs.move_of_record(record) for record in orjson.loads(message.data)])
            except (ValueError, KeyError, TypeError) as error:
                log.error("message %d of the task runs can not be read and is passed over: %r", message.seq, error)
        every = found.all()
        return task_runs.TaskRunPage(task_runs=every[after : after + limit], total=len(every))
