"""Which roles run in this process, and in which order do they come and go? What each consists of is in its own module.

Called by `engine.process.server`, which starts what the roles share before them and ends it after them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import uuid
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from importlib import import_module

from whenthen.engine.bus.connection import Ack
from whenthen.engine.evaluation import LeaseSettings
from whenthen.engine.execution import Executor
from whenthen.engine.process.roles import Role
from whenthen.engine.process.senders.aside_messages import AsideMessages
from whenthen.engine.process.senders.reader_reports import ReaderReports
from whenthen.engine.process.supervisor import Supervisor
from whenthen.engine.process.wiring.api_role import ApiRole
from whenthen.engine.process.wiring.evaluator_role import TASK as EVALUATOR_TASK
from whenthen.engine.process.wiring.evaluator_role import EvaluatorRole
from whenthen.engine.process.wiring.executor_role import TASK as EXECUTOR_TASK
from whenthen.engine.process.wiring.executor_role import start_executor
from whenthen.engine.process.wiring.history.history_process import HISTORY_ROLE, HistoryProcess
from whenthen.engine.process.wiring.process_parts import ProcessParts
from whenthen.engine.process.wiring.scheduler_role import SchedulerRole
from whenthen.engine.process.wiring.worker_role import WorkerRole
from whenthen.engine.sources import SourceRunner
from whenthen.rules import Rules
from whenthen.schemas.events import Event

__all__ = ["RunningRoles"]

log = logging.getLogger(__name__)

SOURCES_TASK = "sources"
_CUT_OFF_S = 15.0  #: beyond the grace of draining, until a part that does not end is cancelled


class RunningRoles:
    """The roles of one process; each is None until it is started, or for ever where the process does not have it."""

    def __init__(
        self, supervisor: Supervisor, cleanup: contextlib.AsyncExitStack, history: HistoryProcess | None = None
    ) -> None:
        """`history` is the process that has this role, where it is none of the ones here."""
        self.api: ApiRole | None = None
        self.evaluator: EvaluatorRole | None = None
        self._executor: Executor | None = None
        self._scheduler: SchedulerRole | None = None
        self._worker: WorkerRole | None = None
        self._sources: SourceRunner | None = None
        self._supervisor = supervisor
        self._cleanup = cleanup
        self._history = history
        self._notes: list[str] = []

    async def start(self, parts: ProcessParts, roles: Collection[Role], *, pools: Sequence[str]) -> None:
        """Start all of `roles` but the one that answers requests, which is started before, as `api`."""
        if Role.EVALUATOR in roles:
            self.evaluator = EvaluatorRole(parts)
        if Role.EXECUTOR in roles:
            self._executor = await start_executor(parts, self._cleanup)
        if Role.SCHEDULER in roles:
            self._scheduler = SchedulerRole(parts)
        if Role.WORKER in roles:
            self._worker = WorkerRole(parts, pools)
        if Role.SOURCE in roles:
            self._sources = _start_sources(parts)
        if Role.HISTORY in roles:
            self._supervisor.start("history", self._start_history(parts))

    def hurry(self) -> None:
        """Hand back what is at hand at once."""
        if self._worker is not None:
            self._worker.stop()
            self._worker.hurry()
        if self._executor is not None:
            self._executor.hurry()

    async def drain_requests(self) -> None:
        """Take no more requests, and answer those that are there."""
        if self.api is not None:
            await self.api.drain()

    async def drain_work(self, grace_s: float) -> None:
        """Bring no more work, and let what is at hand end within `grace_s`."""
        await self._supervisor.end(SOURCES_TASK)
        if self._scheduler is not None:
            await self._scheduler.stop()
        working = self._worker.tasks if self._worker is not None else []
        for part in (self._worker, self._executor, self.evaluator):
            if part is not None:
                part.stop()
        for name in (*working, EXECUTOR_TASK, EVALUATOR_TASK):
            await self._supervisor.end(name, grace_s + _CUT_OFF_S)
        if self._scheduler is not None and not self._supervisor.hurry.is_set():
            await self._scheduler.wait_until_published()

    def missing(self) -> list[str]:
        """What of the roles is not ready yet."""
        return self.evaluator.missing() if self.evaluator is not None else []

    def notes(self) -> list[str]:
        """What people should know, and what does not keep the roles from their work."""
        return list(self._notes)

    @property
    def stalled(self) -> bool:
        """Whether a shard waits for what only other rules, or another version of this program, can change."""
        return self.evaluator is not None and self.evaluator.stalled

    @property
    def pools(self) -> list[str]:
        """The pools whose runs are worked on here."""
        return self._worker.pools if self._worker is not None else []

    def replace_rules(self, rules: Rules) -> None:
        """Hand the rules that are in force now to whoever does not look them up."""
        if self._worker is not None:
            self._worker.replace_rules(rules)
        if self._sources is not None:
            self._sources.replace()

    async def _start_history(self, parts: ProcessParts) -> None:
        """Start the role beside the others: what it needs takes a while to be loaded, and nobody waits for it."""
        report = parts.metrics.set_history_lag
        if (process := self._history) is not None:
            log.info("process %d projects the history", process.pid)
            ended = await process.run(None if parts.embedded is None else parts.embedded.client_url, report)
            self._notes.append(
                "the history has lost its own process and slows events down here; start the server again"
            )
            log.error(
                "the process of the history (%d) is gone: %s; this one has the role from now on", process.pid, ended
            )
        role_class = (await asyncio.to_thread(import_module, HISTORY_ROLE)).HistoryRole
        role = role_class(parts.bus, parts.settings, parts.supervisor, report)
        self._cleanup.callback(role.close)
        await asyncio.Event().wait()


def _start_sources(parts: ProcessParts) -> SourceRunner:
    """The role `source`."""

    async def publish(event: Event) -> Ack:
        if parts.disk is not None:
            parts.disk.admit()
        return await parts.bus.publish(event)

    aside = AsideMessages(parts.bus, parts.audit, clock=lambda: datetime.now(UTC), redact=parts.redactor.text)
    member, host = uuid.uuid4().hex, socket.gethostname()
    runner = SourceRunner(
        parts.bus,
        lambda: parts.rule_registry.now.sources,
        publish=publish,
        resolve_secret=parts.secrets.resolve,
        metrics=parts.metrics,
        keep_aside=aside.keep,
        reports=ReaderReports(parts.bus, member=member, host=host, redact=parts.redactor.text),
        member=member,
        host=host,
        lease=LeaseSettings(lease_s=parts.settings.lease.total_seconds()),
    )
    parts.supervisor.start_restarting(SOURCES_TASK, runner.run)
    return runner
