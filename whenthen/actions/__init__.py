"""What does a firing do? Actions are compiled when rules are loaded and performed one attempt at a time.

The engine's way through this room:

    compiled = compile_action(action)                              # at load
    result = await perform(task, compiled, firing=..., ports=...)  # one attempt
    delay = next_delay(retry, task.attempt, random=random())       # after an ActionError with `retryable`
    event = executed_event(task, result, ...)                      # or failed_event(task, error, ...)

Meaning: docs/actions.md.
"""

from __future__ import annotations

from whenthen.actions.attempts import (
    EVENT_FIELDS,
    VARIABLES,
    ActionResult,
    automation_id,
    variables_of,
)
from whenthen.actions.firing_actions import (
    CompiledActions,
    actions_of,
)
from whenthen.actions.http.address_policy import (
    AddressPolicy,
)
from whenthen.actions.http.outgoing import (
    ConnectionDefaults,
    open_http_client,
)
from whenthen.actions.perform import (
    CompiledAction,
    compile_action,
    encode_spec,
    perform,
    read_action,
    spec_digest,
)
from whenthen.actions.retries import (
    next_delay,
)

__all__ = [
    "EVENT_FIELDS",
    "VARIABLES",
    "ActionResult",
    "AddressPolicy",
    "CompiledAction",
    "CompiledActions",
    "ConnectionDefaults",
    "actions_of",
    "automation_id",
    "compile_action",
    "encode_spec",
    "next_delay",
    "open_http_client",
    "outcome_events",
    "perform",
    "ports",
    "read_action",
    "secrets",
    "spec_digest",
    "variables_of",
]
