"""Input that runs are resumed with: what fits, what is said of what does not, and schemas that want to do harm."""

from __future__ import annotations

from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any

import pytest
from pydantic import BaseModel, Field, TypeAdapter

from whenthen.runs.pauses.input_checks import checked_input
from whenthen.runs.pauses.pause_records import read_pause, shown_pause
from whenthen.schemas.errors import InvalidInput

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Size(StrEnum):
    SMALL = "small"
    LARGE = "large"


class Line(BaseModel):
    name: str = Field(min_length=1, pattern="^[a-z]+$")
    amount: int = Field(ge=1, le=9)


class Order(BaseModel):
    lines: list[Line]
    size: Size = Size.SMALL
    due: date | None = None


def pause(kind: Any) -> dict[str, Any]:
    return {"schema": None if kind is None else TypeAdapter(kind).json_schema()}


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        (None, None, None),
        (None, {}, None),
        (int, 3, 3),
        (int, {"value": 3}, 3),
        (str | None, None, None),
        (list[int], [1, 2], [1, 2]),
        (dict[str, int], {"value": 3}, {"value": 3}),
        (Order, {"lines": [{"name": "a", "amount": 1}], "due": "2026-03-01"}, ...),
        (Order, {"lines": [], "size": "large"}, ...),
        (bool, True, True),
    ],
)
def test_what_fits_is_taken(kind: Any, given: Any, value: Any) -> None:
    assert checked_input(pause(kind), given, {}) == (given if value is ... else value)


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (None, {"n": 1}, ["takes no input"]),
        (int, "3", ["'3' is not of type 'integer'"]),
        (int, None, ["None is not of type 'integer'"]),
        (int, {"value": "x"}, ["'x' is not of type 'integer'"]),
        (
            Order,
            {"lines": [{"name": "A", "amount": 0}, {"amount": 2}], "size": "huge"},
            [
                "lines[0].name: 'A' does not match '^[a-z]+$'",
                "lines[0].amount: 0 is less than the minimum of 1",
                "lines[1]: 'name' is a required property",
                "size: 'huge' is not one of ['small', 'large']",
            ],
        ),
    ],
)
def test_what_does_not_fit_is_named_field_by_field(kind: Any, given: Any, said: list[str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        checked_input(pause(kind), given, {})
    assert caught.value.path == ("input",)
    assert [text for text in said if text not in caught.value.detail] == [], caught.value.detail


def test_inputs_of_one_run_have_a_bound_and_long_values_are_not_repeated_in_the_error() -> None:
    with pytest.raises(InvalidInput, match="bytes of input"):
        checked_input(pause(str), "x" * 70_000, {"1": "y" * 70_000})
    with pytest.raises(InvalidInput) as caught:
        checked_input(pause(int), "x" * 70_000, {})
    assert len(str(caught.value)) < 500


def doubling(levels: int) -> dict[str, Any]:
    """A schema that takes 2^levels steps to check."""
    definitions: dict[str, Any] = {"d0": {"type": "string"}}
    for level in range(1, levels):
        definitions[f"d{level}"] = {"allOf": [{"$ref": f"#/$defs/d{level - 1}"}] * 2}
    return {"$defs": definitions, "allOf": [{"$ref": f"#/$defs/d{levels - 1}"}] * 2}


@pytest.mark.parametrize(
    ("schema", "given"),
    [
        (doubling(60), "text"),
        ({"$ref": "#"}, 1),
        ({"$ref": "http://127.0.0.1:9/schema.json"}, 1),
        ({"$ref": "file:///etc/passwd"}, 1),
        ({"$dynamicRef": "http://127.0.0.1:9/schema.json", "type": "string"}, 1),
        ({"type": "string", "pattern": "(a+)+$"}, "a" * 5_000 + "!"),
        ({"patternProperties": {"(a+)+$": False}, "type": "string"}, {"a" * 5_000 + "!": 1}),
        ({"properties": {"x": {"patternProperties": {"(a+)+$": {}}, "type": "string"}}}, {"x": {"a" * 50 + "!": 1}}),
        ({"additionalProperties": False, "patternProperties": {"(a+)+$": {}}, "type": "object"}, {"a" * 50 + "!": 1}),
        ({"type": "string", "pattern": "(unclosed"}, "a"),
        ({"type": 7}, 1),
        ({"properties": 3, "type": "object"}, {"a": 1}),
        ({"minimum": "low"}, 1),
    ],
)
@pytest.mark.timeout(20)
def test_a_schema_that_wants_to_do_harm_ends_in_a_refusal(schema: dict[str, Any], given: Any) -> None:
    with pytest.raises(InvalidInput):
        checked_input({"schema": schema}, given, {})


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "key"),
        ({"key": "k" * 201}, "key"),
        ({"key": "1", "timeout_s": -1}, "timeout"),
        ({"key": "1", "timeout_s": float("nan")}, "timeout"),
        ({"key": "1", "timeout_s": "1h"}, "timeout"),
        ({"key": "1", "schema": "string"}, "wait_for_input"),
        ({"key": "1", "schema": {"description": "x" * 40_000}}, "wait_for_input"),
    ],
)
def test_a_pause_that_is_none_is_refused(body: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_pause(body, NOW)
    assert caught.value.path == (path,)


def test_a_pause_is_kept_with_its_end_and_told_without_what_is_large() -> None:
    made = read_pause({"key": "1", "timeout_s": 1e30, "schema": {"title": "t" * 9_000}, "description": 3}, NOW)
    assert made["until"].startswith("2027-03-02T12:00:00")
    assert (made["description"], shown_pause(made)["schema"]) == ("", None)
    assert shown_pause(read_pause({"key": "1", "schema": {}}, NOW))["schema"] == {}
