"""CloudEvents as events: ids, and data of every content type."""

from __future__ import annotations

import base64
import contextlib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whenthen.schemas.errors import InvalidEvent, WhenthenError
from whenthen.schemas.events import decode_event, read_event
from whenthen.sources import cloudevent_of_message, event_of_cloudevent

TOPIC = (
    "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/rg-analytics-production-westeurope-data-platform-shared"
    "-services/providers/Microsoft.EventGrid/domains/evgd-analytics-production-westeurope/topics/orders-incoming-and-returns-v2"
)


def made(**attributes: Any) -> dict[str, Any]:
    return event_of_cloudevent({"specversion": "1.0", "type": "t", "source": "/w", "id": "1", **attributes})


def test_long_source_and_id_are_digested_to_an_id_that_a_repetition_has_too(now: datetime) -> None:
    long = made(source=TOPIC, id="aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee")
    event = read_event(long, now=now, source="api")
    assert event.id.startswith("cloudevent:")
    assert event.resource["source"] == TOPIC
    assert made(source=TOPIC, id="aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee")["id"] == event.id
    assert made(source=TOPIC, id="aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeef")["id"] != event.id
    assert len(made(source="s" * 5000, id="i" * 5000)["id"]) < 256
    assert made(id="i" * 253)["id"] == "/w#" + "i" * 253
    assert made(id="i" * 254)["id"].startswith("cloudevent:")


def test_id_with_control_characters_is_digested(now: datetime) -> None:
    assert read_event(made(id="a\nb"), now=now, source="api").id.startswith("cloudevent:")


def test_attributes_become_labels_that_are_legal(now: datetime) -> None:
    found = made(subject="two\nlines", source="s" * 5000, count=7, flag=True, empty="", list=[1], big="x" * 5000)
    event = read_event(found, now=now, source="api")
    assert event.resource["id"] == event.resource["subject"] == "two%0Alines"
    assert (event.resource["count"], event.resource["flag"]) == ("7", "true")
    assert (len(event.resource["source"]), len(event.resource["big"])) == (4096, 4096)
    assert not {"empty", "list"} & event.resource.keys()


TEXTS = st.text(st.sampled_from("a#%:1"), min_size=1, max_size=4)


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=2, max_size=2, unique=True))
def test_two_pairs_of_source_and_id_never_make_one_id(pairs: list[tuple[str, str]]) -> None:
    first, second = (made(source=source, id=id)["id"] for source, id in pairs)
    assert first != second


@pytest.mark.parametrize(
    ("type", "raw", "payload"),
    [
        ("text/plain", b"12345", "12345"),
        ("text/plain", b"0042", "0042"),
        ("text/plain", b"true", "true"),
        ("text/csv; charset=iso-8859-1", b"gr\xf6\xdfe", "größe"),
        ("Text/Plain; Charset=UTF-8", b"{}", "{}"),
        ("application/json", b"12345", 12345),
        ("application/json", b"123456789012345678901234567890", "123456789012345678901234567890"),
        ("application/vnd.x+json", b"[1]", [1]),
        ("application/atom+xml", b"<a/>", "<a/>"),
        ("application/octet-stream", b"12345", "MTIzNDU="),
        ("application/protobuf", b"\xff", "/w=="),
        (None, b"12345", 12345),
        (None, b"text", "text"),
        (None, b"\xff", "/w=="),
    ],
)
def test_data_in_base64_is_what_its_content_type_says(type: str | None, raw: bytes, payload: Any) -> None:
    assert made(datacontenttype=type, data_base64=base64.b64encode(raw).decode())["payload"] == payload


@pytest.mark.parametrize(
    ("attributes", "part"),
    [
        ({"data_base64": "not base64"}, "data_base64: not base64"),
        ({"data_base64": 5}, "data_base64: not base64"),
        ({"data_base64": "e30=", "data": {}}, "data_base64: given beside data"),
        ({"data_base64": "ew==", "datacontenttype": "application/json"}, "data_base64: not JSON at line 1"),
        (
            {"data_base64": "/w==", "datacontenttype": "text/plain"},
            "data_base64: not UTF-8, though its type is text/plain",
        ),
    ],
)
def test_data_that_is_not_what_it_says_is_refused_with_the_field(attributes: dict[str, Any], part: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        made(**attributes)
    assert str(caught.value).startswith(part)


def test_time_of_a_careless_sender_is_told_and_a_wrong_one_names_the_attribute() -> None:
    assert made(time="2026-01-31T08:00:00+0000")["occurred"] == "2026-01-31T08:00:00.000000Z"
    with pytest.raises(InvalidEvent, match="time: 'yesterday' is not a time"):
        made(time="yesterday")


HEADERS = st.lists(
    st.tuples(
        st.sampled_from([b"ce-id", b"ce-source", b"ce-type", b"ce-specversion", b"ce-time", b"ce-subject", b"ce-x", b"ce-",
                         b"ce-data", b"content-type", b"host"]),
        st.sampled_from([b"1.0", b"a", b"%C3%A4", b"%ff", b'"a\\"', b"text/plain", b"application/json", b"a/b+xml"])
        | st.binary(max_size=8),
    ),
    max_size=8,
)  # fmt: skip
WHOLE = [(b"ce-specversion", b"1.0"), (b"ce-type", b"t"), (b"ce-source", b"/s"), (b"ce-id", b"1")]


@given(st.just([]) | st.just(WHOLE), HEADERS, st.binary(max_size=20) | st.sampled_from([b"{}", b"5", b'{"a": 1}']))
def test_no_message_crashes_the_reading_of_binary_mode(
    whole: list[tuple[bytes, bytes]], headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    with contextlib.suppress(WhenthenError):
        found = event_of_cloudevent(cloudevent_of_message([*whole, *headers], body))
        event = read_event(found, now=datetime(2026, 1, 31, 8, 0, tzinfo=UTC), source="api")
        assert decode_event(event.encode()).data == event.data
