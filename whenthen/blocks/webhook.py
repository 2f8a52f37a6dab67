"""Prefect's `blocks.webhook`, which is not here: importing it says what to do instead."""

from whenthen.flows.unsupported import blocks_webhook as blocks_webhook
