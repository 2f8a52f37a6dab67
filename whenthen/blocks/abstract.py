"""Prefect's `blocks.abstract`, which is not here: importing it says what to do instead."""

from whenthen.flows.unsupported import blocks_abstract as blocks_abstract
