"""Who evaluates which shard, and how does what it decided become permanent? The loop of a shard, its commit, and the leases."""

from __future__ import annotations

from whenthen.engine.evaluation.commit import (
    read_offset,
)
from whenthen.engine.evaluation.leases import (
    LeaseSettings,
    ShardHolder,
    ShardWork,
    shard_of,
)
from whenthen.engine.evaluation.shard_loop import (
    EvaluationSettings,
    Observer,
    ShardLoop,
)

__all__ = [
    "EvaluationSettings",
    "LeaseSettings",
    "Observer",
    "ShardHolder",
    "ShardLoop",
    "ShardWork",
    "read_offset",
    "shard_of",
]
