"""What is refused when a rule is loaded."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.unit.actions.conftest import EVENT, NOW, new_task
from whenthen.actions import compile_action, encode_spec, read_action
from whenthen.actions.attempts import Call
from whenthen.actions.http.destinations import compile_destination
from whenthen.schemas.actions import ACTIONS
from whenthen.schemas.errors import ActionError, InvalidTemplate


def compiled(action: Any) -> Any:
    return compile_action(read_action(action))


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ({"run-deployment": "x", "parameters": {"path": "{{ event.resource.id"}}, "parameters.path:"),
        ({"run-deployment": "x", "parameters": {"a": [{"b": "$.resource["}]}}, "parameters.a[0].b:"),
        ({"run-deployment": "x", "parameters": {"path": "{{ evnt.id }}"}}, "evnt"),
        ({"run-deployment": "x", "parameters": {"path": "$.resorce.id"}}, "did you mean $.resource?"),
        ({"run-deployment": "{{ nope }}"}, "deployment:"),
        ({"cancel-flow-run": "{% if %}"}, "flow_run:"),
        ({"pause-automation": "{{ x }}"}, "automation:"),
        ({"pause-schedule": "{{ x }}"}, "schedule:"),
        ({"send-notification": "team", "subject": "{{ x }}"}, "subject:"),
        ({"send-notification": "team", "body": "{{ x }}"}, "body:"),
        ({"emit-event": "a", "payload": {"x": "{{ y }}"}}, "payload.x:"),
        ({"emit-event": "a", "resource": {"name": "x"}}, "resource.id: missing"),
        ({"emit-event": "a", "related": [{"role": "x"}]}, "related[0].id: missing"),
        ({"emit-event": "a", "resource": {"id": "{{ x }}"}}, "resource.id:"),
        ({"call-webhook": "http://host/{{ x }}"}, "url:"),
        ({"call-webhook": "http://host", "body": {"a": "{{ x }}"}}, "body.a:"),
        ({"call-webhook": "http://host", "headers": {"X-A": "{{ x }}"}}, "headers.X-A:"),
        ({"call-webhook": "http://host", "headers": {"X A": "b"}}, "headers.X A: not a header's name"),
        ({"call-webhook": "http://host", "headers": {"Host": "b"}}, "headers.Host: is set by the request itself"),
        ({"call-webhook": "http://host", "headers": {"Idempotency-Key": "b"}}, "headers.Idempotency-Key:"),
        (
            {"call-webhook": "http://host", "headers": {"Webhook-Id": "b"}, "secret": "env:S"},
            "headers.Webhook-Id: is set by the signature",
        ),
    ],
)
def test_a_bad_template_is_refused_with_its_field(action: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidTemplate) as caught:
        compiled(action)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/a", "scheme 'ftp' can not be called"),
        ("file:/etc/passwd/{{ event.id }}", "a reference to a secret has no templates"),
        ("javascript:alert(1)", "scheme 'javascript' can not be called"),
        ("host/path", "'host/path' can not be called"),
        ("http://", "has no host"),
        ("http:///path", "has no host"),
        ("http://host:port/", "is not a URL"),
        ("http://0251.0376.0251.0376/", "is not a URL"),
        ("http://host\\@evil/", "has a backslash"),
        ("http://user:pw@host/", "has credentials"),
        ("http://host/a/../b", "has a path with . or .."),
        ("http://host/a/%2e%2E/b", "has a path with . or .."),
        ("http://{{ event.payload.to }}/", "a template decides the host"),
        ("http://a.example.com{{ event.payload.to }}/", "a template decides the host"),
        ("http://{{ event.payload.to }}@a.example.com/", "a template decides the host"),
        ("http://a.example.com:{{ event.payload.to }}/", "a template decides the host"),
        ("{{ event.payload.to }}", "a template decides the host"),
        ("{% if event %}http://a{% else %}http://b{% endif %}", "a template decides the host"),
        ("$.payload.to", "a template decides the host"),
        ("$['payload']['to']", "a template decides the host"),
    ],
)
def test_a_url_that_may_lead_anywhere_is_refused(url: str, message: str) -> None:
    with pytest.raises(InvalidTemplate, match=r"^url: ") as caught:
        compiled({"call-webhook": url})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "action",
    [
        {"call-webhook": "https://host:8443/{{ event.id }}?x={{ event.payload.a | urlencode }}"},
        {"call-webhook": "HTTPS://host?{{ event.id }}"},
        {"call-webhook": "http://[::1]:80/{{ event.id }}"},
        {"call-webhook": "env:HOOK_URL"},
        {"call-webhook": "$.payload.to", "allow_hosts": "*.example.com"},
        {"call-webhook": "http://{{ event.payload.to }}/", "allow_hosts": ["a", "b"]},
        {"call-webhook": "http://host", "headers": {"Authorization": "Bearer env:TOKEN", "X-Key": "file:/run/key"}},
        {"send-notification": "team"},
        {"emit-event": "{{ event.event }}.seen"},
        {"run-deployment": "x", "parameters": {"a": "$$.literal", "b": "$.events[*].id", "c": "$.firing.at"}},
    ],
)
def test_a_good_action_compiles(action: dict[str, Any]) -> None:
    assert compiled(action).type == next(iter(action))


def test_every_action_of_the_schema_can_be_compiled() -> None:
    needed = {
        "pause-schedule": {"schedule": "s"},
        "resume-schedule": {"schedule": "s"},
        "send-notification": {"notifier": "n"},
        "call-webhook": {"url": "http://host"},
        "change-flow-run-state": {"state": "Failed"},
        "emit-event": {"event": "e"},
    }
    for name in ACTIONS:
        assert compiled({"type": name, **needed.get(name, {})}).type == name


def test_an_action_survives_the_way_through_the_stream() -> None:
    action = read_action({"call-webhook": "http://host", "timeout": "1500ms", "retry": {"delay": "2s", "retries": 2}})
    assert read_action(action.model_dump(mode="json")) == action


def test_an_action_is_the_same_one_whichever_way_its_attempts_were_counted() -> None:
    old = read_action({"call-webhook": "http://host", "retry": {"attempts": 3}})
    assert encode_spec(old) == encode_spec(read_action({"call-webhook": "http://host", "retry": {"retries": 2}}))
    assert read_action(orjson.loads(encode_spec(old))).retry.most_attempts == 3


@pytest.mark.parametrize(
    ("url", "allowed", "rendered", "admitted"),
    [
        ("$.payload.to", "a.example", "https://a.example/x", True),
        ("$.payload.to", "a.example", "https://a.example:443/x", True),
        ("$.payload.to", "a.example", "http://a.example/x", False),
        ("$.payload.to", "a.example", "https://a.example:8443/x", False),
        ("$.payload.to", "A.Example:8443", "https://a.example:8443/x", True),
        ("$.payload.to", "a.example:*", "https://a.example:8443/x", True),
        ("$.payload.to", "a.example:*", "http://a.example/x", False),
        ("$.payload.to", "http://a.example", "http://a.example/x", True),
        ("$.payload.to", "http://a.example", "http://a.example:81/x", False),
        ("$.payload.to", "https://*.example:444", "https://b.example:444/", True),
        ("$.payload.to", "http://[::1]:8080", "http://[::1]:8080/", True),
        ("http://{{ event.payload.to }}/", "a.example", "a.example", True),
        ("http://{{ event.payload.to }}/", "a.example", "a.example:81", False),
        ("http://127.0.0.1:4990{{ event.payload.to }}", "127.0.0.1:4990", "", True),
        ("http://127.0.0.1:4990{{ event.payload.to }}", "127.0.0.1:4990", "1", False),
    ],
)
def test_allow_hosts_binds_scheme_host_and_port(url: str, allowed: str, rendered: str, admitted: bool) -> None:
    destination = compile_destination("url", url, allow_hosts=[allowed])
    event = {**EVENT, "payload": {"to": rendered}}
    task = new_task({}, event)
    nothing: Any = None
    call = Call(task=task, firing=task.firing, event=event, events=[], ports=nothing, now=NOW)
    if admitted:
        destination.resolve(call)
    else:
        with pytest.raises(ActionError, match="is not in allow_hosts"):
            destination.resolve(call)


@pytest.mark.parametrize("entry", ["", "ftp://a", "a/b", "a:0", "a:70000", "a:x", "user@a", "a b", "https://", "[::1"])
def test_an_entry_of_allow_hosts_that_is_no_host_is_refused_at_load(entry: str) -> None:
    with pytest.raises(InvalidTemplate, match="is no host; write host") as caught:
        compile_destination("url", "$.payload.to", allow_hosts=["ok.example", entry])
    assert caught.value.path == ("allow_hosts", 1)
