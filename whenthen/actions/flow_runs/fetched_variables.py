"""What templates may name that no event holds whole: the run, deployment, flow and work pool that the event is about, as they are when the action runs.

Fetched for an attempt whose templates name them, and for no other. Which ones are meant is said by the event, as for actions without a target
(`implied_targets`). Meaning: docs/actions.md, "Values".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from whenthen.actions.implied_targets import deployment_of, flow_run_of, work_pool_of
from whenthen.actions.ports import Orchestrator

__all__ = ["FETCHED", "fetch"]

FETCHED: Final = frozenset({"flow_run", "run", "deployment", "flow", "work_pool"})
LOG_TAIL: Final = 20  #: lines of `run.log_tail`


async def fetch(names: Collection[str], event: dict[str, Any] | None, orchestrator: Orchestrator) -> Mapping[str, Any]:
    """The values of the variables `names`, each of which is one of `FETCHED`.

    Raises:
        ActionError: the event names none, or several. NotFound: it is not there any more.
    """
    found: dict[str, Any] = {}
    if "flow_run" in names or "run" in names:
        run = await orchestrator.describe_flow_run(flow_run_of(event), log_tail=LOG_TAIL if "run" in names else 0)
        found |= {name: run for name in ("flow_run", "run") if name in names}
    if "deployment" in names or "flow" in names:
        name = deployment_of(event)
        if "deployment" in names:
            found["deployment"] = await orchestrator.describe_deployment(name)
        if "flow" in names:
            found["flow"] = {"name": name.partition("/")[0]}
    if "work_pool" in names:
        found["work_pool"] = await orchestrator.describe_work_pool(work_pool_of(event))
    return found
