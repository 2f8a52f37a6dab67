"""`url_of` in messages: addresses of pages, and what it says where there is none."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.unit.actions.conftest import World
from whenthen.actions import compile_action, read_action
from whenthen.actions.page_addresses import url_of
from whenthen.schemas.errors import ActionError, InvalidTemplate, RenderError

BASE = "https://automation.example"


@pytest.mark.parametrize(
    ("thing", "page"),
    [
        ({"id": "f-1", "automation": "a", "state": "Triggered"}, "/firing?id=f-1"),
        ({"id": "e/1&x", "event": "order.paid", "resource": {"id": "o"}}, "/event?id=e%2F1%26x"),
        ("big order", "/automation?name=big+order"),
        ({"id": "whenthen.flow-run.r-1"}, "/run?id=r-1"),
        ("whenthen.flow-run.r-1", "/run?id=r-1"),
        ({"id": "whenthen.deployment.load", "role": "deployment"}, "/runs?deployment=load"),
        ({"id": "whenthen.firing.f-1"}, "/firing?id=f-1"),
        ("\ud800", "/automation?name=%3F"),
    ],
)
def test_there_is_a_page_about_it(thing: Any, page: str) -> None:
    assert url_of(BASE, thing) == BASE + page
    assert url_of(BASE + "/", thing) == BASE + page


@pytest.mark.parametrize(
    ("thing", "says"), [({"id": "order.7"}, "'order.7'"), (None, "time fired"), (7, "int"), ("", "str"), ([], "list")]
)
def test_there_is_no_page_about_it(thing: Any, says: str) -> None:
    with pytest.raises(RenderError, match=says):
        url_of(BASE, thing)


@pytest.mark.parametrize(
    "action",
    [
        {"emit-event": "a.b", "payload": {"at": "{{ url_of(event) }}"}},
        {"call-webhook": "https://x.example/{{ url_of(event) }}"},
        {"run-deployment": "load", "parameters": {"at": "{{ url_of(event) }}"}},
    ],
)
def test_only_messages_have_it(action: dict[str, Any]) -> None:
    with pytest.raises(InvalidTemplate, match="url_of"):
        compile_action(read_action(action))


def test_a_compiled_action_says_which_fields_make_links() -> None:
    action = {"send-notification": "team", "subject": "{{ event.event }}", "body": "{{ url_of(firing) }}"}
    assert compile_action(read_action(action)).link_fields == (("body",),)
    nested = {"call-webhook": "https://x.example", "body": {"blocks": [{"text": "{{ url_of(event) | upper }}"}]}}
    assert compile_action(read_action(nested)).link_fields == (("body",),)


@pytest.mark.anyio
async def test_where_the_pages_are_is_not_known_says_the_setting(world: World) -> None:
    action = {"call-webhook": "http://127.0.0.1:9/", "body": "{{ url_of(firing) }}"}
    with pytest.raises(ActionError, match="WHENTHEN_PUBLIC_URL") as refused:
        await world.perform(action)
    assert not refused.value.retryable
    ports = dataclasses.replace(world.ports, public_url=BASE)
    with pytest.raises(ActionError) as unreached:
        await world.perform(action, ports=ports)
    assert unreached.value.sent is not None
    assert unreached.value.sent["request"]["body"] == f"{BASE}/firing?id=f-1"
