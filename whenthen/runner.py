"""Prefect's `runner`, which is not here: importing it says what to do instead."""

from whenthen.flows.unsupported import runner as runner
