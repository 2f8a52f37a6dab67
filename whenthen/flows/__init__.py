"""What is a flow, what is a task, and how do their runs go? Plain Python: nothing else is installed, started or configured.

`definitions` makes flows and tasks of functions, `execution` runs them, `states` says what may follow what, `futures` are results to
come, `caching` keeps results. What a run tells of itself goes through one port, `execution/reporter.py`.
"""

from whenthen.flows.definitions.flow_definition import Flow, flow
from whenthen.flows.definitions.task_definition import Task, task
from whenthen.flows.deploying.flow_loading import load_flow_from_entrypoint

__all__ = ["Flow", "Task", "flow", "load_flow_from_entrypoint", "task"]
