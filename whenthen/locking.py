"""Prefect's `locking`, which is not here: importing it says what to do instead."""

from whenthen.flows.unsupported import locking as locking
