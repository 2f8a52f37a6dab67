"""whenthen: when this happens, then do that.

`from whenthen import flow, task` imports the flow SDK and nothing else, when it is first used. The module names of this package are
Prefect's, so that of a program for Prefect the import lines change alone: `whenthen.tasks`, `whenthen.states`, and so on show parts of the
room `whenthen.flows`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from whenthen.client.orchestration import get_client as get_client
    from whenthen.context import tags as tags
    from whenthen.flow_runs import apause_flow_run as apause_flow_run
    from whenthen.flow_runs import aresume_flow_run as aresume_flow_run
    from whenthen.flow_runs import asuspend_flow_run as asuspend_flow_run
    from whenthen.flow_runs import pause_flow_run as pause_flow_run
    from whenthen.flow_runs import resume_flow_run as resume_flow_run
    from whenthen.flow_runs import suspend_flow_run as suspend_flow_run
    from whenthen.flows.definitions.annotations import allow_failure as allow_failure
    from whenthen.flows.definitions.annotations import quote as quote
    from whenthen.flows.definitions.annotations import unmapped as unmapped
    from whenthen.flows.definitions.flow_definition import Flow as Flow
    from whenthen.flows.definitions.flow_definition import flow as flow
    from whenthen.flows.definitions.task_definition import Task as Task
    from whenthen.flows.definitions.task_definition import task as task
    from whenthen.flows.deploying.given_deployments import aserve as aserve
    from whenthen.flows.deploying.given_deployments import deploy as deploy
    from whenthen.flows.deploying.given_deployments import serve as serve
    from whenthen.logging import get_run_logger as get_run_logger
    from whenthen.states import State as State
    from whenthen.transactions import Transaction as Transaction

__version__ = "0.1.0"

#: names at the top of the package, and the module of each
NAMES = {
    "Flow": "flows",
    "State": "states",
    "Task": "flows",
    "Transaction": "transactions",
    "allow_failure": "utilities.annotations",
    "apause_flow_run": "flow_runs",
    "aresume_flow_run": "flow_runs",
    "aserve": "flows.deploying.given_deployments",
    "asuspend_flow_run": "flow_runs",
    "deploy": "flows.deploying.given_deployments",
    "flow": "flows",
    "get_client": "client.orchestration",
    "get_run_logger": "logging",
    "pause_flow_run": "flow_runs",
    "quote": "utilities.annotations",
    "resume_flow_run": "flow_runs",
    "serve": "flows.deploying.given_deployments",
    "suspend_flow_run": "flow_runs",
    "tags": "context",
    "task": "flows",
    "unmapped": "utilities.annotations",
}
#: modules of the SDK that can be read as attributes without having been imported
MODULES = frozenset(
    [
        "artifacts",
        "blocks",
        "cache_policies",
        "client",
        "concurrency",
        "context",
        "deployments",
        "events",
        "exceptions",
        "flow_runs",
        "flows",
        "futures",
        "input",
        "logging",
        "results",
        "runner",
        "runtime",
        "schedules",
        "serializers",
        "states",
        "task_runners",
        "tasks",
        "transactions",
        "variables",
    ]
)


def __getattr__(name: str) -> Any:
    if name in NAMES:
        value = getattr(importlib.import_module(f"whenthen.{NAMES[name]}"), name)
        globals()[name] = value
        return value
    if name in MODULES:
        return importlib.import_module(f"whenthen.{name}")
    if not name.startswith("_"):
        unsupported = importlib.import_module("whenthen.flows.unsupported")
        if name in unsupported.NOT_SUPPORTED:
            unsupported.not_supported(name)
    raise AttributeError(
        f"module 'whenthen' has no attribute {name!r}; docs/prefect.md lists what there is of Prefect's"
    )


def __dir__() -> list[str]:
    """What the package shows, without what this file needs for it."""
    return sorted({*NAMES, *MODULES, *(name for name in globals() if name.startswith("__"))})
