"""send-notification through the real Apprise to a real receiver, and what it keeps to itself."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from whenthen.actions import AddressPolicy, open_http_client
from whenthen.actions.send_notification import _hosts, _read, unreadable
from whenthen.schemas.errors import ActionError

#: Apprise imports imghdr when it loads its services
pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")]
TOKEN = "pl4nted-t0ken-value"


async def test_a_message_arrives_at_every_url(world: Any, receiver: Any) -> None:
    base = f"json://127.0.0.1:{receiver.port}"
    world.environ["TEAM_URL"] = base + "/second"
    world.notifiers.known["team"] = [base + "/first", "env:TEAM_URL"]
    result = await world.perform(
        {"send-notification": "team", "subject": "{{ automation }}", "body": "{{ event.payload.size }} <b>bytes</b>"}
    )
    assert sorted(request.path for request in receiver.requests) == ["/first", "/second"]
    for request in receiver.requests:
        sent = json.loads(request.body)
        assert sent["title"] == "load-new-csv"
        assert sent["message"] == "1024 <b>bytes</b>"
    assert result.details == {"notifier": "team", "services": ["JSON", "JSON"]}


async def test_the_default_texts_work_with_and_without_an_event(world: Any, receiver: Any) -> None:
    world.notifiers.known["team"] = [f"json://127.0.0.1:{receiver.port}"]
    await world.perform({"send-notification": "team"})
    await world.perform({"send-notification": "team"}, event=None)
    first, second = (json.loads(request.body) for request in receiver.requests)
    assert first["title"] == "load-new-csv: s3.file.uploaded"
    assert "s3://raw/incoming/a.csv" in first["message"]
    assert second["title"] == "load-new-csv: Triggered"


async def test_a_failed_delivery_leaks_nothing(world: Any, receiver: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(1)  # below DEBUG: Apprise has a TRACE level
    receiver.status = 500
    receiver.body = TOKEN.encode()
    world.notifiers.known["team"] = [f"json://user:{TOKEN}@127.0.0.1:{receiver.port}/{TOKEN}/?+X-Key={TOKEN}"]
    with pytest.raises(ActionError, match=r"not delivered by 1 of 1: notifiers\.team\.urls\[0\] \(JSON\)") as caught:
        await world.perform({"send-notification": "team"})
    assert caught.value.retryable
    assert caught.value.reason == "not_delivered"
    assert TOKEN in receiver.requests[0].path
    assert TOKEN not in str(caught.value)
    assert TOKEN not in caplog.text
    assert not [record for record in caplog.records if record.name.startswith(("apprise", "urllib3"))]


async def test_a_url_that_apprise_can_not_read_is_named_by_its_place(
    world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1)
    world.environ["BROKEN"] = f"nosuchservice://{TOKEN}"
    world.notifiers.known["team"] = ["env:BROKEN"]
    with pytest.raises(ActionError, match=r"notifiers\.team\.urls\[0\] is not a URL that Apprise can use") as caught:
        await world.perform({"send-notification": "team"})
    assert not caught.value.retryable
    assert TOKEN not in str(caught.value)
    assert TOKEN not in caplog.text


async def test_one_failing_service_of_several_is_told_apart(world: Any, receiver: Any, free_port: int) -> None:
    world.notifiers.known["team"] = [f"json://127.0.0.1:{receiver.port}", f"xml://127.0.0.1:{free_port}"]
    with pytest.raises(ActionError, match=r"not delivered by 1 of 2: notifiers\.team\.urls\[1\] \(XML\)"):
        await world.perform({"send-notification": "team"})


async def test_a_slow_service_is_given_up_after_the_timeout(world: Any, receiver: Any) -> None:
    receiver.hold = True
    world.notifiers.known["team"] = [f"json://127.0.0.1:{receiver.port}"]
    with pytest.raises(ActionError, match="not done within 200ms") as caught:
        await world.perform({"send-notification": "team", "timeout": "200ms"})
    assert caught.value.reason == "timeout"


async def test_an_unknown_notifier_is_not_tried_again(world: Any) -> None:
    with pytest.raises(ActionError, match="no notifier 'team'") as caught:
        await world.perform({"send-notification": "team"})
    assert not caught.value.retryable


async def test_other_logging_is_not_silenced(world: Any, receiver: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world.notifiers.known["team"] = [f"json://127.0.0.1:{receiver.port}"]
    await world.perform({"send-notification": "team"})
    logging.getLogger("urllib3.connectionpool").warning("somebody else's")
    assert "somebody else's" in caplog.text


def test_unreadable_urls_can_be_found_at_load() -> None:
    assert unreadable(["json://host", "env:LATER", "nosuchservice://x", "not a url"]) == [2, 3]


def test_apprise_is_imported_by_the_first_notifier_that_is_used() -> None:
    """Not with the room, the server, or rules that name notifiers. The HTTP client waits as well."""
    script = """
