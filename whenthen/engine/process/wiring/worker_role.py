"""The role `worker`: one worker for each work pool, those that were named or all that the rules have."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from whenthen.actions.secrets import Secrets
from whenthen.engine.process.wiring.process_parts import ProcessParts
from whenthen.rules import Rules
from whenthen.runs import Worker, WorkerSettings
from whenthen.schemas.work_pools import is_served_pool

__all__ = ["WorkerRole"]


class WorkerRole:
    def __init__(self, parts: ProcessParts, pools: Sequence[str]) -> None:
        self._parts = parts
        self._named = tuple(pools)
        self._workers: dict[str, Worker] = {}
        most = parts.settings.runs_at_once
        self._places = None if most is None else asyncio.Semaphore(most)
        self._warm_room = Worker.room_of(parts.settings.worker_warm_memory)
        self.replace_rules(parts.rule_registry.now.rules)

    @property
    def pools(self) -> list[str]:
        return sorted(self._workers)

    @property
    def tasks(self) -> list[str]:
        """The names of the workers' tasks."""
        return [f"worker {pool}" for pool in self._workers]

    def replace_rules(self, rules: Rules) -> None:
        """Start the workers of pools that are new. A pool that left the rules keeps its worker, which may have runs."""
        taken = {queue: pool.name for pool in rules.work_pools for queue in pool.queues}
        # runs that a script serves have their code where the script is
        named = {each.work_pool for each in rules.deployments if not is_served_pool(each.work_pool)}
        for pool in self._named or {taken.get(name, name) for name in named}:
            if pool not in self._workers:
                self._workers[pool] = worker = self._worker(pool, rules)
                self._parts.supervisor.start_restarting(f"worker {pool}", worker.run)

    def stop(self) -> None:
        """Take no more runs, and let those at hand finish."""
        for worker in self._workers.values():
            worker.stop()

    def hurry(self) -> None:
        """Wait no longer for those at hand: they are killed and returned to the queue."""
        for worker in self._workers.values():
            worker.hurry()

    def _worker(self, pool: str, rules: Rules) -> Worker:
        settings = self._parts.settings
        lost_after = settings.worker_lost_after
        return Worker(
            self._parts.stores,
            self._parts.rule_registry,
            root=rules.base.resolve(),
            pool=pool,
            settings=WorkerSettings(
                concurrency=settings.worker_concurrency,
                drain_grace=settings.drain_grace,
                lost_after=lost_after,
                heartbeat=min(timedelta(seconds=5), lost_after / 12),
                warm_interpreters=settings.worker_warm_interpreters,
                kill_grace=min(timedelta(seconds=10), lost_after / 6),
                max_depth=settings.max_depth,
            ),
            resolve=Secrets(self._parts.redactor).resolve,
            places=self._places,
            warm_room=self._warm_room,
        )
