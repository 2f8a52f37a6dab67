"""Prefect's `filesystems`, which is not here: importing it says what to do instead."""

from whenthen.flows.unsupported import filesystems as filesystems
