"""Conditions as they are after a few evaluations: compiled, where a new one evaluates by closures."""

from __future__ import annotations

from whenthen.conditions import Condition
from whenthen.conditions.shapes import WARM_AFTER

__all__ = ["compile_now"]


def compile_now(condition: Condition) -> None:
    """Count as many evaluations as compile the condition, without evaluating it."""
    for _ in range(WARM_AFTER + 1):
        condition._warm()
