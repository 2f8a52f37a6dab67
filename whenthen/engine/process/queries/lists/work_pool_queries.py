"""Work pools, who works there, and pausing them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta

from whenthen.engine.http import Listing, bounded
from whenthen.engine.http import answer_models as answers
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.runs import BuiltInOrchestrator, Flag, Stores, pause_flags
from whenthen.schemas.work_pools import WorkerRecord, WorkPool

__all__ = ["WorkPoolQueries"]

_DEPLOYMENTS = 100  #: of a pool that are named


class WorkPoolQueries:
    def __init__(
        self,
        rule_registry: RuleRegistry,
        stores: Stores,
        orchestrator: BuiltInOrchestrator,
        clock: Callable[[], datetime],
        *,
        lost_after: timedelta,
    ) -> None:
        self._rule_registry = rule_registry
        self._stores = stores
        self._orchestrator = orchestrator
        self._clock = clock
        self._lost_after = lost_after

    async def list_work_pools(self, after: str | None) -> Listing[answers.WorkPoolState]:
        flags = await self._stores.flags.all()
        workers = await self._stores.workers.all()
        pools = self._with_foreign(workers)
        active = {name: await self._active(pool) for name, pool in pools.items()}
        return bounded(list(pools), lambda name: self._state(pools[name], flags, workers, active[name]), after=after)

    async def list_workers(self, after: str | None) -> Listing[answers.WorkerState]:
        workers = {worker.name: self._worker(worker) for worker in await self._stores.workers.all()}
        return bounded(list(workers), workers.__getitem__, after=after)

    async def pause_work_pool(self, name: str) -> answers.WorkPoolState:
        await self._orchestrator.pause_work_pool(name)
        return await self._one(name)

    async def resume_work_pool(self, name: str) -> answers.WorkPoolState:
        await self._orchestrator.resume_work_pool(name)
        return await self._one(name)

    async def _one(self, name: str) -> answers.WorkPoolState:
        workers = await self._stores.workers.all()
        pool = self._with_foreign(workers).get(name) or WorkPool(name=name)
        return self._state(pool, await self._stores.flags.all(), workers, await self._active(pool))

    def _with_foreign(self, workers: Sequence[WorkerRecord]) -> dict[str, WorkPool]:
        """The pools of the rules, and those that only workers have."""
        foreign = {worker.pool: WorkPool(name=worker.pool) for worker in workers}
        return {**foreign, **self._rule_registry.work_pools()}

    async def _active(self, pool: WorkPool) -> list[str]:
        return [] if pool.limit is None else await self._stores.slots.holders(f"work-pool/{pool.name}")

    def _state(
        self, pool: WorkPool, flags: Mapping[str, Flag], workers: Sequence[WorkerRecord], active: list[str]
    ) -> answers.WorkPoolState:
        named = [each.name for each in self._rule_registry.current().values() if each.work_pool == pool.name]
        return answers.WorkPoolState(
            name=pool.name,
            description=pool.description,
            type=pool.type,
            limit=pool.limit,
            paused=pause_flags.is_pool_paused(pool, flags.get(pause_flags.pool_flag(pool.name))),
            active=active,
            deployments=sorted(named)[:_DEPLOYMENTS],
            workers=[self._worker(worker) for worker in workers if worker.pool == pool.name],
        )

    def _worker(self, worker: WorkerRecord) -> answers.WorkerState:
        lost = self._clock() - datetime.fromisoformat(worker.seen) > self._lost_after
        return answers.WorkerState.model_validate({**asdict(worker), "lost": lost})
