"""Prefect's `server`, which is not here: importing it says what to do instead."""

from whenthen.flows.unsupported import server as server
