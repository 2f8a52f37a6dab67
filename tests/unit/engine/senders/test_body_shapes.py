"""What is shown of a body: names of fields and kinds of values, and nothing that it holds."""

from __future__ import annotations

import json

import pytest

from whenthen.engine.process.senders import body_shapes
from whenthen.engine.process.senders.body_shapes import body_shape

FORM = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        (
            b'{"n": 1, "card": "4111", "ok": true, "none": null}',
            "{n: number, card: text of 4, ok: true or false, none: null}",
        ),
        (
            b'{"lines": [{"sku": "ab"}, {"sku": "c"}], "empty": []}',
            "{lines: 2 of {sku: text of 2}, empty: an empty list}",
        ),
        (b'"text"', "text of 4"),
        (b"", "no JSON: text of 0"),
        (b"{", "no JSON: text of 1"),
        (b"\xff\xfe", "no text: 2 bytes"),
        (b'{"a":' * 9 + b"1" + b"}" * 9, "{a: {a: {a: {a: {a: {...}}}}}}"),
        (b"[" * 100_000 + b"]" * 100_000, "no JSON: text of 200000"),
        (b'{"a\\u001b[31m": 1}', "{a\\x1b[31m: number}"),
    ],
)
def test_shape_has_names_and_kinds(body: bytes, shape: str) -> None:
    assert body_shape(body, {}) == shape


def test_fields_of_a_form_are_named() -> None:
    assert body_shape(b"token=secret&user=", FORM) == "{token: text of 6, user: text of 0}"
    assert body_shape(b"\xff", FORM) == "no text: 1 bytes"


def test_shape_of_many_fields_is_cut() -> None:
    found = body_shape(json.dumps({f"field-{number}" * 20: number for number in range(500)}).encode(), {})
    assert len(found) <= body_shapes.MOST_CHARS + 3
    assert found.endswith("...")
