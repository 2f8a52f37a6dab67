"""Why did a rule fire for an event that is on record, or not, and what is the test of that? The log, evaluated again."""

from __future__ import annotations

from whenthen.rules.recorded.why_replay import WhyAnswer, WhyReplay, main_decision

__all__ = ["WhyAnswer", "WhyReplay", "main_decision"]
