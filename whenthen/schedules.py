"""Prefect's `schedules`: when a deployment runs."""

from whenthen.flows.deploying.schedule_values import (
    Cron,
    Interval,
    RRule,
    Schedule,
)

__all__ = [
    "Cron",
    "Interval",
    "RRule",
    "Schedule",
]