import sys
from whenthen.actions import compile_action
print("apprise" in sys.modules, "aiohttp" in sys.modules)
from whenthen.rules import read_document
from whenthen.schemas.automations import RuleFile
import whenthen.engine.process.server
text = b'''
notifiers: [{name: team, urls: ["json://127.0.0.1:1"]}]
automations: [{name: a, trigger: {expect: x}, actions: [{send-notification: team}]}]
'''
rules = RuleFile.model_validate(read_document(text).data)
for action in rules.automations[0].actions:
    compile_action(action)
print("apprise" in sys.modules)
from whenthen.actions import AddressPolicy, open_http_client
from whenthen.actions.send_notification import _hosts, _read, unreadable
unreadable(["env:LATER"])
print("apprise" in sys.modules)
unreadable(["json://host"])
print("apprise" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["False", "False", "False", "False", "True"]


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("json://169.254.169.254/latest/meta-data", "link-local address"),
        ("json://2852039166/", "169.254.169.254, a link-local address"),
        ("jsons://user:pw@metadata.example/x", "metadata.example is 169.254.169.254, a link-local address"),
        ("mailto://user:pw@example.org?smtp=metadata.example", "is 169.254.169.254, a link-local address"),
        ("gotify://metadata.example/token12345", "metadata.example is 169.254.169.254"),
        ("json://[::ffff:169.254.169.254]/", "link-local address"),
    ],
)
async def test_a_notification_to_an_address_that_actions_never_reach_is_refused(
    world: Any, url: str, what: str
) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["169.254.169.254"] if host == "metadata.example" else ["127.0.0.1"]

    async with open_http_client(resolve=resolve) as http:
        world.notifiers.known["team"] = [url]
        with pytest.raises(ActionError, match=re.escape(what)) as caught:
            await world.perform({"send-notification": "team"}, ports=replace(world.ports, http=http))
    assert (caught.value.reason, caught.value.retryable) == ("refused_address", False)
    assert "pw" not in str(caught.value)


async def test_a_notification_to_a_private_address_obeys_the_setting(world: Any, receiver: Any) -> None:
    world.notifiers.known["team"] = [f"json://127.0.0.1:{receiver.port}"]
    async with open_http_client(AddressPolicy(refuse_private=True)) as http:
        with pytest.raises(ActionError, match="private address"):
            await world.perform({"send-notification": "team"}, ports=replace(world.ports, http=http))
    assert receiver.requests == []


async def test_a_redirect_of_a_notification_is_not_followed(world: Any, receiver: Any) -> None:
    receiver.status = 302
    receiver.headers = {"Location": f"http://127.0.0.1:{receiver.port}/elsewhere"}
    world.notifiers.known["team"] = [f"json://user:pw@127.0.0.1:{receiver.port}/first?redirect=yes"]
    with pytest.raises(ActionError, match="not delivered"):
        await world.perform({"send-notification": "team"})
    assert [request.path for request in receiver.requests] == ["/first"]


async def test_a_token_in_the_hosts_place_is_asked_of_no_name_server(world: Any) -> None:
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    async with open_http_client(resolve=resolve) as http:
        for url in ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#c", "ntfy://topic", "json://h.example"):
            (target,) = _read([url])
            assert target is not None
            for host in _hosts(target):
                await http.check_host(host)
    assert asked == ["h.example"]
