"""Events over HTTP: what is acknowledged, what is refused and how."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import orjson
import pytest
from http_fakes import NOW, FakeApi, app_over, client_of, shared_app_over
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import up_to
from whenthen.schemas.errors import BusUnavailable, NotFound, SecretUnreadable
from whenthen.schemas.webhooks import Webhook
from whenthen.sources import Request, WebhookTranslator

EVENT = {"event": "order.created", "resource": {"id": "order.1"}}


def call(api: FakeApi, method: str, path: str, *, app: dict[str, Any] | None = None, **request: Any) -> httpx.Response:
    async def run() -> httpx.Response:
        async with client_of(shared_app_over(api) if app is None else app_over(api, **app)) as client:
            return await client.request(method, path, **request)

    return asyncio.run(run())


def post(api: FakeApi, body: Any, path: str = "/api/events", **request: Any) -> httpx.Response:
    if not isinstance(body, bytes):
        body = orjson.dumps(body)
    headers = {"content-type": "application/json", **request.pop("headers", {})}
    return call(api, "POST", path, content=body, headers=headers, **request)


def test_one_event_is_answered_with_its_id_once_it_is_stored() -> None:
    api = FakeApi()
    response = post(api, {**EVENT, "id": "e1"})
    assert (response.status_code, response.json()) == (202, {"ids": ["e1"], "duplicates": []})
    assert api.stored["e1"].data["source"] == "api"


def test_an_event_without_an_id_gets_one() -> None:
    api = FakeApi()
    response = post(api, EVENT)
    assert response.json()["ids"] == list(api.stored)


def test_the_same_event_again_is_told_as_a_duplicate() -> None:
    api = FakeApi()
    post(api, {**EVENT, "id": "e1"})
    assert post(api, {**EVENT, "id": "e1"}).json() == {"ids": ["e1"], "duplicates": ["e1"]}


def test_a_list_is_stored_in_order() -> None:
    api = FakeApi()
    response = post(api, [{**EVENT, "id": f"e{i}"} for i in range(50)])
    assert response.status_code == 202
    assert api.order == response.json()["ids"] == [f"e{i}" for i in range(50)]


def test_of_a_list_with_one_bad_event_none_is_stored() -> None:
    api = FakeApi()
    response = post(api, [EVENT, {**EVENT, "resource": {"id": 3}}])
    assert response.status_code == 400
    assert response.json()["error"]["field"] == "[1].resource.id"
    assert api.stored == {}


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        (b"", "body", "empty; send JSON"),
        (b"  \n", "body", "empty; send JSON"),
        (b'{"event": }', "body", "not JSON at line 1, column 11"),
        (b'{"event": "\xff"}', "body", "byte 11 (0xff) is not UTF-8"),
        (b"[" * 10_000 + b"]" * 10_000, "body", "nested more than 100 deep"),
        (
            orjson.dumps(EVENT)[:-1] + b',"payload":' + b"[" * 100 + b"]" * 100 + b"}",
            "body",
            "nested more than 100 deep",
        ),
        (b"3", "event", "an event is a JSON object, found a number"),
        (b"[]", "events", "the list is empty"),
        (b"[3]", "[0].event", "an event is a JSON object"),
        (b"{}", "event", "missing"),
        (b'{"evnt": 1}', "evnt", 'did you mean "event"?'),
        (b'{"event": "a", "resource": {}}', "resource.id", "missing"),
    ],
)
def test_what_is_wrong_is_answered_400_with_the_field_at_fault(body: bytes, field: str | None, message: str) -> None:
    api = FakeApi()
    response = post(api, body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["field"] == field
    assert message in error["message"]
    assert error["reason"] in ("invalid_json", "invalid_event")
    assert api.stored == {}


def test_nesting_up_to_the_limit_is_taken() -> None:
    body = orjson.dumps(EVENT)[:-1] + b',"payload":' + b"[" * 99 + b"]" * 99 + b"}"
    assert post(FakeApi(), body).status_code == 202


def test_more_events_than_allowed_are_refused() -> None:
    response = post(FakeApi(), [EVENT] * 3, app={"events_per_request": 2})
    assert response.json()["error"]["message"] == "3 events in one request; at most 2 are taken"


def test_an_announced_body_past_the_limit_is_refused_before_it_is_read() -> None:
    async def run() -> tuple[int, int]:
        reads = 0

        async def receive() -> dict[str, Any]:
            nonlocal reads
            reads += 1
            return {"type": "http.request", "body": b"", "more_body": False}

        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/api/events",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json"), (b"content-length", b"100000000")],
        }
        await app_over(FakeApi())(scope, receive, send)
        assert (b"connection", b"close") in sent[0]["headers"]
        return sent[0]["status"], reads

    assert asyncio.run(run()) == (413, 0)


def test_a_streamed_body_is_refused_as_soon_as_it_passes_the_limit() -> None:
    sent = 0

    async def stream() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 1
            yield b"x" * 1000

    async def run() -> httpx.Response:
        async with client_of(app_over(FakeApi(), body_limit=10_000)) as client:
            return await client.post("/api/events", content=stream(), headers={"content-type": "application/json"})

    response = asyncio.run(run())
    assert response.status_code == 413
    assert response.json()["error"]["reason"] == "body_too_large"
    assert sent < 20


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "text/plain"},
        {"content-encoding": "gzip"},
        {"content-type": "application/json; charset=utf-16"},
    ],
)
def test_another_kind_of_body_is_refused(headers: dict[str, str]) -> None:
    assert post(FakeApi(), EVENT, headers=headers).status_code == 415


def test_a_charset_of_utf_8_is_fine_and_a_missing_content_type_is_not() -> None:
    assert post(FakeApi(), EVENT, headers={"content-type": "Application/JSON; charset=UTF-8"}).status_code == 202
    # what a browser sends for a script of any page, without asking first
    assert call(FakeApi(), "POST", "/api/events", content=orjson.dumps(EVENT)).status_code == 415


def test_a_cloudevent_is_taken() -> None:
    api = FakeApi()
    body = {"specversion": "1.0", "type": "a.b", "id": "c1", "source": "/x"}
    assert post(api, body, headers={"content-type": "application/cloudevents+json"}).json()["ids"] == ["/x#c1"]
    headers = {"content-type": "application/cloudevents-batch+json"}
    assert post(api, [body, {**body, "id": "c2"}], headers=headers).json()["ids"] == ["/x#c1", "/x#c2"]


def told(response: httpx.Response) -> str:
    error = response.json()["error"]
    return f"{error['field']}: {error['message']}"


CLOUD = {"specversion": "1.0", "type": "a.b", "id": "c1", "source": "/x"}
BINARY = {"ce-specversion": "1.0", "ce-type": "a.b", "ce-id": "c1", "ce-source": "/x"}


def test_a_structured_cloudevent_sent_as_plain_json_is_taken_also_among_native_events() -> None:
    api = FakeApi()
    assert post(api, CLOUD).json()["ids"] == ["/x#c1"]
    assert post(api, [{**EVENT, "id": "e1"}, {**CLOUD, "id": "c2"}]).json()["ids"] == ["e1", "/x#c2"]
    refused = post(api, [{**EVENT, "id": "e2"}, {**CLOUD, "id": ""}])
    assert refused.status_code == 400
    assert told(refused).startswith("[1].id: ")
    assert "e2" not in api.stored


def test_an_empty_batch_of_cloudevents_is_no_mistake_and_an_empty_list_of_events_is() -> None:
    headers = {"content-type": "application/cloudevents-batch+json"}
    response = post(FakeApi(), [], headers=headers)
    assert (response.status_code, response.json()) == (200, {"ids": [], "duplicates": []})
    assert post(FakeApi(), []).status_code == 400


@pytest.mark.parametrize(
    ("type", "body", "payload"),
    [
        ("application/json", b'{"n": 1}', {"n": 1}),
        ("application/vnd.x+json; charset=utf-8", b"12345", 12345),
        ("text/plain", b"12345", "12345"),
        ("text/plain; charset=iso-8859-1", "größe".encode("latin-1"), "größe"),
        ("application/xml", b"<a/>", "<a/>"),
        ("application/octet-stream", b"12345", "MTIzNDU="),
        ("image/png", b"\x89PNG", "iVBORw=="),
        (None, b'{"n": 1}', {"n": 1}),
        (None, b"plain", "plain"),
        (None, b"\xff", "/w=="),
        (None, b"", {}),
        ("application/json", b"", {}),
    ],
)
def test_a_cloudevent_in_binary_mode_is_taken_with_data_of_any_type(
    type: str | None, body: bytes, payload: Any
) -> None:
    api = FakeApi()
    headers = {**BINARY, **({"content-type": type} if type else {})}
    response = call(api, "POST", "/api/events", content=body, headers=headers)
    assert (response.status_code, response.json()["ids"]) == (202, ["/x#c1"])
    assert api.stored["/x#c1"].payload == payload


def test_attributes_of_binary_mode_are_decoded_as_the_http_binding_says() -> None:
    api = FakeApi()
    headers = {
        **BINARY,
        "ce-subject": "Euro%20%E2%82%AC%20%f0%9f%98%80",
        "ce-id": '"a \\"b\\" 100%25"',
        "CE-Time": "2026-01-31T08:00:00Z",
        "ce-comment": "50%2541",
        "content-type": "application/json",
    }
    response = call(api, "POST", "/api/events", content=b"{}", headers=headers)
    assert response.json()["ids"] == ['/x#a "b" 100%']
    [event] = api.stored.values()
    assert event.resource == {"id": "Euro € 😀", "source": "/x", "subject": "Euro € 😀", "comment": "50%41"}
    assert event.data["occurred"] == "2026-01-31T08:00:00.000000Z"


@pytest.mark.parametrize(
    ("change", "body", "part"),
    [
        ({"ce-specversion": "0.3"}, b"{}", "specversion: '0.3' is not known"),
        ({"ce-source": None}, b"{}", "source: missing"),
        ({"ce-specversion": None}, b"{}", "specversion: missing"),
        ({"ce-id": "%C0%A0"}, b"{}", "headers.ce-id: not UTF-8"),
        ({}, b"{", "body: not JSON at line 1"),
        ({"content-type": "text/plain"}, b"\xff", "body: not UTF-8"),
        ({"ce-id": "a%0Ab", "ce-type": "a%0Ab"}, b"{}", "event: has control characters"),
    ],
)
def test_a_wrong_cloudevent_in_binary_mode_is_refused_with_the_header(
    change: dict[str, str | None], body: bytes, part: str
) -> None:
    headers = {"content-type": "application/json", **BINARY, **change}
    response = call(
        FakeApi(), "POST", "/api/events", content=body, headers={k: v for k, v in headers.items() if v is not None}
    )
    assert response.status_code == 400
    assert told(response).startswith(part)


OWN_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_the_trace_of_a_cloudevent_in_binary_mode_or_in_plain_json_comes_before_that_of_its_request() -> None:
    api = FakeApi()
    request = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    own = f"00-{OWN_TRACE}-00f067aa0ba902b7-01"
    headers = {**BINARY, **request, "ce-traceparent": own, "content-type": "application/json"}
    assert call(api, "POST", "/api/events", content=b"{}", headers=headers).status_code == 202
    assert (
        post(api, [{**CLOUD, "id": "c2", "traceparent": own}, {**CLOUD, "id": "c3"}], headers=request).status_code
        == 202
    )
    assert api.stored["/x#c1"].data["trace"]["id"] == api.stored["/x#c2"].data["trace"]["id"] == OWN_TRACE
    assert api.stored["/x#c3"].data["trace"]["id"] == "0af7651916cd43dd8448eb211c80319c"
    assert "traceparent" not in api.stored["/x#c1"].resource


def test_an_attribute_given_twice_with_different_values_is_refused() -> None:
    headers = [*BINARY.items(), ("ce-id", "c2"), ("content-type", "application/json")]
    response = call(FakeApi(), "POST", "/api/events", content=b"{}", headers=headers)
    assert told(response) == "headers.ce-id: given twice, with different values"


def test_formats_of_cloudevents_that_are_not_read_are_refused_also_beside_headers() -> None:
    headers = {**BINARY, "content-type": "application/cloudevents+avro"}
    assert call(FakeApi(), "POST", "/api/events", content=b"x", headers=headers).status_code == 415
    assert (
        call(FakeApi(), "POST", "/api/events", content=b"x", headers={**BINARY, "content-encoding": "gzip"}).status_code
        == 415
    )


def test_while_the_bus_is_away_the_answer_is_503_with_retry_after() -> None:
    api = FakeApi(fail={"*": BusUnavailable("the bus is not connected")})
    response = post(api, {**EVENT, "id": "e1"})
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1
    assert response.json()["error"]["reason"] == "bus_unavailable"
    assert response.json()["accepted"] == []


def test_a_list_that_was_stored_in_part_says_which_and_can_be_sent_again() -> None:
    api = FakeApi(fail={"e1": BusUnavailable("full")})
    body = [{**EVENT, "id": f"e{i}"} for i in range(3)]
    response = post(api, body)
    assert response.status_code == 503
    assert response.json()["ids"] == ["e0", "e1", "e2"]
    assert response.json()["accepted"] == ["e0", "e2"]
    api.fail.clear()
    assert post(api, body).json() == {"ids": ["e0", "e1", "e2"], "duplicates": ["e0", "e2"]}


def test_an_unexpected_failure_is_500_and_says_nothing_of_the_inside() -> None:
    response = post(FakeApi(fail={"*": RuntimeError("secret detail")}), EVENT)
    assert response.status_code == 500
    assert "secret" not in response.text


TOKEN = {"token": "t" * 20}


@pytest.mark.parametrize(
    "given", [None, "Bearer wrong", "Basic " + "t" * 20, "t" * 20, "Bearer", "Bearer " + "t" * 19, "é"]
)
def test_without_the_token_the_api_is_closed(given: str | None) -> None:
    api = FakeApi()
    headers = {} if given is None else {"authorization": given.encode()}
    for method, path in (("POST", "/api/events"), ("GET", "/api/automations"), ("GET", "/api/nothing")):
        response = call(api, method, path, headers=headers, app=TOKEN, content=orjson.dumps(EVENT))
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
    assert api.stored == {}


def test_with_the_token_the_api_is_open_and_hooks_and_probes_need_none() -> None:
    api = FakeApi()
    for scheme in ("Bearer ", "bearer "):
        assert post(api, EVENT, headers={"authorization": scheme + "t" * 20}, app=TOKEN).status_code == 202
    assert call(api, "GET", "/healthz", app=TOKEN).status_code == 200
    assert post(api, {"number": 1}, "/hooks/orders", headers={"x-token": "right"}, app=TOKEN).status_code == 202


# Webhooks


def test_a_webhook_stores_what_it_translates() -> None:
    api = FakeApi()
    response = post(api, {"number": 7, "id": "d1"}, "/hooks/orders", headers={"X-Token": "right"})
    assert (response.status_code, response.json()) == (202, {"ids": ["d1"], "duplicates": []})
    assert api.stored["d1"].resource == {"id": "order.7"}
    assert post(api, {"number": 7, "id": "d1"}, "/hooks/orders", headers={"X-Token": "right"}).json()["duplicates"] == [
        "d1"
    ]


def test_a_request_that_gives_no_event_is_fine() -> None:
    response = post(FakeApi(), {}, "/hooks/orders?drop=1", headers={"x-token": "right"})
    assert (response.status_code, response.json()) == (200, {"ids": [], "duplicates": [], "dropped": ["when: false"]})


def test_a_bad_signature_is_401_and_a_bad_body_400() -> None:
    api = FakeApi()
    assert post(api, {"number": 1}, "/hooks/orders").status_code == 401
    assert post(api, b"{", "/hooks/orders", headers={"x-token": "right"}).status_code == 400
    response = post(api, {}, "/hooks/orders", headers={"x-token": "right"})
    assert (response.status_code, response.json()["error"]["field"]) == (400, "resource.id")
    assert api.stored == {}


def test_an_unknown_webhook_is_404_with_the_nearest_name() -> None:
    response = post(FakeApi(), {}, "/hooks/order")
    assert response.status_code == 404
    assert response.json()["error"]["message"] == 'no webhook is named "order"; did you mean "orders"?'
    assert "orders" not in post(FakeApi(), {}, "/hooks/zzz").text


def test_another_method_on_a_webhook_is_405_with_allow() -> None:
    response = call(FakeApi(), "GET", "/hooks/orders")
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"


def test_a_webhook_past_the_body_limit_is_413() -> None:
    assert post(FakeApi(), b"x" * 5000, "/hooks/orders", app={"body_limit": 2000}).status_code == 413


def test_a_failure_inside_a_webhook_is_500_without_its_text() -> None:
    response = post(FakeApi(), {"number": 1}, "/hooks/orders?crash=1", headers={"x-token": "right"})
    assert response.status_code == 500
    assert "secret" not in response.text


def test_what_was_received_and_refused_is_counted_by_source() -> None:
    api = FakeApi()
    own: dict[str, Any] = {"app": {}}  # an application of its own, which counts in the metrics of the fake
    post(api, {**EVENT, "id": "e1"}, **own)
    post(api, {**EVENT, "id": "e1"}, **own)
    post(api, b"{", **own)
    post(api, {"number": 1}, "/hooks/orders", headers={"x-token": "right"}, **own)
    post(api, {}, "/hooks/made-up-by-a-stranger", **own)
    text = api.metrics().decode()
    assert 'whenthen_events_received_total{source="api"} 2.0' in text
    assert 'whenthen_events_duplicate_total{source="api"} 1.0' in text
    assert 'whenthen_events_received_total{source="webhook:orders"} 1.0' in text
    assert 'whenthen_events_refused_total{reason="invalid_json",source="api"} 1.0' in text
    assert 'whenthen_events_refused_total{reason="not_found",source="webhook"} 1.0' in text
    assert "stranger" not in text


@up_to(50)
@given(
    body=st.binary(max_size=200)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(str).map(str.encode)
)
def test_no_body_is_answered_500(body: bytes) -> None:
    api = FakeApi()
    for path in ("/api/events", "/hooks/orders"):
        assert post(api, body, path, headers={"x-token": "right"}).status_code in (202, 400)


@up_to(50)
@given(
    st.dictionaries(
        st.sampled_from(["event", "id", "occurred", "resource", "related", "payload", "follows"]),
        st.recursive(
            st.none() | st.integers(-(2**53), 2**53) | st.text(max_size=5) | st.booleans(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        ),
    )
)
def test_no_event_is_answered_500(event: dict[str, Any]) -> None:
    response = post(FakeApi(), orjson.dumps(event))
    assert response.status_code in (202, 400)
    if response.status_code == 400:
        assert response.json()["error"]["field"]


@pytest.mark.parametrize(
    "event",
    [
        {**EVENT, "event": "flow-run.Failed"},
        {**EVENT, "event": "automation.action.failed"},
        {**EVENT, "id": "0" * 32 + "-3"},
        {**EVENT, "id": "emitted-" + "0" * 32 + ".0"},
        {**EVENT, "id": "0" * 32 + ".12.executed"},
    ],
)
def test_an_event_that_passes_for_one_of_the_engines_own_is_refused(event: dict[str, Any]) -> None:
    api = FakeApi()
    response = post(api, [EVENT, event])
    error = response.json()["error"]
    assert (response.status_code, error["reason"]) == (400, "reserved_name")
    assert error["field"].startswith("[1].")
    assert not api.stored


def test_reserved_names_are_taken_when_the_setting_says_so_but_never_the_ids() -> None:
    app = {"allow_reserved_names": True}
    assert post(FakeApi(), {**EVENT, "event": "flow-run.Failed"}, app=app).status_code == 202
    assert post(FakeApi(), {**EVENT, "id": "0" * 32 + "-3"}, app=app).status_code == 400


TRACE = {"id": "4bf92f3577b34da6a3ce929d0e0e4736", "parent": "00f067aa0ba902b7", "flags": "01"}
PARENT = f"00-{TRACE['id']}-{TRACE['parent']}-01"


def test_events_are_part_of_the_trace_of_their_request() -> None:
    api = FakeApi()
    events = [{**EVENT, "id": "e1"}, {**EVENT, "id": "e2"}]
    assert post(api, events, headers={"traceparent": PARENT, "tracestate": "a=1"}).status_code == 202
    assert [api.stored[id].data["trace"] for id in ("e1", "e2")] == [{**TRACE, "state": "a=1"}] * 2


def test_a_malformed_trace_is_ignored_and_an_event_without_one_has_no_such_field() -> None:
    api = FakeApi()
    for number, headers in enumerate(
        ({}, {"traceparent": "00-zz-01"}, {"tracestate": "a=1"}, {"traceparent": "x" * 5000})
    ):
        assert post(api, {**EVENT, "id": f"e{number}"}, headers=headers).status_code == 202
    assert [event.data for event in api.stored.values() if "trace" in event.data] == []


def test_two_traceparents_of_one_request_are_none() -> None:
    api = FakeApi()
    headers = [("content-type", "application/json"), ("traceparent", PARENT), ("traceparent", PARENT)]
    assert (
        call(api, "POST", "/api/events", content=orjson.dumps({**EVENT, "id": "e"}), headers=headers).status_code == 202
    )
    assert "trace" not in api.stored["e"].data


def test_a_cloudevent_is_part_of_the_trace_that_it_names_itself() -> None:
    api = FakeApi()
    event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "order.created"}
    other = {**event, "id": "2", "traceparent": f"00-{'1' * 32}-{'2' * 16}-00", "tracestate": "a=1"}
    headers = {"content-type": "application/cloudevents-batch+json", "traceparent": PARENT}
    assert post(api, [event, other], headers=headers).status_code == 202
    assert api.stored["/s#1"].data["trace"] == TRACE
    assert api.stored["/s#2"].data["trace"] == {"id": "1" * 32, "parent": "2" * 16, "flags": "00", "state": "a=1"}
    assert "traceparent" not in api.stored["/s#2"].resource


def test_the_events_of_a_webhook_and_its_condition_have_the_trace_of_the_request() -> None:
    webhook = Webhook.model_validate(
        {"name": "w", "preset": "s3", "verify": "none", "when": f"event.trace.id == '{TRACE['id']}'"}
    )
    record = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": "k"}}}
    translator = WebhookTranslator(webhook, resolve_secret=lambda _: "")
    request = Request(
        headers={"content-type": "application/json"}, body=orjson.dumps({"Records": [record]}), trace=TRACE
    )
    (event,) = translator.translate(request, NOW).events
    assert event.data["trace"] == TRACE
    assert translator.translate(replace(request, trace=None), NOW).events == []


def test_a_request_to_a_webhook_hands_its_trace_to_the_translation() -> None:
    api = FakeApi()
    headers = {"x-token": "right", "traceparent": PARENT}
    assert post(api, {"number": 1}, "/hooks/orders", headers=headers).status_code == 202
    assert api.translated[-1].trace == TRACE


def test_that_a_webhook_has_no_secret_is_logged_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    class Unset(FakeApi):
        def check_head(self, request: Request) -> None:
            raise SecretUnreadable("no secret can be read", status=403) from NotFound("SHOP_SECRET is not set")

    api = Unset()

    async def twice() -> list[int]:
        async with client_of(app_over(api)) as client:
            return [(await client.post("/hooks/orders", json={"number": 1})).status_code for _ in range(2)]

    assert asyncio.run(twice()) == [403, 403]
    (record,) = [record for record in caplog.records if "no secret" in record.getMessage()]
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("webhook orders: a request from")
    assert record.getMessage().endswith("SHOP_SECRET is not set")
