"""Prefect's `context`: in which run this code is, and the tags of what is started here."""

from whenthen.flows.execution.run_contexts import FlowRunContext, TaskRunContext, get_run_context, tags

__all__ = ["FlowRunContext", "TaskRunContext", "get_run_context", "tags"]
