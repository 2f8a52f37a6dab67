"""Prefect's `blocks.core`, which is not here: importing it says what to do instead."""

from whenthen.flows.unsupported import blocks_core as blocks_core
