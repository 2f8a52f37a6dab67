"""Prefect's `blocks.notifications`, which is not here: importing it says what to do instead."""

from whenthen.flows.unsupported import blocks_notifications as blocks_notifications
