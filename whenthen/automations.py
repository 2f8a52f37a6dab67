"""Prefect's `automations`, which is not here: importing it says what to do instead."""

from whenthen.flows.unsupported import automations as automations
