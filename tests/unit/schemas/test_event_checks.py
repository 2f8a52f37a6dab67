"""Events from outside: what is completed, what is refused, and that short ways to an answer give the same one."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whenthen.schemas.errors import InvalidEvent
from whenthen.schemas.events import EventLimits, new_event, read_event
from whenthen.schemas.times import format_time, parse_time

NOW = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)
LIMITS = EventLimits(name_chars=8, id_chars=8, label_chars=8, labels=3)
TEXTS = st.text(st.characters(), max_size=10)


def read(data: Any) -> Any:
    return read_event(data, now=NOW, source="test", limits=LIMITS).data


def refused_field(**data: Any) -> str:
    with pytest.raises(InvalidEvent) as caught:
        read_event({"event": "e", "resource": {"id": "r"}, **data}, now=NOW, source="test")
    return caught.value.field


def is_text(value: str, limit: int = 8) -> bool:
    return 0 < len(value) <= limit and re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", value) is None


@given(name=TEXTS, id=TEXTS, label=TEXTS, value=TEXTS)
def test_texts_are_taken_within_their_limits_and_without_control_characters(
    name: str, id: str, label: str, value: str
) -> None:
    data = {"event": name, "id": id, "resource": {"id": "r", label: value}}
    right = is_text(name) and is_text(id) and 0 < len(label) <= 8 and (is_text(value) or value == "" != label != "id")
    try:
        taken = read(data)
    except InvalidEvent:
        assert not right
    else:
        assert right
        assert taken["resource"] == data["resource"]


def test_event_without_an_id_gets_a_random_uuid() -> None:
    ids = [new_event("e", resource={"id": "r"}, now=NOW, source="test").id for _ in range(200)]
    assert len(set(ids)) == 200
    for text in ids:
        found = uuid.UUID(text)
        assert (str(found), found.version, found.variant) == (text, 4, uuid.RFC_4122)


def test_event_is_completed_in_the_order_of_its_wire_form() -> None:
    event = new_event("e", resource={"id": "r"}, now=NOW, source="test", id="1", lineage={"depth": 1})
    assert list(event.data.items()) == [
        ("id", "1"),
        ("event", "e"),
        ("occurred", "2026-01-31T08:00:00.000000Z"),
        ("received", "2026-01-31T08:00:00.000000Z"),
        ("source", "test"),
        ("resource", {"id": "r"}),
        ("related", []),
        ("payload", {}),
        ("follows", None),
        ("lineage", {"depth": 1}),
    ]


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"event": None}, "event"),
        ({"evnt": 1, "color": 2}, "evnt"),
        ({"id": 5}, "id"),
        ({"resource": None}, "resource"),
        ({"resource": {"id": ""}}, "resource.id"),
        ({"resource": {"id": "r", "n": 5}}, "resource.n"),
        ({"resource": {"id": "r", "n": "a\x7f"}}, "resource.n"),
        ({"related": {"id": "r"}}, "related"),
        ({"related": {}}, "related"),
        ({"related": ""}, "related"),
        ({"related": 0}, "related"),
        ({"related": [{"id": "r"}, {"name": "x"}]}, "related[1].id"),
        ({"occurred": ""}, "occurred"),
        ({"occurred": 5}, "occurred"),
        ({"follows": ""}, "follows"),
    ],
)
def test_refusal_names_the_field(data: dict[str, Any], field: str) -> None:
    assert refused_field(**data) == field


def test_absent_resource_is_told_from_one_that_is_null() -> None:
    with pytest.raises(InvalidEvent, match="missing"):
        read({"event": "e", "id": "1"})
    with pytest.raises(InvalidEvent, match="found null"):
        read({"event": "e", "id": "1", "resource": None})


@given(
    moment=st.datetimes(min_value=datetime(1000, 1, 2), max_value=datetime(9999, 12, 30)),
    offset=st.integers(-1439, 1439),
)
def test_time_is_written_in_one_form_and_read_back(moment: datetime, offset: int) -> None:
    there = moment.replace(tzinfo=timezone(timedelta(minutes=offset)))
    text = format_time(there)
    assert text == there.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    assert len(text) == 27
    assert parse_time(text) == there


@pytest.mark.parametrize(
    "char", ["\x00", "\x1b", "\x7f", "\x80", "\x9b", "\x9f", "\u202a", "\u202e", "\u2066", "\u2069"]
)
@pytest.mark.parametrize("field", ["event", "id", "follows", "resource.id", "resource.x", "related"])
def test_what_a_terminal_obeys_is_refused_in_names_ids_and_labels(char: str, field: str) -> None:
    text = f"a{char}b"
    event: dict[str, Any] = {"event": "e", "resource": {"id": "r"}, "id": "i", "follows": "f"}
    if field == "related":
        event["related"] = [{"id": text}]
    elif field.startswith("resource."):
        event["resource"][field.partition(".")[2]] = text
    else:
        event[field] = text
    with pytest.raises(InvalidEvent, match="control characters"):
        read_event(event, now=NOW, source="api")
