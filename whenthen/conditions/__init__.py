"""What is the value of a condition, and why? CEL expressions: parsed, checked, compiled to Python functions, explained.

The room knows nothing of events: a condition reads the variables that it is given.

    condition = compile_condition('event.payload.size > 0', variables={"event"})
    condition.holds({"event": {"payload": {"size": 3}}})    # True

Called by the loader of rules and by the evaluator. Meaning: docs/rules.md, "Conditions".
"""

from __future__ import annotations

from whenthen.conditions.condition import (
    Condition,
    compile_condition,
)
from whenthen.conditions.lexer import (
    MAX_CHARS,
)
from whenthen.conditions.parser import (
    MAX_DEPTH,
    MAX_NODES,
)
from whenthen.conditions.runtime.cel_values import (
    CelType,
    Cidr,
    ExactSpan,
    ExactTime,
    OptionalValue,
    Uint,
)
from whenthen.conditions.runtime.condition_errors import (
    ConditionError,
    ConditionFailed,
    ConditionRefused,
    ConditionSyntaxError,
    Reason,
    describe,
)
from whenthen.conditions.value_tree import (
    Verdict,
)

__all__ = [
    "MAX_CHARS",
    "MAX_DEPTH",
    "MAX_NODES",
    "CelType",
    "Cidr",
    "Condition",
    "ConditionError",
    "ConditionFailed",
    "ConditionRefused",
    "ConditionSyntaxError",
    "ExactSpan",
    "ExactTime",
    "OptionalValue",
    "Reason",
    "Uint",
    "Verdict",
    "compile_condition",
    "describe",
]
