"""Forms that ask for what a run waits for."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, TypeAdapter

from whenthen.ui import input_of_form, input_questions


class Size(StrEnum):
    SMALL = "small"
    LARGE = "large"


class Order(BaseModel):
    approved: bool
    size: Size = Size.SMALL
    level: Literal[1, 2] = 1
    amount: float | None = Field(default=None, title="How much", description="in euros")
    note: str = "-"
    lines: list[int] = [1]


SCHEMA = TypeAdapter(Order).json_schema()


def test_each_field_is_asked_for_as_it_is() -> None:
    asked = {each.field: each for each in input_questions(SCHEMA)}
    assert [(each.kind, each.required) for each in asked.values()] == [
        ("json", True),
        ("text", False),
        ("number", False),
        ("number", False),
        ("text", False),
        ("json", False),
    ]
    assert asked["input.approved"].choices == (("", "choose"), ("true", "yes"), ("false", "no"))
    assert asked["input.size"].choices == (("", "leave out"), ("small", "small"), ("large", "large"))
    assert (asked["input.size"].value, asked["input.lines"].value) == ("small", "[1]")
    assert (asked["input.amount"].label, asked["input.amount"].help) == ("How much", "in euros")


@pytest.mark.parametrize(
    ("form", "value"),
    [
        (
            {"input.approved": "true", "input.level": "2", "input.amount": "2.5"},
            {"approved": True, "level": 2, "amount": 2.5},
        ),
        ({"input.approved": "", "input.note": "7", "id": "x"}, {"note": "7"}),
        ({"input.lines": "[1, 2", "input.size": "huge"}, {"lines": "[1, 2", "size": "huge"}),
    ],
)
def test_what_was_sent_becomes_the_input(form: dict[str, str], value: dict[str, Any]) -> None:
    assert input_of_form(SCHEMA, form) == value


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [(int, "3", 3), (str, "3", "3"), (bool, "false", False), (list[int], "[1]", [1]), (int, "x", "x"), (int, "", "")],
)
def test_a_value_that_is_no_object_has_one_field(kind: Any, text: str, value: Any) -> None:
    schema = TypeAdapter(kind).json_schema()
    assert [each.field for each in input_questions(schema)] == ["input."]
    assert input_of_form(schema, {"input.": text}) == value


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}},
        {"$ref": "#/$defs/A", "$defs": 3},
        {"properties": {"a": 3, "b": {"enum": 3, "default": {"x": 1}}}},
        {"properties": {f"f{number}": {} for number in range(2_000)}},
        {"properties": {"a": {}}, "required": 3},
        {"properties": {"a": {}}, "required": True},
        {"anyOf": [3, {"type": "null"}]},
        {},
    ],
)
def test_a_schema_of_a_stranger_makes_some_form(schema: dict[str, Any]) -> None:
    assert input_questions(schema)
    input_of_form(schema, {"input.": "1", "input.a": "1"})


def test_a_run_that_takes_no_input_has_no_fields() -> None:
    assert (input_questions(None), input_of_form(None, {"input.": "1"})) == ([], None)
