"""Where cel-python gives a value, so do we, the same one.

`FAULTS` lists where it differs from the specification: each entry is proved ours by the language definition of
cel-spec or by a published case. The random expressions stay clear of these.
"""

from __future__ import annotations

import logging
import sys
from datetime import datetime, timedelta
from typing import Any

import celpy
import pytest
from celpy import celtypes
from condition_expressions import typed_cases
from hypothesis import given

from tests.compiled_conditions import compile_now
from tests.examples import up_to
from whenthen.conditions import ConditionError, Uint, compile_condition

logging.getLogger("celpy").setLevel(logging.CRITICAL)
MISSING = object()


def peer(text: str, variables: dict[str, Any]) -> Any:
    """What cel-python gives, as plain values; MISSING when it fails."""
    limit = sys.getrecursionlimit()  # cel-python raises it for the whole process
    try:
        environment = celpy.Environment()
        program = environment.program(environment.compile(text))
        return plain(program.evaluate({name: celpy.json_to_cel(value) for name, value in variables.items()}))
    except Exception:  # it fails in many ways, some of them Python's own
        return MISSING
    finally:
        sys.setrecursionlimit(limit)


def plain(value: Any) -> Any:
    match value:
        case celtypes.BoolType():
            return bool(value)
        case celtypes.UintType():
            return Uint(value)
        case celtypes.IntType():
            return int(value)
        case celtypes.DoubleType():
            return float(value)
        case celtypes.StringType():
            return str(value)
        case celtypes.BytesType():
            return bytes(value)
        case list():
            return [plain(item) for item in value]
        case dict():
            return {plain(key): plain(item) for key, item in value.items()}
        case celtypes.DurationType():
            return timedelta(days=value.days, seconds=value.seconds, microseconds=value.microseconds)
        case datetime():
            return datetime.fromisoformat(value.isoformat())
    return value


def ours(text: str, variables: dict[str, Any]) -> Any:
    try:
        condition = compile_condition(text)
        compile_now(condition)
        return condition(variables)
    except ConditionError as error:
        return error


def shown(value: Any) -> str:
    """A value with its types, for comparison: 1, 1u, 1.0 and true differ."""
    if isinstance(value, dict):
        return "{" + ", ".join(sorted(f"{shown(k)}: {shown(v)}" for k, v in value.items())) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(shown, value)) + "]"
    if isinstance(value, datetime):
        return value.isoformat()
    return repr(value)


@up_to(150)
@given(case=typed_cases())
def test_where_cel_python_gives_a_value_so_do_we_the_same_one(case: tuple[str, dict[str, Any]]) -> None:
    text, variables = case
    expected = peer(text, variables)
    if expected is not MISSING:
        assert shown(ours(text, variables)) == shown(expected), text


#: expression, what cel-python gives, what the specification says, and where it says so
FAULTS = [
    (
        "1 + 1u",
        2,
        ConditionError,
        'langdef "Values": the numeric types have no automatic arithmetic conversions',
    ),
    (
        "duration('1.5s').getMilliseconds()",
        1500,
        500,
        'langdef "getMilliseconds": the milliseconds portion of the duration',
    ),
    ("int('1_0')", 10, ConditionError, 'langdef "Syntax": an INT_LIT holds digits and no underscore'),
    ("1.0 / -0.0", float("inf"), float("-inf"), 'langdef "double": IEEE 754'),
    ("1 == 1.0", MISSING, True, "published case comparisons/eq_literal/eq_double_int"),
    ("[1] == [1.0]", MISSING, True, "published case comparisons/eq_literal/eq_list_elem_mixed_types"),
    ("1 in [1.0]", MISSING, True, "published case lists/in/int_in_doubles"),
    ("{1: 2}[1.0]", MISSING, 2, "published case fields/in/mixed_numbers_and_keys_present: 3.0 is a key of {3u: 3}"),
    ("2 > 1u", MISSING, True, "published case comparisons/gt_literal"),
]


@pytest.mark.parametrize(("text", "theirs", "right", "source"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_a_known_fault_of_cel_python_is_not_ours(text: str, theirs: Any, right: Any, source: str) -> None:
    found = ours(text, {})
    if right is ConditionError:
        assert isinstance(found, ConditionError), source
    else:
        assert shown(found) == shown(right), source
    assert shown(peer(text, {})) == shown(theirs), "cel-python changed: take the entry out of FAULTS"
