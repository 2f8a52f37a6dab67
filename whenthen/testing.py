"""Prefect's `testing`, which is not here: importing it says what to do instead."""

from whenthen.flows.unsupported import testing as testing
