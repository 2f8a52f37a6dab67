"""What happens in a rule test: its steps in virtual time, and with `follow` what the actions of firings emit. Called by `rules.test_runner`."""

from __future__ import annotations

from whenthen.rules.following.webhook_steps import TriedWebhooks

__all__ = ["TriedWebhooks"]
