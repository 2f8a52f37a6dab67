"""Prefect's `client.schemas.objects`: runs as a server has them, and states."""

from whenthen.flows.deploying.deployment_values import (
    ConcurrencyLimitConfig,
)
from whenthen.flows.services.server_objects import (
    KnownFlowRun as FlowRun,
)
from whenthen.flows.states.state import (
    TERMINAL_STATES,
    State,
    StateDetails,
    StateType,
)

__all__ = [
    "TERMINAL_STATES",
    "ConcurrencyLimitConfig",
    "FlowRun",
    "State",
    "StateDetails",
    "StateType",
]
