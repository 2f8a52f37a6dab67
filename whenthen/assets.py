"""Prefect's `assets`, which is not here: importing it says what to do instead."""

from whenthen.flows.unsupported import assets as assets
