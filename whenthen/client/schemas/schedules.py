"""Prefect's `client.schemas.schedules`: schedules by themselves."""

from whenthen.flows.deploying.schedule_values import (
    CronSchedule,
    IntervalSchedule,
    RRuleSchedule,
)

__all__ = [
    "CronSchedule",
    "IntervalSchedule",
    "RRuleSchedule",
]
