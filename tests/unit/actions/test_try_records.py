"""What is kept of what an action sends: as it was sent, bounded, and without secrets."""

from __future__ import annotations

from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whenthen.actions.http.try_records import MAX_RECORD_BYTES, TryRecord
from whenthen.actions.secrets import Redactor

SECRET = "planted-secret-value"


def shown(request: dict[str, Any], answer: dict[str, Any] | None = None) -> dict[str, Any]:
    redactor, record = Redactor(), TryRecord()
    redactor.add(SECRET)
    record.sends(**request)
    if answer is not None:
        record.receives(**answer)
    found = record.shown(redactor)
    assert found is not None
    return found


def http(
    body: bytes = b"", headers: dict[str, str] | None = None, url: str = "https://shop.example/a?b=c"
) -> dict[str, Any]:
    return {"method": "POST", "url": httpx.URL(url), "headers": headers or {}, "body": body}


def test_nothing_was_sent() -> None:
    assert TryRecord().shown(Redactor()) is None


def test_a_request_and_its_answer_are_shown_as_they_were() -> None:
    answer = {"status": 201, "headers": {"Content-Type": "application/json"}, "body": b'{"id":7}'}
    found = shown(http(b'{"order":"o-1","total":3}', {"content-type": "application/json"}), answer)
    assert found == {
        "request": {
            "method": "POST",
            "url": "https://shop.example/a?b=c",
            "headers": {"content-type": "application/json"},
            "body": '{"order":"o-1","total":3}',
            "body_bytes": 25,
        },
        "answer": {"status": 201, "headers": {"content-type": "application/json"}, "body": '{"id":7}', "body_bytes": 8},
    }


@pytest.mark.parametrize(
    "request_",
    [
        http(headers={"Authorization": "Bearer nobody-told-us"}),
        http(headers={"X-Api-Key": "nobody-told-us"}),
        http(headers={"Webhook-Signature": "v1,nobody-told-us"}),
        http(url="https://shop.example/a?access_token=nobody-told-us&b=c"),
        http(url="https://shop.example/a?sig=nobody-told-us"),
        http(b'{"login": {"password": "nobody-told-us"}, "all": [{"clientSecret": "nobody-told-us"}]}'),
        http(b"user=a&password=nobody-told-us", {"content-type": "application/x-www-form-urlencoded"}),
        {"deployment": "load", "parameters": {"db": {"api_key": "nobody-told-us"}}},
    ],
)
def test_the_value_of_what_is_named_like_a_secret_is_masked(request_: dict[str, Any]) -> None:
    text = orjson.dumps(shown(request_)).decode()
    assert "***" in text
    assert "nobody" not in text


@pytest.mark.parametrize("field", ["url", "headers", "body", "subject", "answer"])
def test_a_secret_that_was_read_is_masked_wherever_it_stands(field: str) -> None:
    request = http(b"", {"x": "y"})
    answer = {"status": 200, "headers": {}, "body": f"you sent {SECRET}".encode() if field == "answer" else b""}
    request |= {
        "url": {"url": httpx.URL(f"https://shop.example/{SECRET}")},
        "headers": {"headers": {"X-Order": f"for {SECRET}"}},
        "body": {"body": f'{{"note": "{SECRET}"}}'.encode()},
        "subject": {"subject": f"say {SECRET}"},
    }.get(field, {})
    text = orjson.dumps(shown(request, answer)).decode()
    assert "***" in text
    assert SECRET not in text


def test_what_only_looks_like_a_secret_is_shown() -> None:
    found = shown(http(b'{"key": {"customer": "c-1"}, "code": "SUMMER", "author": "Ada"}'))
    assert found["request"]["body"] == '{"key": {"customer": "c-1"}, "code": "SUMMER", "author": "Ada"}'


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"x" * 300_000, "larger than 256 KiB"),
        (b"\x00\x01\x02", "no text"),
        (b"[" * 600 + b"]" * 600, "can not be written"),
        (b"a" * 2000, "500 more characters"),
        (b"\xff\xfe", "�"),
    ],
)
def test_what_can_not_be_shown_is_said(body: bytes, says: str) -> None:
    assert says in shown(http(body))["request"]["body"]


JSON = st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(
    st.dictionaries(st.text(), st.text(max_size=400), max_size=40),
    st.binary() | st.text().map(lambda text: text.encode("utf-8", "replace")),
    JSON,
)
def test_a_record_of_anything_is_bounded_json(headers: dict[str, str], body: bytes, parameters: Any) -> None:
    request = http(body * 50, {name: value * 20 for name, value in headers.items()})
    for asked in (request, {"deployment": "d" * 9000, "parameters": {"p": parameters}}):
        data = orjson.dumps(shown(asked, {"status": 200, "headers": headers, "body": body * 100}))
        assert len(data) <= MAX_RECORD_BYTES + 2000
