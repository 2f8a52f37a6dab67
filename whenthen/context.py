"""Prefect's `context`: in which run this code is, and the tags of what is started here."""

from whenthen.flows.execution.run_contexts import FlowRunContext, TaskRunContext, get_run_context, tags
from whenthen.flows.flow_errors import MissingContextError

__all__ = ["FlowRunContext", "MissingContextError", "TaskRunContext", "get_run_context", "tags"]
