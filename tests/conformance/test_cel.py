"""The published CEL conformance cases, each evaluated by the closures and by compiled code.

`cel_given.json` is data of the CEL specification's own suite; `cel_excluded.json` names the cases that do not
apply, with the reason for each.
"""

from __future__ import annotations

import json
import math
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.compiled_conditions import compile_now
from whenthen.conditions import CelType, ConditionError, Uint, compile_condition
from whenthen.conditions.runtime.timestamps import parse_span, parse_time

HERE = Path(__file__).parent
CASES = json.loads((HERE / "cel_given.json").read_text())
EXCLUDED = json.loads((HERE / "cel_excluded.json").read_text())


def identity(case: dict[str, Any]) -> str:
    return "/".join((case["file"], case["section"], case["name"]))


def decode(value: Any) -> Any:
    """A value as the data spells it: null and bool plain, everything else `{kind: ...}`."""
    if value is None or isinstance(value, bool):
        return value
    ((kind, content),) = value.items()
    plain = {
        "int": int,
        "uint": Uint,
        "double": float,
        "string": str,
        "bytes": bytes.fromhex,
        "type": CelType,
        "duration": parse_span,
        "timestamp": parse_time,
        "list": lambda items: [decode(item) for item in items],
        "map": lambda entries: {decode(key): decode(item) for key, item in entries},
    }
    return plain[kind](content)


def same(a: Any, b: Any) -> bool:
    """Whether two values are one value of one type; NaN is itself, and -0.0 is not 0.0."""
    if isinstance(a, datetime | timedelta):
        return a == b and getattr(a, "nanos", 0) == getattr(b, "nanos", 0)
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return (a != a and b != b) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(any(same(k, j) and same(v, w) for j, w in b.items()) for k, v in a.items())
    return bool(a == b)


@pytest.mark.parametrize("compiled", [False, True], ids=["closures", "compiled"])
@pytest.mark.parametrize("case", [case for case in CASES if identity(case) not in EXCLUDED], ids=identity)
def test_a_published_case_gives_the_published_result(case: dict[str, Any], compiled: bool) -> None:
    bindings = {name: decode(value) for name, value in case["bindings"].items()}
    if "value" not in case:
        with pytest.raises(ConditionError):
            evaluate(case["expr"], bindings, compiled)
        return
    expected = decode(case["value"])
    found = evaluate(case["expr"], bindings, compiled)
    assert same(found, expected), f"{case['expr']} gives {found!r}, not {expected!r}"


def evaluate(text: str, bindings: dict[str, Any], compiled: bool) -> Any:
    condition = compile_condition(text)
    if compiled:
        compile_now(condition)
    return condition(bindings)


def test_the_excluded_cases_are_few_and_exist() -> None:
    known = {identity(case) for case in CASES}
    assert len(CASES) == 609
    assert set(EXCLUDED) <= known
    assert len(EXCLUDED) <= 10
    assert all(reason.strip() for reason in EXCLUDED.values())
