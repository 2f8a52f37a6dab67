"""Prefect's `variables`: named values that many flows share."""

from whenthen.flows.services.named_variables import (
    Variable,
)

__all__ = [
    "Variable",
]
