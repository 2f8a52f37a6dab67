"""The role `evaluator`: the leases of the shards, and a loop for each shard that this process holds."""

from __future__ import annotations

from collections.abc import Callable, Collection

from whenthen.engine.bus.streams import ENGINE
from whenthen.engine.evaluation import (
    EvaluationSettings,
    LeaseSettings,
    NatsLeaseStore,
    ShardHolder,
    ShardLoop,
    ShardWork,
    nats_shard_loop,
)
from whenthen.engine.process.wiring.process_parts import ProcessParts
from whenthen.triggers import Evaluator, RuleSet

__all__ = ["EvaluatorRole", "missing_shards"]

TASK = "evaluator"
SPECS_TASK = "specifications"
_TASK_TTL_S = 30 * 86400  #: action tasks are kept at least so long, whatever is said of firings


class EvaluatorRole:
    """`loops` are those of the shards held now."""

    def __init__(self, parts: ProcessParts) -> None:
        self.loops: dict[int, ShardLoop] = {}
        self._parts = parts
        self._evaluators: dict[int, Evaluator] = {}
        parts.pauses.on_forget(self._forget_orphans)
        self._holder = ShardHolder(
            NatsLeaseStore(parts.bus),
            parts.settings.shards,
            self._start_shard,
            # the lock of the data directory makes this process the only one: after a crash it takes its own lease back
            member="embedded" if parts.embedded is not None else "",
            settings=LeaseSettings(lease_s=parts.settings.lease.total_seconds()),
        )
        parts.supervisor.start(TASK, self._holder.run())
        stopping = parts.supervisor.stopping
        parts.supervisor.start_restarting(SPECS_TASK, lambda: parts.specs.run(stopping))

    def missing(self) -> list[str]:
        """Shards that are not evaluated yet, or not any more."""
        ready = {shard: loop.ready.is_set() for shard, loop in self.loops.items()}
        # with an embedded server few have another evaluator beside it
        expected = self._parts.settings.shards if self._parts.embedded is not None else 0
        full = any(loop.full for loop in self.loops.values())
        found = [f"shard {shard}" for shard in missing_shards(ready, expected, self._holder.held_elsewhere)]
        found += [f"{loop.stalled} (shard {shard})" for shard, loop in self.loops.items() if loop.stalled]
        return [*found, f"room in stream {ENGINE}, which is full"] if full else found

    @property
    def stalled(self) -> bool:
        """Whether a shard waits for rules that this process can not have."""
        return any(loop.stalled for loop in self.loops.values())

    def positions(self) -> dict[int, int]:
        """The last position of `EVENTS` that each shard has dealt with."""
        return {shard: loop.seq for shard, loop in self.loops.items()}

    def suspect(self, shard: int) -> str:
        """The automation whose trigger a shard looked at last; empty when there is none. Called by other threads, too."""
        evaluator = self._evaluators.get(shard)
        leaf = evaluator.deciding if evaluator is not None else None
        return leaf.automation.name if leaf is not None else ""

    def revisions(self) -> dict[int, int]:
        """The revision of the rules with which each shard is evaluated."""
        return {shard: loop.revision for shard, loop in self.loops.items()}

    def stop(self) -> None:
        """Finish the batches at hand and give the leases back."""
        self._holder.stop()

    def _forget_orphans(self, forgets: dict[str, int]) -> None:
        for shard, evaluator in self._evaluators.items():
            if shard in self.loops:
                evaluator.orphans.request_forget(forgets)

    def _start_shard(self, shard: int) -> ShardWork:
        parts, settings = self._parts, self._parts.settings
        evaluator = Evaluator(
            RuleSet([]),  # the shard has those of the revision that its offset names
            max_depth=settings.max_depth,
            follows_wait=settings.follows_wait,
            orphans_kept=settings.orphans_kept,
        )
        evaluator.resumed = parts.pauses.resumed
        self._evaluators[shard] = evaluator
        firing_ttl_s = int(settings.retain_firings.total_seconds())
        loop = nats_shard_loop(
            parts.bus,
            shard,
            evaluator,
            settings=EvaluationSettings(firing_ttl_s=firing_ttl_s, task_ttl_s=max(firing_ttl_s, _TASK_TTL_S)),
            observer=parts.observation,
            publish_specs=parts.specs.publish,
            revisions=parts.revisions.of_shard(shard),
            decisions_kept=settings.decisions_kept,
            shards=settings.shards,
            at_hand=parts.at_hand,
        )
        return _ListedShard(self.loops, shard, loop, released=parts.observation.released)


def missing_shards(ready: dict[int, bool], expected: int, elsewhere: Collection[int] = ()) -> list[int]:
    """Of the shards held (`ready` says which have caught up) and the first `expected`, those that are not evaluated: neither here
    nor `elsewhere`."""
    absent = [shard for shard in range(expected) if shard not in ready and shard not in elsewhere]
    return [shard for shard, done in ready.items() if not done] + absent


class _ListedShard:
    """A shard's loop, listed among the loops of the process for as long as it runs."""

    def __init__(
        self, loops: dict[int, ShardLoop], shard: int, loop: ShardLoop, *, released: Callable[[int], None]
    ) -> None:
        self._released = released
        self._loops = loops
        self._shard = shard
        self._loop = loop
        loops[shard] = loop

    async def run(self) -> None:
        try:
            await self._loop.run()
        finally:
            if self._loops.get(self._shard) is self._loop:
                del self._loops[self._shard]
                self._released(self._shard)

    def stop(self) -> None:
        self._loop.stop()
