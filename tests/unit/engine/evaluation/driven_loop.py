"""A `ShardLoop` that runs as a task of a test."""

from __future__ import annotations

import asyncio

from whenthen.engine.evaluation.shard_loop import ShardLoop

__all__ = ["DrivenLoop"]


class DrivenLoop:
    """For classes that set `loop` and `task`."""

    loop: ShardLoop
    task: asyncio.Task[None]
    within_s = 60.0  #: that a position is reached

    async def reach(self, seq: int) -> None:
        """Wait until the shard is committed up to this position."""
        async with asyncio.timeout(self.within_s):
            while self.loop.committed < seq:
                assert not self.task.done(), self.task.exception()
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self.loop.stop()
        await self.task
