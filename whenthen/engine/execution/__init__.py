"""How is an action done at least once, and what became of it? The loop of actions: limits, circuit breaker, outcomes, dead letters."""

from __future__ import annotations

from whenthen.engine.execution.action_runner import (
    ActionMetrics,
    ActionRunner,
)
from whenthen.engine.execution.circuit_breaker import (
    CircuitBreakerSettings,
)
from whenthen.engine.execution.dead_letters import (
    DeadLetter,
    DeadLetters,
    decode_letter,
)
from whenthen.engine.execution.executor import (
    CONSUMER,
    ExecutionSettings,
    Executor,
)
from whenthen.engine.execution.spec_store import (
    SpecStore,
)

__all__ = [
    "CONSUMER",
    "ActionMetrics",
    "ActionRunner",
    "CircuitBreakerSettings",
    "DeadLetter",
    "DeadLetters",
    "ExecutionSettings",
    "Executor",
    "SpecStore",
    "decode_letter",
]
