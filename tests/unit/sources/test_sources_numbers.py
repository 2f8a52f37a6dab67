"""Numbers of JSON from outside: none becomes another one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from whenthen.schemas.errors import InvalidJson
from whenthen.sources import decode_json


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("18446744073709551615", 18446744073709551615),
        ("18446744073709551616", "18446744073709551616"),
        ("-9223372036854775808", -9223372036854775808),
        ("-9223372036854775809", "-9223372036854775809"),
        ("123456789012345678901", "123456789012345678901"),
        ("-123456789012345678901", "-123456789012345678901"),
        ("9" * 5000, "9" * 5000),
        ("1" + "0" * 400, "1" + "0" * 400),
        ("1234567890123456789", 1234567890123456789),
        ("0", 0),
    ],
)
def test_an_integer_beyond_64_bits_is_its_decimal_text(written: str, found: Any) -> None:
    assert decode_json(written.encode()) == found
    assert type(decode_json(written.encode())) is type(found)
    nested = decode_json(f'{{"a": [{{"b": {written}}}, {written}], "c": "{written}"}}'.encode())
    assert nested == {"a": [{"b": found}, found], "c": written}


@pytest.mark.parametrize(
    "written",
    [
        "1e30",
        "1E+30",
        "-1e-30",
        "1.0",
        "123456789012345678901.0",
        "123456789012345678901e2",
        "0.1234567890123456789012",
    ],
)
def test_a_float_stays_a_float(written: str) -> None:
    found = decode_json(written.encode())
    assert isinstance(found, float)
    assert found == float(written)


@pytest.mark.parametrize(
    "written",
    ["1e999", "-1e999", "9" * 400 + "e1", "9" * 400 + ".5", "0" * 400, "9" * 400 + "x", f"[{'9' * 400}", "01"],
)
def test_what_is_no_number_is_refused_as_before(written: str) -> None:
    with pytest.raises(InvalidJson, match="not JSON at line 1"):
        decode_json(written.encode())


def test_depth_is_bounded_beside_a_huge_integer_too() -> None:
    with pytest.raises(InvalidJson, match="nested more than 100 deep"):
        decode_json(b"[" * 5000 + b"9" * 400 + b"]" * 5000)
    with pytest.raises(InvalidJson, match="nested more than 100 deep"):
        decode_json(b"[" * 101 + b"9" * 400 + b"]" * 101)


@pytest.mark.parametrize("extra", ["", ' , "id": 123456789012345678901234567890'])
def test_the_rest_of_a_body_does_not_depend_on_its_integers(extra: str) -> None:
    text = '{"a": "\\u00e4\\ud83d\\ude00", "b": [null, true, -0.5, {}, []], "a": "last counts" ' + extra + "}"
    found = decode_json(text.encode())
    found.pop("id", None)
    assert found == json.loads(text.replace(extra, ""))
