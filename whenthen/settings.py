"""Prefect's `settings`, which is not here: importing it says what to do instead."""

from whenthen.flows.unsupported import settings as settings
