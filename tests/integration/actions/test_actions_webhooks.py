"""call-webhook against a real HTTP server on loopback."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import hmac
import json
import socket
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.patience import limit
from tests.unit.actions.conftest import EVENT
from whenthen.actions import AddressPolicy, open_http_client
from whenthen.actions.attempts import Call
from whenthen.actions.fields import compile_text_field
from whenthen.actions.http.call_webhook import QUOTED_CHARS, read_retry_after
from whenthen.actions.http.destinations import Destination
from whenthen.actions.http.signatures import signature_headers
from whenthen.schemas.errors import ActionError
from whenthen.schemas.trace_context import child_trace, derived_trace, trace_headers

pytestmark = pytest.mark.anyio


async def test_the_default_body_is_the_firing_and_its_event(world: Any, receiver: Any) -> None:
    result = await world.perform({"call-webhook": receiver.url + "/in"})
    (request,) = receiver.requests
    body = json.loads(request.body)
    assert (request.method, request.path) == ("POST", "/in")
    assert request.headers["content-type"] == "application/json"
    assert request.headers["idempotency-key"] == "f-1.0"
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert request.headers["user-agent"].startswith("whenthen/")
    assert sorted(body) == ["automation", "event", "firing", "key"]
    assert body["automation"] == "load-new-csv"
    assert body["firing"]["id"] == "f-1"
    assert body["event"]["payload"]["size"] == 1024
    assert body["key"] == {"bucket": "raw"}
    assert result.details == {"status": 200, "host": "127.0.0.1"}


async def test_url_headers_and_body_are_rendered_with_types_kept(world: Any, receiver: Any) -> None:
    await world.perform(
        {
            "type": "call-webhook",
            "url": receiver.url + "/{{ event.resource.bucket }}?key={{ (event.resource.key ~ ' &b') | urlencode }}",
            "method": "PUT",
            "headers": {"X-Size": "$.payload.size", "X-Note": "for {{ automation }}", "X-Empty": ""},
            "body": {"size": "$.payload.size", "tags": "$.payload.tags", "text": "{{ event.payload.size }}"},
        }
    )
    (request,) = receiver.requests
    assert (request.method, request.path) == ("PUT", "/raw?key=incoming/a.csv%20%26b")
    assert request.headers["x-size"] == "1024"
    assert request.headers["x-note"] == "for load-new-csv"
    assert request.headers["x-empty"] == ""
    assert json.loads(request.body) == {"size": 1024, "tags": ["a", "b"], "text": "1024"}


async def test_a_text_body_is_sent_as_it_renders(world: Any, receiver: Any) -> None:
    await world.perform({"call-webhook": receiver.url, "body": "größe {{ event.payload.size }}"})
    await world.perform({"call-webhook": receiver.url, "body": "<a/>", "headers": {"Content-Type": "application/xml"}})
    first, second = receiver.requests
    assert first.body.decode() == "größe 1024"
    assert first.headers["content-type"] == "text/plain; charset=utf-8"
    assert second.headers["content-type"] == "application/xml"


async def test_a_get_has_no_body_of_its_own(world: Any, receiver: Any) -> None:
    await world.perform({"call-webhook": receiver.url, "method": "GET"})
    assert receiver.requests[0].body == b""
    assert "content-type" not in receiver.requests[0].headers


async def test_a_missing_value_sends_nothing(world: Any, receiver: Any) -> None:
    for field in ({"url": receiver.url + "/{{ event.payload.no }}"}, {"body": "$.payload.no"}):
        with pytest.raises(ActionError) as caught:
            await world.perform({"type": "call-webhook", "url": receiver.url, **field})
        assert caught.value.reason == "render_error"
        assert next(iter(field)) in str(caught.value)
    assert receiver.requests == []


async def test_the_signature_is_standard_webhooks(world: Any, receiver: Any, now: Any) -> None:
    key = b"0123456789abcdef0123456789abcdef"
    world.environ["SIGNING"] = "whsec_" + base64.b64encode(key).decode()
    await world.perform({"call-webhook": receiver.url, "secret": "env:SIGNING", "body": {"a": "$.payload.size"}})
    headers = receiver.requests[0].headers
    timestamp = headers["webhook-timestamp"]
    signed = f"f-1.0.{timestamp}.".encode() + receiver.requests[0].body
    expected = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == expected
    assert headers["webhook-id"] == "f-1.0"
    assert int(timestamp) == int(now.timestamp())


def test_the_signature_of_the_published_example_is_the_published_one() -> None:
    """The test vector of the Standard Webhooks reference libraries."""
    headers = signature_headers(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        now=datetime.fromtimestamp(1614265330, UTC),
        body=b'{"test": 2432232314}',
        reference="env:S",
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_a_secret_that_can_not_sign_is_named_and_not_shown(world: Any, receiver: Any) -> None:
    world.environ["SIGNING"] = "not base64, and very secret"
    with pytest.raises(ActionError, match="secret: env:SIGNING is no Standard Webhooks secret") as caught:
        await world.perform({"call-webhook": receiver.url, "secret": "env:SIGNING"})
    assert "very secret" not in str(caught.value)
    assert not caught.value.retryable
    assert receiver.requests == []


async def test_references_in_headers_are_resolved_at_use(world: Any, receiver: Any, tmp_path: Any) -> None:
    world.environ["TOKEN"] = "t0ken-one"
    (tmp_path / "key").write_text("from-a-file\n")
    headers = {"Authorization": "Bearer env:TOKEN", "X-Key": f"file:{tmp_path}/key"}
    await world.perform({"call-webhook": receiver.url, "headers": headers})
    world.environ["TOKEN"] = "t0ken-two"
    await world.perform({"call-webhook": receiver.url, "headers": headers})
    assert [request.headers["authorization"] for request in receiver.requests] == [
        "Bearer t0ken-one",
        "Bearer t0ken-two",
    ]
    assert receiver.requests[0].headers["x-key"] == "from-a-file"


async def test_an_event_can_not_name_a_secret(world: Any, receiver: Any) -> None:
    world.environ["TOKEN"] = "t0ken-one"
    event = {"id": "e", "event": "x", "resource": {"id": "r"}, "related": [], "payload": {"a": "env:TOKEN"}}
    await world.perform(
        {"call-webhook": receiver.url, "headers": {"X-A": "$.payload.a", "X-B": "{{ event.payload.a }}"}}, event=event
    )
    assert receiver.requests[0].headers["x-a"] == "env:TOKEN"
    assert receiver.requests[0].headers["x-b"] == "env:TOKEN"


async def test_a_missing_secret_is_named(world: Any, receiver: Any) -> None:
    with pytest.raises(ActionError, match="env:NOT_SET") as caught:
        await world.perform({"call-webhook": receiver.url, "headers": {"Authorization": "Bearer env:NOT_SET"}})
    assert not caught.value.retryable
    assert receiver.requests == []


async def test_a_header_can_not_be_split_by_an_event(world: Any, receiver: Any) -> None:
    event = {"id": "e", "event": "x", "resource": {"id": "r"}, "related": [], "payload": {"a": "b\r\nX-Evil: 1"}}
    with pytest.raises(ActionError, match=r"headers\.X-A: has control characters"):
        await world.perform({"call-webhook": receiver.url, "headers": {"X-A": "$.payload.a"}}, event=event)
    assert receiver.requests == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_and_names_the_host(world: Any, receiver: Any, status: int) -> None:
    receiver.status = status
    receiver.headers = {"Location": "https://elsewhere.example.com/private?token=abcdef"}
    with pytest.raises(ActionError, match=r"elsewhere\.example\.com") as caught:
        await world.perform({"call-webhook": receiver.url})
    assert "private" not in str(caught.value)
    assert "abcdef" not in str(caught.value)
    assert not caught.value.retryable
    assert caught.value.reason == "redirect"
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    ("status", "retryable"),
    [(status, False) for status in (400, 401, 404, 409, 410, 422)]
    + [(status, True) for status in (408, 425, 429, 500, 502, 503, 504)],
)
async def test_the_status_says_whether_another_try_may_help(
    world: Any, receiver: Any, status: int, retryable: bool
) -> None:
    receiver.status = status
    receiver.body = b"  the\n reason  "
    with pytest.raises(ActionError, match=f"answered {status}: the reason") as caught:
        await world.perform({"call-webhook": receiver.url + "/path-with-token"})
    assert caught.value.retryable is retryable
    assert caught.value.reason == "http_status"
    assert "path-with-token" not in str(caught.value)


async def test_retry_after_is_handed_on(world: Any, receiver: Any) -> None:
    receiver.status = 429
    receiver.headers = {"Retry-After": "17"}
    with pytest.raises(ActionError) as caught:
        await world.perform({"call-webhook": receiver.url})
    assert caught.value.retry_after == timedelta(seconds=17)


def test_retry_after_is_seconds_or_a_date(now: Any) -> None:
    assert read_retry_after(None, now=now) is None
    assert read_retry_after(" 5 ", now=now) == timedelta(seconds=5)
    assert read_retry_after("Sat, 31 Jan 2026 08:01:00 GMT", now=now) == timedelta(minutes=1)
    assert read_retry_after("Sat, 31 Jan 2026 07:00:00 GMT", now=now) == timedelta(0)
    for text in ("soon", "-1", "", "٣", "9" * 400 + "x"):
        assert read_retry_after(text, now=now) is None
    assert read_retry_after("9" * 400, now=now) is not None


async def test_expected_statuses_replace_the_default(world: Any, receiver: Any) -> None:
    receiver.status = 404
    await world.perform({"call-webhook": receiver.url, "method": "DELETE", "expect_status": [204, 404]})
    receiver.status = 200
    with pytest.raises(ActionError, match="answered 200, expected 201"):
        await world.perform({"call-webhook": receiver.url, "expect_status": 201})


async def test_a_slow_receiver_is_given_up_after_the_timeout(world: Any, receiver: Any) -> None:
    receiver.hold = True
    with pytest.raises(ActionError, match="not done within 200ms") as caught:
        await world.perform({"call-webhook": receiver.url, "timeout": "200ms"})
    assert caught.value.retryable
    assert caught.value.reason == "timeout"


async def test_cancelling_a_try_ends_it_at_once(world: Any, receiver: Any) -> None:
    receiver.hold = True
    running = asyncio.create_task(world.perform({"call-webhook": receiver.url}))
    async with asyncio.timeout(limit(10)):
        while not receiver.requests:
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_a_refused_connection_is_tried_again(world: Any, free_port: int) -> None:
    with pytest.raises(ActionError, match=f"POST http://127.0.0.1:{free_port}: ") as caught:
        await world.perform({"call-webhook": f"http://127.0.0.1:{free_port}/secret-path"})
    assert caught.value.retryable
    assert caught.value.reason == "connection"
    assert "secret-path" not in str(caught.value)


async def test_a_huge_answer_is_not_read_to_its_end(world: Any, receiver: Any) -> None:
    receiver.endless = True
    assert (await world.perform({"call-webhook": receiver.url, "timeout": "5s"})).details["status"] == 200
    receiver.status = 500
    with pytest.raises(ActionError) as caught:
        await world.perform({"call-webhook": receiver.url})
    assert len(str(caught.value)) < 400


async def test_a_host_from_a_template_must_be_on_the_list(world: Any, receiver: Any) -> None:
    event = {"id": "e", "event": "x", "resource": {"id": "r"}, "related": [], "payload": {}}
    action = {"call-webhook": "$.payload.to", "allow_hosts": [f"http://127.0.0.*:{receiver.port}"]}
    event["payload"] = {"to": receiver.url + "/callback"}
    await world.perform(action, event=event)
    assert receiver.requests[0].path == "/callback"
    for to, message in [
        (
            f"http://localhost:{receiver.port}/",
            r"http://localhost:\d+ is not in allow_hosts \(http://127\.0\.0\.\*:\d+\)",
        ),
        (f"https://127.0.0.1:{receiver.port}/", "is not in allow_hosts"),
        (f"http://127.0.0.1:{receiver.port}1/", "is not a URL|is not in allow_hosts"),
        ("http://127.0.0.1/", "http://127.0.0.1:80 is not in allow_hosts"),
        ("ftp://127.0.0.1/", "is not a URL that starts with http"),
        (f"http://127.0.0.1@localhost:{receiver.port}/", "has credentials"),
        ("http://127.0.0.1\\@localhost/", "has a backslash"),
        ("env:HOOK", "is not a URL"),
    ]:
        event["payload"] = {"to": to}
        with pytest.raises(ActionError, match=message) as caught:
            await world.perform(action, event=event)
        assert not caught.value.retryable
        assert caught.value.reason in {"refused_url", "render_error"}
    assert len(receiver.requests) == 1


async def test_what_renders_to_another_origin_than_the_rules_is_refused(world: Any, task: Any, now: Any) -> None:
    call = Call(task=task({}), firing=task({}).firing, event=None, events=[], ports=world.ports, now=now)
    for url in ("http://b/x", "https://a/x", "http://a:81/x"):
        destination = Destination("url", compile_text_field(url, "url"), "", ("http", "a", 80), ())
        with pytest.raises(ActionError, match="would move the request") as caught:
            destination.resolve(call)
        assert not caught.value.retryable


async def test_a_path_from_a_template_can_not_climb(world: Any, receiver: Any) -> None:
    event = {"id": "e", "event": "x", "resource": {"id": "r"}, "related": [], "payload": {}}
    for climb in ("../../admin", "%2e%2e/admin", "a%2F..%2Fadmin", "./x"):
        event["payload"] = {"to": climb}
        with pytest.raises(ActionError, match=r"has a path with \. or \.\."):
            await world.perform({"call-webhook": receiver.url + "/api/{{ event.payload.to }}"}, event=event)
    assert receiver.requests == []


async def test_a_url_may_be_a_secret(world: Any, receiver: Any) -> None:
    world.environ["HOOK_URL"] = receiver.url + "/services/T0000/very-secret-part"
    receiver.status = 500
    receiver.body = b"no such hook: /services/T0000/very-secret-part"
    with pytest.raises(ActionError, match="answered 500") as caught:
        await world.perform({"call-webhook": "env:HOOK_URL"})
    assert "very-secret-part" not in str(caught.value)
    assert receiver.requests[0].path == "/services/T0000/very-secret-part"


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.1.1",
        "[fe80::1]",
        "[::ffff:169.254.169.254]",
        "[::169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[64:ff9b:1::a9fe:a9fe]",
        "[::ffff:0:a9fe:a9fe]",
        "[2002:a9fe:a9fe::1]",
        "[fd00:ec2::254]",
        "100.100.100.200",
        "168.63.129.16",
        "2852039166",
        "0xa9fea9fe",
        "224.0.0.1",
    ],
)
async def test_link_local_and_metadata_addresses_are_never_reached(world: Any, host: str) -> None:
    with pytest.raises(ActionError, match="refused to connect") as caught:
        await world.perform({"call-webhook": f"http://{host}/latest/meta-data"})
    assert not caught.value.retryable
    assert caught.value.reason == "refused_address"


async def test_a_name_that_resolves_to_a_link_local_address_is_refused(world: Any) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        assert host == "innocent.example.com"
        return ["169.254.169.254", "::ffff:169.254.169.254"]

    async with open_http_client(resolve=resolve) as pool:
        ports = dataclasses.replace(world.ports, http=pool)
        with pytest.raises(ActionError, match=r"innocent\.example\.com is .*, a link-local address"):
            await world.perform({"call-webhook": "http://innocent.example.com/"}, ports=ports)


async def test_the_checked_address_is_the_one_connected_to(world: Any, receiver: Any) -> None:
    """DNS rebinding: a second answer would lead elsewhere, so there must be no second question for one connection."""
    asked = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["169.254.169.254", "127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

    async with open_http_client(resolve=resolve) as pool:
        ports = dataclasses.replace(world.ports, http=pool)
        action = {"call-webhook": f"http://rebinding.example.com:{receiver.port}/"}
        await world.perform(action, ports=ports)
        assert asked == ["rebinding.example.com"]
        assert receiver.requests[0].headers["host"] == f"rebinding.example.com:{receiver.port}"
    async with open_http_client(resolve=resolve) as pool:
        with pytest.raises(ActionError, match="refused to connect"):
            await world.perform(action, ports=dataclasses.replace(world.ports, http=pool))
    assert len(receiver.requests) == 1


async def test_private_addresses_are_refused_when_the_settings_say_so(world: Any, receiver: Any) -> None:
    async with open_http_client(AddressPolicy(refuse_private=True)) as pool:
        ports = dataclasses.replace(world.ports, http=pool)
        for host in ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"):
            with pytest.raises(ActionError, match="refused by the settings"):
                await world.perform({"call-webhook": f"http://{host}:{receiver.port}/"}, ports=ports)
    assert receiver.requests == []


async def test_an_unresolvable_name_is_tried_again(world: Any) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    async with open_http_client(resolve=resolve) as pool:
        ports = dataclasses.replace(world.ports, http=pool)
        with pytest.raises(ActionError, match="can not be resolved") as caught:
            await world.perform({"call-webhook": "http://nowhere.invalid/"}, ports=ports)
    assert caught.value.retryable


async def test_proxies_of_the_environment_are_not_used(
    world: Any, receiver: Any, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port}")
    async with open_http_client() as pool:
        await world.perform({"call-webhook": receiver.url}, ports=dataclasses.replace(world.ports, http=pool))
    assert len(receiver.requests) == 1


async def test_a_request_is_part_of_the_trace_of_its_event_with_the_action_as_parent(world: Any, receiver: Any) -> None:
    trace = {"id": "4bf92f3577b34da6a3ce929d0e0e4736", "parent": "00f067aa0ba902b7", "flags": "01", "state": "a=1,b=2"}
    for _ in range(2):
        await world.perform({"call-webhook": receiver.url}, event={**EVENT, "trace": trace})
    parent = child_trace(trace, "f-1.0")["parent"]
    assert parent != trace["parent"]
    for request in receiver.requests:
        assert request.headers["traceparent"] == f"00-{trace['id']}-{parent}-01"
        assert request.headers["tracestate"] == "a=1,b=2"


async def test_a_request_of_a_firing_without_a_trace_gets_one_from_the_firings_id(world: Any, receiver: Any) -> None:
    await world.perform({"call-webhook": receiver.url})
    (request,) = receiver.requests
    assert request.headers["traceparent"] == trace_headers(child_trace(derived_trace("f-1"), "f-1.0"))["traceparent"]
    assert "tracestate" not in request.headers


async def test_a_traceparent_that_the_rule_sets_wins_and_goes_alone(world: Any, receiver: Any) -> None:
    own = f"00-{'1' * 32}-{'2' * 16}-01"
    trace = {"id": "4bf92f3577b34da6a3ce929d0e0e4736", "parent": "00f067aa0ba902b7", "flags": "01", "state": "a=1"}
    action = {"type": "call-webhook", "url": receiver.url, "headers": {"Traceparent": own}}
    await world.perform(action, event={**EVENT, "trace": trace})
    (request,) = receiver.requests
    assert request.headers["traceparent"] == own
    assert "tracestate" not in request.headers


async def test_what_another_program_wrote_as_an_events_trace_is_not_sent_on(world: Any, receiver: Any) -> None:
    event = {**EVENT, "trace": {"id": "x\r\nX-Injected: 1", "parent": "00f067aa0ba902b7", "flags": "01"}}
    await world.perform({"call-webhook": receiver.url}, event=event)
    (request,) = receiver.requests
    assert "x-injected" not in request.headers
    assert request.headers["traceparent"].startswith(f"00-{derived_trace('f-1')['id']}-")


async def test_a_receiver_that_echoes_a_secret_does_not_get_it_into_the_error(
    world: Any, receiver: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1)
    world.environ["TOKEN"] = "pl4nted-token"
    receiver.status = 403
    receiver.body = b'{"error": "bad token Bearer pl4nted-token"}'
    with pytest.raises(ActionError, match=r"answered 403: .*bad token Bearer \*\*\*") as caught:
        await world.perform({"call-webhook": receiver.url, "headers": {"Authorization": "Bearer env:TOKEN"}})
    assert "pl4nted" not in str(caught.value)
    assert "pl4nted" not in caplog.text
    assert receiver.requests[0].headers["authorization"] == "Bearer pl4nted-token"


async def test_a_quote_that_is_cut_inside_a_secret_shows_no_part_of_it(world: Any, receiver: Any) -> None:
    world.environ["TOKEN"] = "pl4nted-token"
    receiver.status = 400
    for before in range(QUOTED_CHARS - 20, QUOTED_CHARS + 1):
        receiver.body = b"x" * before + b" pl4nted-token and more"
        with pytest.raises(ActionError) as caught:
            await world.perform({"call-webhook": receiver.url, "headers": {"X-Token": "env:TOKEN"}})
        assert "pl4" not in str(caught.value)
