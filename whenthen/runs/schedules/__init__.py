"""For which times does a deployment run by itself: now, made up for, in a backfill, and next?"""

from __future__ import annotations

from whenthen.runs.schedules.backfills import Backfill, Backfills
from whenthen.runs.schedules.lateness import LatenessWatch
from whenthen.runs.schedules.overdue_runs import OverdueRuns
from whenthen.runs.schedules.past_times import upcoming
from whenthen.runs.schedules.scheduler import Scheduler

__all__ = ["Backfill", "Backfills", "LatenessWatch", "OverdueRuns", "Scheduler", "upcoming"]
