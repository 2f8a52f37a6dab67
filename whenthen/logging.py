"""Prefect's `logging`: the logger of the run in which it is asked for."""

from whenthen.flows.execution.run_logging import disable_run_logger, get_logger, get_run_logger

__all__ = ["disable_run_logger", "get_logger", "get_run_logger"]
