"""Prefect's `infrastructure`, which is not here: importing it says what to do instead."""

from whenthen.flows.unsupported import infrastructure as infrastructure
