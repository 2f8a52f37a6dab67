"""Who evaluates which shard, and how does what it decided become permanent? The loop of a shard, its commit, and the leases."""

from __future__ import annotations

from whenthen.engine.evaluation.commits.commit import (
    read_offset,
)
from whenthen.engine.evaluation.commits.commit_messages import (
    EvaluationSettings,
)
from whenthen.engine.evaluation.leases import (
    LeaseSettings,
    ShardHolder,
    ShardWork,
)
from whenthen.engine.evaluation.nats_log import (
    NatsEngineStore,
    NatsLeaseStore,
    nats_shard_loop,
)
from whenthen.engine.evaluation.shard_loop import (
    Observer,
    ShardLoop,
)

__all__ = [
    "EvaluationSettings",
    "LeaseSettings",
    "NatsEngineStore",
    "NatsLeaseStore",
    "Observer",
    "ShardHolder",
    "ShardLoop",
    "ShardWork",
    "nats_shard_loop",
    "read_offset",
]
