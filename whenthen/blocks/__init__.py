"""Prefect's `blocks`: secrets and named JSON values."""

from whenthen.flows.services.named_blocks import (
    JSON,
    Secret,
)

__all__ = [
    "JSON",
    "Secret",
]
