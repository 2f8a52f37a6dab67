"""What code in a run can read of it: `runtime.flow_run.name`, `runtime.task_run.run_count`. Outside a run there is nothing: None, or 0, or empty."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from whenthen.flows.execution.run_contexts import FLOW, TASK
from whenthen.flows.execution.run_records import FlowRun, TaskRun

__all__ = ["deployment", "flow_run", "task_run"]


class _Values:
    """Attributes that are read anew each time; `get_id()` is `id`, and so for each."""

    def __init__(
        self, name: str, fields: dict[str, tuple[Callable[[Any], Any], Any]], record: Callable[[], Any]
    ) -> None:
        self._name = name
        self._fields = fields
        self._record = record

    def __getattr__(self, name: str) -> Any:
        if name.startswith("get_") and name[4:] in self._fields:
            return partial(getattr, self, name[4:])
        if name.startswith("_") or name not in self._fields:
            raise AttributeError(
                f"runtime.{self._name} has no attribute {name!r}; it has {', '.join(sorted(self._fields))}"
            )
        read, missing = self._fields[name]
        record = self._record()
        if record is not None:
            return read(record)
        if callable(missing):
            return missing()
        return list(missing) if isinstance(missing, list) else dict(missing) if isinstance(missing, dict) else missing

    def __dir__(self) -> list[str]:
        return sorted(self._fields)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _root(run: FlowRun) -> str:
    above: Any = run
    root = run
    while above is not None:
        if isinstance(above, FlowRun):
            root = above
        above = above.parent
    return str(root.id)


def _flow_record() -> FlowRun | None:
    context = FLOW.get()
    return None if context is None else context.flow_run


def _task_record() -> TaskRun | None:
    context = TASK.get()
    return None if context is None else context.task_run


def _task_parameters(run: TaskRun) -> dict[str, Any]:
    context = TASK.get()
    return {} if context is None else context.parameters


flow_run: Any = _Values(
    "flow_run",
    {
        "id": (lambda run: str(run.id), None),
        "name": (lambda run: run.name, None),
        "flow_name": (lambda run: run.flow_name, None),
        "flow_version": (lambda run: run.flow_version, None),
        "tags": (lambda run: list(run.tags), []),
        "parameters": (lambda run: run.parameters, {}),
        "run_count": (lambda run: run.run_count, 0),
        "scheduled_start_time": (lambda run: run.scheduled_start_time, None),
        "parent_flow_run_id": (lambda run: _text(run.parent_flow_run_id), None),
        "root_flow_run_id": (_root, None),
        "deployment_id": (lambda run: _text(run.deployment_id), None),
        "job_variables": (lambda run: run.job_variables, None),
    },
    _flow_record,
)
task_run: Any = _Values(
    "task_run",
    {
        "id": (lambda run: str(run.id), None),
        "name": (lambda run: run.name, None),
        "task_name": (lambda run: run.task_name, None),
        "tags": (lambda run: list(run.tags), []),
        "parameters": (_task_parameters, {}),
        "run_count": (lambda run: run.run_count, 0),
    },
    _task_record,
)


def _flow_parameters() -> dict[str, Any]:
    run = _flow_record()
    return {} if run is None else run.parameters


def _deployed_record() -> FlowRun | None:
    """The run of a deployment that this code belongs to: its own flow run, or one above it."""
    above: Any = _flow_record()
    while above is not None and not (isinstance(above, FlowRun) and above.deployment_id is not None):
        above = above.parent
    return above


deployment: Any = _Values(
    "deployment",
    {
        "id": (lambda run: _text(run.deployment_id), None),
        "name": (lambda run: run.deployment_name, None),
        "version": (lambda run: run.flow_version, None),
        "flow_run_id": (lambda run: str(run.id), None),
        "parameters": (lambda run: run.parameters, _flow_parameters),
    },
    _deployed_record,
)
