"""Who evaluates which shard, and how does what it decided become permanent? The loop of a shard, its commit, and the leases."""

from __future__ import annotations

from whenthen.engine.evaluation.commits.commit_messages import (
    EvaluationSettings,
)
from whenthen.engine.evaluation.commits.fenced_offset import (
    read_offset,
)
from whenthen.engine.evaluation.firing_counts import (
    FIRED,
    FiredTotal,
    decode_totals,
)
from whenthen.engine.evaluation.leases import (
    LeaseSettings,
    ShardHolder,
    ShardWork,
)
from whenthen.engine.evaluation.log_ports import (
    LeaseStore,
    WrongRevision,
)
from whenthen.engine.evaluation.loop_ports import (
    Observer,
    RuleRevisions,
)
from whenthen.engine.evaluation.nats_log import (
    NatsEngineStore,
    NatsLeaseStore,
    nats_shard_loop,
)
from whenthen.engine.evaluation.shard_loop import (
    ShardLoop,
)

__all__ = [
    "FIRED",
    "EvaluationSettings",
    "FiredTotal",
    "LeaseSettings",
    "LeaseStore",
    "NatsEngineStore",
    "NatsLeaseStore",
    "Observer",
    "RuleRevisions",
    "ShardHolder",
    "ShardLoop",
    "ShardWork",
    "WrongRevision",
    "decode_totals",
    "nats_shard_loop",
    "read_offset",
]
