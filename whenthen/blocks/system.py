"""Prefect's `blocks.system`: secrets and named JSON values."""

from whenthen.flows.services.named_blocks import (
    JSON,
    Secret,
)
from whenthen.flows.unsupported import names_of_blocks_system

__all__ = [
    "JSON",
    "Secret",
]

__getattr__ = names_of_blocks_system
