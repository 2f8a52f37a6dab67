"""Prefect's `workers`, which is not here: importing it says what to do instead."""

from whenthen.flows.unsupported import workers as workers
