"""Sources as they are written: presets and envelopes of messages, and what is refused when rules are loaded."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from whenthen.schemas.errors import InvalidEvent
from whenthen.schemas.event_sources import Source, region_of
from whenthen.schemas.events import Event
from whenthen.schemas.providers import Provider
from whenthen.sources.readings import SourceMessage, SourceTranslator

NOW = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)
QUEUE = "https://sqs.eu-west-1.amazonaws.com/123456789012/uploads"
MAP = {"event": "own", "resource": {"id": "one"}}


def source(**fields: Any) -> Source:
    return Source.model_validate({"name": "queue", "read": {"type": "sqs", "queue": QUEUE}, **fields})


def made(body: Any, **fields: Any) -> list[Event]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return SourceTranslator(source(**fields)).translate(SourceMessage(body=data, delivery="7"), NOW).events


def in_sns(message: Any, **attributes: str) -> dict[str, Any]:
    return {
        "Type": "Notification",
        "MessageId": "m-1",
        "Message": json.dumps(message),
        "MessageAttributes": {name: {"Type": "String", "Value": value} for name, value in attributes.items()},
    }


def test_message_in_an_envelope_is_read_by_a_preset_a_mapping_or_as_an_event() -> None:
    opened = {"action": "opened", "repository": {"full_name": "a/b"}, "issue": {"number": 7}}
    attributes = {"X-GitHub-Event": "issues", "X-GitHub-Delivery": "d-1"}
    [event] = made(in_sns(opened, **attributes), envelope="sns", preset="github", labels={"team": "data"})
    assert (event.name, event.id, event.resource["team"]) == ("github.issues.opened", "source:queue/d-1", "data")
    assert event.data["source"] == "source:queue"
    [event] = made(in_sns({"n": 1}), envelope="sns", map=MAP)
    assert (event.payload, event.id) == ({"n": 1}, "source:queue/m-1")
    [event] = made(in_sns({"event": "own", "resource": {"id": "one"}}), envelope="sns")
    assert (event.name, event.id) == ("own", "source:queue/m-1")


def test_condition_of_a_preset_drops_messages() -> None:
    body = {"version": "0", "detail-type": "Order Placed", "source": "shop", "id": "1", "time": "2026-01-31T08:00:00Z"}
    assert len(made(body, preset="eventbridge")) == 1
    assert made(body, preset="eventbridge", when="event.resource.source != 'shop'") == []


def test_message_that_is_none_of_the_preset_is_refused() -> None:
    with pytest.raises(InvalidEvent, match="not a notification of an object store"):
        made({"n": 1}, preset="s3")


def test_source_is_read_anew_when_its_provider_has_changed() -> None:
    def provider(event: str) -> dict[str, Provider]:
        fields = {"name": "shop", "event": [event], "resource": {"id": "one"}, "facts": ["https://shop.example"]}
        return {"shop": Provider.model_validate(fields)}

    first, same, other = (
        SourceTranslator(source(preset="shop"), providers=provider(each)) for each in ("one", "one", "other")
    )
    assert first.reads_as(same)
    assert not first.reads_as(other)


def test_source_is_read_anew_when_a_value_of_its_mapping_became_true() -> None:
    one, true = (SourceTranslator(source(map={**MAP, "payload": {"n": value}})) for value in (1, True))
    assert not one.reads_as(true)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"preset": "s3", "map": MAP}, "either a preset or a `map`"),
        ({"labels": {"a": "b"}, "map": MAP}, "`labels` belongs to a preset"),
        ({"when": "true", "map": MAP}, "`when` belongs to a preset"),
        ({"preset": "s3", "related": [{"role": "x"}]}, r"related\[0\] needs an id"),
        ({"preset": "s3", "read": {"type": "folder", "path": "/srv"}}, "`preset` is for messages; a folder has none"),
        ({"read": {"type": "sqs", "queue": "https://queues.example/1/orders"}}, "does not say its region"),
        ({"read": {"type": "sqs", "queue": QUEUE, "access_key": "env:KEY"}}, "`access_key` and `secret_key` together"),
        ({"read": {"type": "sqs", "queue": QUEUE, "session_token": "env:TOKEN"}}, "`session_token` belongs to"),
        ({"read": {"type": "sqs", "queue": QUEUE, "access_key": "AKIA"}}, "a secret is a reference"),
        (
            {"read": {"type": "sqs", "queue": QUEUE, "access_key": "env:A", "secret_key": "env:B", "profile": "c"}},
            "either `access_key` and `secret_key`, or a `profile`",
        ),
        ({"read": {"type": "sqs", "queue": "https://user@sqs.eu-west-1.amazonaws.com/1/a"}}, "should match pattern"),
        ({"read": {"type": "kafka", "servers": "kafka.example", "topic": "a"}}, "no host and port"),
        ({"read": {"type": "kafka", "servers": [], "topic": "a"}}, "at least 1 item"),
        ({"read": {"type": "kafka", "servers": "a:1", "topic": "a b"}}, "should match pattern"),
        (
            {"read": {"type": "kafka", "servers": "a:1", "topic": "a", "username": "b"}},
            "`username` and `password` together",
        ),
        ({"read": {"type": "kafka", "servers": "a:1", "topic": "a", "mechanism": "plain"}}, "`mechanism` says how"),
        (
            {"read": {"type": "kafka", "servers": "a:1", "topic": "a", "tls": {"key": "env:K"}}},
            "a key without a certificate",
        ),
    ],
)
def test_source_that_contradicts_itself_is_refused(fields: dict[str, Any], error: str) -> None:
    with pytest.raises(ValidationError, match=error):
        source(**fields)


@pytest.mark.parametrize(
    ("queue", "region"),
    [
        (QUEUE, "eu-west-1"),
        ("https://sqs-fips.us-gov-west-1.amazonaws.com/1/a", "us-gov-west-1"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/1/a", "cn-north-1"),
        ("https://us-east-2.queue.amazonaws.com/1/a", "us-east-2"),
        ("https://vpce-0ab1-x.sqs.eu-central-1.vpce.amazonaws.com/1/a", "eu-central-1"),
        ("https://sqs.eu-west-1.api.aws/1/a", "eu-west-1"),
        ("https://queues.example/1/a", None),
        ("http://127.0.0.1:5000/1/a", None),
    ],
)
def test_region_is_read_from_the_address_of_a_queue(queue: str, region: str | None) -> None:
    assert region_of(queue) == region
