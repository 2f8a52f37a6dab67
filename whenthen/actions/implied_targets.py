"""Which deployment, work pool or flow run an action means when its rule does not say: the one that the event is about. Pure.

Events about a flow run have the resource `whenthen.flow-run.<id>` and name their deployment as a related resource
`whenthen.deployment.<name>` with the role `deployment`. Meaning: docs/actions.md, "Targets".
"""

from __future__ import annotations

from typing import Any

from whenthen.schemas.errors import ActionError

__all__ = ["DEPLOYMENT_PREFIX", "FLOW_RUN_PREFIX", "WORK_POOL_PREFIX", "deployment_of", "flow_run_of", "work_pool_of"]

DEPLOYMENT_PREFIX = "whenthen.deployment."
FLOW_RUN_PREFIX = "whenthen.flow-run."
WORK_POOL_PREFIX = "whenthen.work-pool."


def deployment_of(event: dict[str, Any] | None) -> str:
    """The name of the deployment that `event` is about.

    Raises:
        ActionError: it is about none, or about several; not retryable.
    """
    return _target(event, DEPLOYMENT_PREFIX, role="deployment", what="deployment", field="deployment")


def work_pool_of(event: dict[str, Any] | None) -> str:
    """The name of the work pool that `event` is about.

    Raises:
        ActionError: it is about none, or about several; not retryable.
    """
    return _target(event, WORK_POOL_PREFIX, role="work-pool", what="work pool", field="work_pool")


def flow_run_of(event: dict[str, Any] | None) -> str:
    """The id of the flow run that `event` is about.

    Raises:
        ActionError: it is about none, or about several; not retryable.
    """
    return _target(event, FLOW_RUN_PREFIX, role="flow-run", what="flow run", field="flow_run")


def _target(event: dict[str, Any] | None, prefix: str, *, role: str, what: str, field: str) -> str:
    if event is None:
        raise _missing(f"time fired this automation, so no event names a {what}; give `{field}` in the rule")
    own = event["resource"]["id"]
    if own.startswith(prefix) and own != prefix:
        return str(own.removeprefix(prefix))
    named = {
        item["id"].removeprefix(prefix)
        for item in event.get("related") or []
        if item.get("role") == role and item["id"].startswith(prefix) and item["id"] != prefix
    }
    if len(named) == 1:
        return str(named.pop())
    if named:
        raise _missing(
            f"the event names {len(named)} of them ({', '.join(sorted(named)[:5])}); give `{field}` in the rule"
        )
    raise _missing(
        f"no {what} is named by event {event['event']!r} of {own!r}: its resource is not {prefix}<...> "
        f"and no related resource has the role {role}; give `{field}` in the rule"
    )


def _missing(message: str) -> ActionError:
    return ActionError(message, retryable=False, reason="no_target")
