"""Values of the command line: `name=value`, with the type that the function or the form takes."""

from __future__ import annotations

from typing import Any

import pytest

from whenthen.cli.client import ApiError
from whenthen.cli.lists.given_values import read_pairs_for

SCHEMA = {
    "properties": {
        "order": {"type": "string"},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "cents": {"type": "integer"},
        "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        "listed": {"type": ["string", "null"]},
        "any": {},
    }
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("order=7", "7"),
        ("order=1e3", "1e3"),
        ("order=true", "true"),
        ("order=null", "null"),
        ('order="7"', "7"),
        ("order=a=b", "a=b"),
        ("note=7", "7"),
        ("note=null", None),
        ("cents=7", 7),
        ("either=7", 7),
        ("listed=7", 7),
        ("any=7", 7),
        ("unknown=7", 7),
        ("order=[1]", "[1]"),
    ],
)
def test_a_text_is_kept_where_a_text_is_taken(text: str, value: Any) -> None:
    name = text.partition("=")[0]
    assert read_pairs_for([text, "cents=1"] if name != "cents" else [text], "--param", lambda: SCHEMA)[name] == value


def test_of_a_name_that_comes_twice_the_last_counts() -> None:
    assert read_pairs_for(["order=x", "order=7"], "--param", lambda: SCHEMA) == {"order": "7"}


def test_nobody_is_asked_for_texts() -> None:
    def schema() -> Any:
        raise AssertionError("asked")

    assert read_pairs_for(["order=o7", 'note="7"'], "--param", schema) == {"order": "o7", "note": "7"}
    assert read_pairs_for([], "--param", schema) == {}


@pytest.mark.parametrize("schema", [None, {}, [], {"type": "integer"}, {"properties": {"order": True}}])
def test_a_schema_that_says_nothing_changes_nothing(schema: Any) -> None:
    assert read_pairs_for(["order=7"], "--param", lambda: schema) == {"order": 7}


def test_without_being_told_values_are_json() -> None:
    def schema() -> Any:
        raise ApiError(403, "missing_scope", "this needs the scope read", {})

    assert read_pairs_for(["order=7"], "--param", schema) == {"order": 7}
