"""Webhooks with a mapping: how requests become events, what is dropped, what is refused."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from whenthen.schemas.errors import InvalidEvent, InvalidInput, Refused, ReservedName, UnsupportedMediaType
from whenthen.sources import Request
from whenthen.sources.mapping import delivery_event_id

ORDER = {
    "number": 17,
    "total": 9.5,
    "paid": True,
    "customer": {"name": "Ada"},
    "note": None,
    "at": "2026-01-31T07:00:00Z",
}
MAP: dict[str, Any] = {"event": "order.{{ body.customer.name | lower }}", "resource": {"id": "order.{{ body.number }}"}}


def post(body: Any, *, type: str | None = "application/json", **headers: str) -> Request:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request.of(headers={**found, **({"Content-Type": type} if type else {})}, body=raw)


def test_request_becomes_an_event_with_types_kept(build: Any, now: datetime) -> None:
    hook = build(
        map={
            "event": "order.paid",
            "resource": {"id": "order.{{ body.number }}", "number": "$.body.number", "paid": "$.body.paid"},
            "related": [{"id": "customer.{{ body.customer.name }}", "role": "customer"}],
            "payload": {
                "order": "$.body",
                "agent": "$.headers.user-agent",
                "q": "$.query.q",
                "m": "{{ method }} {{ name }}",
            },
            "occurred": "$.body.at",
            "id": "$.headers.x-delivery",
        }
    )
    request = Request.of(
        headers={"Content-Type": "application/json", "User-Agent": "shop/1", "X-Delivery": "d1"},
        query={"q": "1"},
        body=json.dumps(ORDER).encode(),
    )
    result = hook.translate(request, now)
    [event] = result.events
    assert result.dropped == []
    assert event.data == {
        "id": "hook/d1",
        "event": "order.paid",
        "occurred": "2026-01-31T07:00:00.000000Z",
        "received": "2026-01-31T08:00:00.000000Z",
        "source": "webhook:hook",
        "resource": {"id": "order.17", "number": "17", "paid": "true"},
        "related": [{"id": "customer.Ada", "role": "customer"}],
        "payload": {"order": ORDER, "agent": "shop/1", "q": "1", "m": "POST hook"},
        "follows": None,
    }
    assert hook.translate(request, now).events[0].id == event.id


def test_a_resource_may_be_one_path_that_gives_all_its_labels(build: Any, now: datetime) -> None:
    parts = [{"id": "a", "role": "part"}, {"id": "b"}]
    body = {"labels": {"id": "host-7", "site": "eu", "size": 3, "up": True}, "parts": parts, "inner": {"a": [1]}}
    hook = build(map={"event": "e", "resource": "$.body.labels", "related": "$.body.parts", "payload": "$.body.inner"})
    (event,) = hook.translate(post(body), now).events
    assert event.resource == {"id": "host-7", "site": "eu", "size": "3", "up": "true"}
    assert event.related == parts
    assert event.payload == {"a": [1]}
    hook = build(
        map={"event": "e", "each": "$.body.parts", "resource": "$.item", "related": ["$.body.labels", {"id": "x"}]}
    )
    first, second = hook.translate(post(body), now).events
    assert (first.resource, second.resource) == (parts[0], parts[1])
    assert [each["id"] for each in first.related] == ["host-7", "x"]


def test_whole_body_is_the_payload_and_the_id_is_random_by_default(build: Any, now: datetime) -> None:
    hook = build(map=MAP)
    first, second = (hook.translate(post(ORDER), now).events[0] for _ in range(2))
    assert first.payload == ORDER
    assert first.name == "order.ada"
    assert first.occurred == now
    assert first.id != second.id


def test_each_item_of_a_list_is_an_event_with_its_own_id(build: Any, now: datetime) -> None:
    mapping = {"each": "$.body.rows", "event": "row", "resource": {"id": "row.{{ item.n }}"}, "id": "$.body.delivery"}
    body = {"delivery": "d", "rows": [{"n": 1}, {"n": 2}]}
    events = build(map=mapping).translate(post(body), now).events
    assert [event.id for event in events] == ["hook/d-0", "hook/d-1"]
    assert [event.payload for event in events] == [{"n": 1}, {"n": 2}]
    by_item = build(map={**mapping, "id": "{{ item.n }}"}).translate(post(body), now).events
    assert [event.id for event in by_item] == ["hook/1", "hook/2"]


def test_list_body_can_be_taken_apart(build: Any, now: datetime) -> None:
    hook = build(map={"each": "$.body[*].x", "event": "e", "resource": {"id": "$.item"}})
    assert [event.resource["id"] for event in hook.translate(post([{"x": 1}, {"y": 0}, {"x": 2}]), now).events] == [
        "1",
        "2",
    ]


def test_condition_drops_with_the_reason(build: Any, now: datetime) -> None:
    hook = build(map={**MAP, "when": "body.total > 5.0"})
    assert len(hook.translate(post(ORDER), now).events) == 1
    small = hook.translate(post({**ORDER, "total": 1.5}), now)
    assert small.events == []
    assert small.dropped == ["map.when: does not hold"]
    missing = hook.translate(post({"number": 1}), now)
    assert missing.events == []
    assert "total" in missing.dropped[0]
    assert missing.dropped[0].startswith("map.when: ")


def test_condition_sees_each_item_alone(build: Any, now: datetime) -> None:
    mapping = {"each": "$.body", "when": "item.n > 1", "event": "e", "resource": {"id": "{{ item.n }}"}}
    result = build(map=mapping).translate(post([{"n": 1}, {"n": 2}, {}]), now)
    assert [event.resource["id"] for event in result.events] == ["2"]
    assert [reason.partition(": ")[0] for reason in result.dropped] == ["items[0].map.when", "items[2].map.when"]


def test_empty_list_is_no_event_and_says_so(build: Any, now: datetime) -> None:
    result = build(map={"each": "$.body", "event": "e", "resource": {"id": "x"}}).translate(post([]), now)
    assert (result.events, len(result.dropped)) == ([], 1)


def test_form_text_and_json_bodies_are_understood(build: Any, now: datetime) -> None:
    hook = build(map={"event": "e", "resource": {"id": "x"}})

    def payload(body: bytes, type: str | None) -> Any:
        return hook.translate(post(body, type=type), now).events[0].payload

    assert payload(b'{"a": 1}', "application/vnd.api+json; charset=utf-8") == {"a": 1}
    assert payload(b'\xef\xbb\xbf{"a": 1}', None) == {"a": 1}
    assert payload(b"a=1&b=x+y&b=%C3%A9&c=", "application/x-www-form-urlencoded") == {
        "a": "1",
        "b": ["x y", "é"],
        "c": "",
    }
    assert payload("grüße".encode(), "text/plain") == "grüße"
    assert payload("grüße".encode("latin-1"), "text/plain; charset=ISO-8859-1") == "grüße"


@pytest.mark.parametrize(
    "type",
    ["image/png", "multipart/form-data; boundary=x", "application/octet-stream", "text/plain; charset=utf-7", "x"],
)
def test_other_content_types_are_refused_with_415(build: Any, now: datetime, type: str) -> None:
    with pytest.raises(UnsupportedMediaType) as caught:
        build(map=MAP).translate(post(b"{}", type=type), now)
    assert caught.value.status == 415


@pytest.mark.parametrize(
    ("body", "type", "part"),
    [
        (b"", "application/json", "body: empty"),
        (b"  \n", "application/json", "body: empty"),
        (b"", "application/x-www-form-urlencoded", "body: empty"),
        (b"", "text/plain", "body: empty"),
        (b'{"a": 1,\n "b" 2}', "application/json", "line 2, column 6"),
        (b'{"a": NaN}', "application/json", "column 7"),
        (b"\xff\xfe", "application/json", "byte 0"),
        (b'{"a": "\xff"}', "application/json", "byte 7"),
        (b"\xff", "text/plain", "byte 0"),
        (b"a=%ff", "application/x-www-form-urlencoded", "UTF-8"),
        (b'{"a": "\\ud800"}', "application/json", "not JSON at line 1"),
        (b"[" * 10_000 + b"]" * 10_000, "application/json", "nested more than 100 deep"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "application/json", "nested more than 100 deep"),
        (b"[" * 300 + b"]" * 300, "application/json", "nested more than 100 deep"),
        (b"5", "application/json", "found a number"),
        (b"null", "application/json", "found null"),
        (b'"text"', "application/json", "found text"),
        (b'{"a": 1}', "application/x-www-form-urlencoded", "Content-Type: application/json"),
        (b"&".join(b"a%d=1" % n for n in range(10_001)), "application/x-www-form-urlencoded", "form fields"),
    ],
)
def test_body_that_can_not_be_read_is_refused_with_the_place(
    build: Any, now: datetime, body: bytes, type: str, part: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        build(map=MAP).translate(post(body, type=type), now)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("mapping", "part"),
    [
        ({"event": "{{ body.gone }}"}, "map.event: line 1: body.gone"),
        ({"event": "$.body.number"}, "map.event: text is expected, found a number"),
        ({"event": "a\nb"}, "event: has control characters"),
        ({"resource": {"id": "$.body.gone"}}, "map.resource.id: $.body.gone: no 'gone' in $.body"),
        ({"resource": {"id": "$.body.customer"}}, "map.resource.id: text is expected, found an object"),
        ({"resource": {"id": "x", "note": "$.body.note"}}, "map.resource.note: text is expected, found null"),
        ({"resource": {"id": ""}}, "resource.id: empty"),
        ({"related": [{"id": "$.body.note"}]}, "map.related[0].id"),
        ({"resource": "$.body.number"}, "map.resource: an object of labels is expected, found a number"),
        ({"resource": "$.body.gone"}, "map.resource: $.body.gone: no 'gone' in $.body"),
        ({"resource": "$.body.customer"}, "resource.id: missing"),
        ({"resource": "$.body"}, "map.resource.customer: text is expected, found an object"),
        ({"related": "$.body.customer"}, "map.related: a list of objects is expected, found an object"),
        ({"related": ["$.body.note"]}, "map.related[0]: an object of labels is expected, found null"),
        ({"occurred": "$.body.customer.name"}, "occurred: 'Ada' is not a time"),
        ({"occurred": "$.body.note"}, "map.occurred: a time is expected, found null"),
        ({"occurred": "2026-01-31T07:00:00"}, "no time zone"),
        ({"occurred": "9999-01-01T00:00:00Z"}, "ahead"),
        ({"id": "$.headers.x-delivery"}, "map.id: $.headers.x-delivery"),
        ({"id": "{{ '' }}"}, "map.id: empty"),
        ({"each": "$.body.customer"}, "map.each: $.body.customer is an object"),
        ({"each": "$.body.gone"}, "map.each: $.body.gone: no 'gone'"),
    ],
)
def test_request_that_does_not_fit_is_refused_with_the_field(
    build: Any, now: datetime, mapping: dict[str, Any], part: str
) -> None:
    hook = build(map={**MAP, **mapping})
    with pytest.raises(InvalidInput) as caught:
        hook.translate(post(ORDER), now)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("deploy prod", "shop.deploy prod"),
        ("two\nlines\x00", "shop.two-lines-"),
        ("line\n", "shop.line"),
        ("\u202eabc", "shop.-abc"),
        ("größer", "shop.größer"),
        ("x" * 300, "shop." + "x" * 251),
    ],
)
@pytest.mark.parametrize("spec", ["shop.{{ body.kind }}", "$.body.name"])
def test_name_that_comes_out_of_a_request_is_made_legal(
    build: Any, now: datetime, spec: str, kind: str, name: str
) -> None:
    hook = build(map={**MAP, "event": spec, "resource": {"id": "x"}})
    [event] = hook.translate(post({"kind": kind, "name": f"shop.{kind}"}), now).events
    assert event.name == name


@pytest.mark.parametrize("spec", ["{{ body.kind }}", "$.body.kind", " "])
def test_name_of_which_nothing_is_there_is_refused_with_the_remedy(build: Any, now: datetime, spec: str) -> None:
    hook = build(map={**MAP, "event": spec, "resource": {"id": "x"}})
    with pytest.raises(InvalidEvent, match=r"map\.event: empty; begin the name with a word of your own"):
        hook.translate(post({"kind": " "}), now)


SNS = {
    "Type": "Notification",
    "MessageId": "m1",
    "TopicArn": "arn:aws:sns:eu-west-1:0:alarms",
    "Timestamp": "2026-01-31T07:59:00.000Z",
    "Message": json.dumps({"AlarmName": "cpu", "NewStateValue": "ALARM", "AWSAccountId": 123456789012}),
}


@pytest.mark.parametrize("type", ["text/plain; charset=UTF-8", "application/octet-stream", "application/json", None])
def test_json_under_another_content_type_and_json_inside_a_text_are_read_when_the_webhook_says_so(
    build: Any, now: datetime, type: str | None
) -> None:
    mapping = {
        "body": "json",
        "event": "aws.alarm",
        "resource": {"id": "{{ (body.Message | from_json).AlarmName }}", "topic": "$.body.TopicArn"},
        "payload": "{{ body.Message | from_json }}",
        "occurred": "$.body.Timestamp",
        "id": "$.body.MessageId",
    }
    [event] = build(map=mapping).translate(post(SNS, type=type), now).events
    assert event.resource == {"id": "cpu", "topic": SNS["TopicArn"]}
    assert event.payload == json.loads(SNS["Message"])
    assert event.id == "hook/m1"


def test_body_that_is_no_json_although_the_webhook_says_so_is_refused(build: Any, now: datetime) -> None:
    hook = build(map={**MAP, "body": "json"})
    for body, part in ((b"hello", "not JSON at line 1, column 1"), (b"5", "a JSON object or list is expected")):
        with pytest.raises(InvalidEvent, match=part):
            hook.translate(post(body, type="text/plain"), now)


def test_text_json_is_json(build: Any, now: datetime) -> None:
    assert build(map=MAP).translate(post(ORDER, type="text/json"), now).events[0].payload == ORDER


def test_error_in_one_item_names_the_item_and_refuses_all(build: Any, now: datetime) -> None:
    hook = build(map={"each": "$.body", "event": "e", "resource": {"id": "$.item.id"}})
    with pytest.raises(InvalidEvent, match=r"items\[1\]\.map\.resource\.id: ") as caught:
        hook.translate(post([{"id": "a"}, {"id": None}]), now)
    assert caught.value.path == ("items", 1, "map", "resource", "id")
    with pytest.raises(InvalidInput, match="1001 items"):
        hook.translate(post([{"id": "a"}] * 1001), now)


@pytest.mark.parametrize(("stamp", "year"), [(1_700_000_000, 2023), (1_700_000_000_000, 2023), (1_700_000_000.5, 2023)])
def test_number_is_a_time_in_seconds_or_milliseconds(build: Any, now: datetime, stamp: float, year: int) -> None:
    hook = build(map={**MAP, "occurred": "$.body.at"})
    assert hook.translate(post({**ORDER, "at": stamp}), now).events[0].occurred.year == year


@pytest.mark.parametrize(
    ("stamp", "occurred"),
    [
        ("1769846400", "2026-01-31T08:00:00.000000Z"),
        ("1769846400.25", "2026-01-31T08:00:00.250000Z"),
        ("1769846400123", "2026-01-31T08:00:00.123000Z"),
        ("1769846400123456", "2026-01-31T08:00:00.123456Z"),
        ("1769846400123456789", "2026-01-31T08:00:00.123456Z"),
        (1769846400123456, "2026-01-31T08:00:00.123456Z"),
        (1769846400123456789, "2026-01-31T08:00:00.123456Z"),
        ("2026-01-31 08:00:00 UTC", "2026-01-31T08:00:00.000000Z"),
        ("2026-01-31 10:00:00 +0200", "2026-01-31T08:00:00.000000Z"),
        ("2026-01-31T08:00:00.000+0000", "2026-01-31T08:00:00.000000Z"),
        ("2026-01-31T09:00:00+01", "2026-01-31T08:00:00.000000Z"),
        ("2026-01-31T09:00:00+01:00[Europe/Berlin]", "2026-01-31T08:00:00.000000Z"),
        ("20260131T080000Z", "2026-01-31T08:00:00.000000Z"),
        ("2026-01-31T08:00Z", "2026-01-31T08:00:00.000000Z"),
        ("2026-01-31 08:00:00,5 GMT", "2026-01-31T08:00:00.500000Z"),
        ("2026-01-31 08:00:00.123456789 +0000 UTC", "2026-01-31T08:00:00.123456Z"),
        ("Sat, 31 Jan 2026 08:00:00 GMT", "2026-01-31T08:00:00.000000Z"),
        (" 2026-01-31T08:00:00Z ", "2026-01-31T08:00:00.000000Z"),
    ],
)
def test_time_is_told_from_every_form_that_has_one_meaning(
    build: Any, now: datetime, stamp: Any, occurred: str
) -> None:
    hook = build(map={**MAP, "occurred": "$.body.at"})
    assert hook.translate(post({**ORDER, "at": stamp}), now).events[0].data["occurred"] == occurred


def test_time_may_come_from_a_header_or_a_form_field(build: Any, now: datetime) -> None:
    mapping = {"event": "e", "resource": {"id": "x"}, "occurred": "$.headers.x-time"}
    [event] = build(map=mapping).translate(post({}, x_time="1769846400"), now).events
    assert event.occurred == now
    form = post(b"timestamp=1769846400000", type="application/x-www-form-urlencoded")
    [event] = build(map={**mapping, "occurred": "{{ body.timestamp }}"}).translate(form, now).events
    assert event.occurred == now


@pytest.mark.parametrize(
    ("stamp", "part"),
    [
        ("20260131", "is not a time"),
        ("20260131080000", "is not a time"),
        ("31/01/2026", "is not a time"),
        ("2026-01-31 08:00:00 EST", "is not a time"),
        ("2026-01-31 08:00:00", "has no time zone"),
        ("20260131T080000", "has no time zone"),
        ("2026-02-30 08:00:00 UTC", "is not a time: day is out of range for month"),
        ("9" * 4000, "is not a time"),
        ("-1769846400", "is not a time"),
    ],
)
def test_time_that_could_mean_something_else_is_refused_with_the_filter(
    build: Any, now: datetime, stamp: str, part: str
) -> None:
    hook = build(map={**MAP, "occurred": "$.body.at"})
    with pytest.raises(InvalidEvent) as caught:
        hook.translate(post({**ORDER, "at": stamp}), now)
    assert part in str(caught.value)
    assert "| parse_time(" in str(caught.value)


@pytest.mark.parametrize("stamp", [1e300, -5e10, -(10**15), True, [1]])
def test_number_that_is_no_time_is_refused(build: Any, now: datetime, stamp: Any) -> None:
    hook = build(map={**MAP, "occurred": "$.body.at"})
    with pytest.raises(InvalidInput, match="occurred"):
        hook.translate(post({**ORDER, "at": stamp}), now)


@pytest.mark.parametrize("field", ["event", "resource.id", "resource.kind", "id", "occurred"])
@pytest.mark.parametrize(("value", "kind"), [(None, "null"), ([1, 2], "a list"), ({"a": 1}, "an object")])
def test_null_lists_and_objects_in_a_text_are_refused_and_never_become_the_same_id(
    build: Any, now: datetime, field: str, value: Any, kind: str
) -> None:
    mapping: dict[str, Any] = {"event": "job.ended", "resource": {"id": "job.1"}}
    top, _, label = field.partition(".")
    text = "x-{{ body.value }}"
    mapping[top] = {**mapping[top], label: text} if label else text
    with pytest.raises(InvalidInput) as caught:
        build(map=mapping).translate(post({"value": value}), now)
    assert str(caught.value).startswith(f"map.{field}: line 1: body.value: {kind} has no text; ")


def test_scalars_in_a_text_and_behind_a_path_are_written_alike(build: Any, now: datetime) -> None:
    body = {"yes": True, "no": False, "n": 7, "f": 1.5, "e": 1e16}
    labels = {name: f"$.body.{name}" for name in body} | {f"t_{name}": f"{{{{ body.{name} }}}}" for name in body}
    hook = build(map={"event": "job.{{ body.yes }}", "resource": {"id": "job.1", **labels}, "id": "{{ body.no }}-1"})
    [event] = hook.translate(post(body), now).events
    assert event.data["event"] == "job.true"
    assert event.data["id"].endswith("false-1")
    for name, value in body.items():
        assert event.data["resource"][name] == event.data["resource"][f"t_{name}"] == json.dumps(value)


def test_delivery_id_that_is_no_legal_event_id_still_makes_redeliveries_the_same(build: Any, now: datetime) -> None:
    hook = build(map={**MAP, "id": "$.body.at"})
    for delivery in ("x" * 1000, "a\x00b", "a b/*>."):
        first, second = (hook.translate(post({**ORDER, "at": delivery}), now).events[0] for _ in range(2))
        assert first.id == second.id
        assert first.id.startswith("hook/")


@pytest.mark.parametrize(
    ("mapping", "part"),
    [
        ({"event": "{{ bdy.x }}"}, "map.event: line 1: unknown variable 'bdy'; did you mean 'body'?"),
        ({"event": "{{ item.x }}"}, "map.event: line 1: unknown variable 'item'"),
        ({"event": "{{ x"}, "map.event: line 1"),
        ({"resource": {"id": "$.bdy.x"}}, "did you mean $.body?"),
        ({"payload": [{"x": "$.body["}]}, "map.payload[0].x: column"),
        ({"resource": "$.bdy.x"}, "map.resource: "),
        ({"related": ["$.body["]}, "map.related[0]: "),
        ({"each": "body.x"}, "map.each: column 1"),
        ({"each": "$.item.x"}, "map.each: column 2"),
        ({"when": "body.x >"}, "map.when: "),
        ({"when": "bdy.x == 1"}, "map.when: "),
        ({"id": "$.headrs.x"}, "map.id: "),
    ],
)
def test_wrong_mapping_is_refused_when_it_is_loaded(build: Any, mapping: dict[str, Any], part: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        build(map={**MAP, **mapping})
    assert part in str(caught.value)


def test_settings_that_contradict_are_refused_when_they_are_loaded(build: Any) -> None:
    with pytest.raises(InvalidInput, match=r"map\.when"):
        build(map=MAP, when="event.payload.x == 1")
    with pytest.raises(InvalidInput, match="not both"):
        build(preset="github", secret="env:NEW", verify="none")
    with pytest.raises(InvalidInput, match=r"^when: "):
        build(preset="s3", when="body.x == 1")


def test_unverified_request_is_refused_before_its_body_is_read(build: Any, now: datetime) -> None:
    hook = build(map=MAP, verify={"type": "bearer", "token": "env:NEW"})
    with pytest.raises(Refused) as caught:
        hook.translate(post(b"not json"), now)
    assert caught.value.status == 401


def test_events_that_each_repeat_the_whole_body_are_refused_once_they_take_too_much(build: Any, now: datetime) -> None:
    hook = build(
        map={
            "each": "$.body.items",
            "event": "a.b",
            "resource": {"id": "x"},
            "payload": {"item": "$.item", "all": "$.body"},
        }
    )
    body = {"items": list(range(1000)), "filling": "x" * 1_000_000}
    with pytest.raises(InvalidInput, match="the payloads of this request's events take more than 16000000 bytes"):
        hook.translate(post(body), now)
    few = hook.translate(post({"items": [1, 2], "filling": "x" * 1_000_000}), now)
    assert len(few.events) == 2
    assert 2_000_000 < few.extra_bytes < 2_100_000


def test_one_event_that_repeats_the_body_many_times_is_refused(build: Any, now: datetime) -> None:
    hook = build(map={"event": "a.b", "resource": {"id": "x"}, "payload": {f"p{n}": "$.body" for n in range(100)}})
    with pytest.raises(InvalidInput, match="take more than 16000000 bytes"):
        hook.translate(post({"filling": "x" * 1_000_000}), now)
    assert len(hook.translate(post({"filling": "x" * 1_000}), now).events) == 1


def test_large_items_each_once_are_taken(build: Any, now: datetime) -> None:
    hook = build(map={"each": "$.body", "event": "a.b", "resource": {"id": "x"}})
    result = hook.translate(post(["x" * 1_000_000] * 20), now)
    assert len(result.events) == 20


NAMES = st.from_regex(r"[a-z-]{1,6}", fullmatch=True)
DELIVERIES = st.text(alphabet="ab-/.0\x00é", min_size=1, max_size=6) | st.sampled_from(["d" * 300, "e" * 300])


@given(NAMES, DELIVERIES, NAMES, DELIVERIES)
@example("shop", "eu-1001", "shop-eu", "1001")
def test_two_webhooks_or_deliveries_never_make_one_id(name: str, delivery: str, other: str, another: str) -> None:
    same = (name, delivery) == (other, another)
    assert (delivery_event_id(name, delivery) == delivery_event_id(other, another)) is same
    assert len(delivery_event_id("n" * 200, delivery)) <= 256


def test_a_sender_of_one_webhook_can_not_suppress_an_event_of_another(build: Any, now: datetime) -> None:
    mapping = {**MAP, "id": "$.headers.x-delivery"}
    ids = [
        build(name=name, map=mapping).translate(post(ORDER, x_delivery=delivery), now).events[0].id
        for name, delivery in (("shop", "eu-1001"), ("shop-eu", "1001"))
    ]
    assert ids == ["shop/eu-1001", "shop-eu/1001"]


@pytest.mark.parametrize(
    "id", ["0" * 32 + "-3", "emitted-" + "0" * 32 + ".0", "0" * 32 + ".0.failed.1", "loop-" + "0" * 32]
)
def test_a_webhook_can_not_make_an_id_of_the_engines_own(build: Any, now: datetime, id: str) -> None:
    [event] = build(map={**MAP, "id": "$.headers.x-delivery"}).translate(post(ORDER, x_delivery=id), now).events
    assert event.id == f"hook/{id}"


@pytest.mark.parametrize(
    "name", ["flow-run.Failed", "automation.action.failed", "task-run.x", "deployment.x", "work-pool.x"]
)
def test_a_request_can_not_be_an_event_that_is_called_like_the_engines_own(
    build: Any, now: datetime, name: str
) -> None:
    mapping = {"event": "$.body.event", "resource": {"id": "x"}}
    with pytest.raises(ReservedName, match="allow_reserved_names") as caught:
        build(map=mapping).translate(post({"event": name}), now)
    assert caught.value.path == ("event",)
    assert caught.value.reason == "reserved_name"
    [event] = build(map=mapping, allow_reserved_names=True).translate(post({"event": name}), now).events
    assert event.name == name


def test_a_reserved_name_in_the_mapping_is_refused_when_it_is_loaded(build: Any) -> None:
    mapping = {"event": "flow-run.{{ body.state }}", "resource": {"id": "x"}}
    with pytest.raises(InvalidInput, match="allow_reserved_names: true") as caught:
        build(map=mapping)
    assert caught.value.path == ("map", "event")
    build(map=mapping, allow_reserved_names=True)


def signed(body: bytes, stamp: int, **headers: str) -> Request:
    digest = hmac.new(b"new secret", f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    return post(body, x_stamp=str(stamp), x_signature=digest, **headers)


def test_a_signed_request_that_is_repeated_is_the_same_event_without_an_id(build: Any, now: datetime) -> None:
    verify = {"type": "hmac", "secret": "env:NEW", "header": "x-signature", "timestamp_header": "x-stamp"}
    hook = build(verify=verify, map=MAP)
    stamp = int(now.timestamp())
    body = json.dumps(ORDER).encode()

    def id_of(request: Request) -> str:
        return str(hook.translate(request, now).events[0].id)

    first = id_of(signed(body, stamp))
    assert first.startswith("hook/")
    repeated = signed(body, stamp)
    repeated.headers["x-signature"] = repeated.headers["x-signature"].upper()
    assert id_of(repeated) == first
    assert id_of(signed(body + b" ", stamp)) != first
    assert id_of(signed(body, stamp + 1)) != first
    assert build(name="other", verify=verify, map=MAP).translate(signed(body, stamp), now).events[0].id != first
    own = build(verify=verify, map={**MAP, "id": "$.headers.x-delivery"})
    assert own.translate(signed(body, stamp, x_delivery="7"), now).events[0].id == "hook/7"


def test_items_of_a_signed_request_have_ids_of_their_own(build: Any, now: datetime) -> None:
    verify = {"type": "hmac", "secret": "env:NEW", "header": "x-signature", "timestamp_header": "x-stamp"}
    hook = build(verify=verify, map={"each": "$.body", "event": "e", "resource": {"id": "x"}})
    request = signed(b"[1, 1]", int(now.timestamp()))
    ids = [[event.id for event in hook.translate(request, now).events] for _ in range(2)]
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 2


@pytest.mark.parametrize(("at", "kept"), [("2026-01-31T07:59:30Z", 1), ("2026-01-31T07:00:00Z", 0)])
def test_now_in_a_condition_is_the_arrival(build: Any, now: datetime, at: str, kept: int) -> None:
    mapped = build(map={**MAP, "when": 'now - timestamp(body.at) < duration("1m")'})
    assert len(mapped.translate(post({**ORDER, "at": at}), now).events) == kept
    preset = build(preset="github", when='now == timestamp("2026-01-31T08:00:00Z")')
    request = post({"action": "opened"}, X_GitHub_Event="issues", X_GitHub_Delivery="d")
    assert len(preset.translate(request, now).events) == 1


def test_now_is_no_variable_of_the_templates_of_a_mapping(build: Any) -> None:
    with pytest.raises(InvalidInput, match="now"):
        build(map={**MAP, "resource": {"id": "{{ now }}"}})
