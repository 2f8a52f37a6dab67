"""Two sources of which each message would come to one alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from whenthen.rules.folder import check_rules

TWO = """sources:
  - name: {one}
    read: {first}
    map: {{event: order.placed, resource: {{id: order}}}}
"""
MORE = """sources:
  - name: {other}
    read: {second}
    map: {{event: order.checked, resource: {{id: order}}}}
"""

KAFKA = '{type: kafka, servers: ["a.example:9092", "b.example:9092"], topic: orders}'
REDIS = '{type: redis, url: "redis://cache.example", stream: orders}'
RABBIT = '{type: rabbitmq, url: "amqp://mq.example", queue: orders}'
SQS = '{type: sqs, queue: "https://sqs.eu-west-1.amazonaws.com/123456789012/orders"}'
OUTBOX = "{type: postgres, url: env:SHOP, outbox: outbox}"
NATS = '{type: nats, url: "nats://shop.example", stream: SHOP, subject: orders.placed}'
MQTT = '{type: mqtt, url: "mqtt://shop.example", topic: orders}'


def told(folder: Path, first: str, second: str, *, one: str = "one", other: str = "other") -> list[str]:
    (folder / "a.yaml").write_text(TWO.format(one=one, first=first))
    (folder / "b.yaml").write_text(MORE.format(other=other, second=second))
    return [str(problem) for problem in check_rules(folder)]


@pytest.mark.parametrize(
    ("read", "field", "remedy"),
    [
        (KAFKA, "read.group", "give one of them another `group`"),
        (REDIS, "read.group", "give one of them another `group`"),
        (RABBIT, "read.queue", "read it with one source"),
        (SQS, "read.queue", "read it with one source"),
        (OUTBOX, "read.outbox", "read it with one source"),
    ],
)
def test_two_sources_that_share_the_messages_of_one_place_are_refused(
    tmp_path: Path, read: str, field: str, remedy: str
) -> None:
    (problem,) = told(tmp_path, read, read)
    assert f'sources[0].{field}: source "other" is to its broker the same reader as source "one"' in problem
    assert remedy in problem
    assert problem.endswith("the first one is at a.yaml:2:11")


@pytest.mark.parametrize("read", [NATS, MQTT])
def test_two_names_that_are_one_at_the_broker_are_refused(tmp_path: Path, read: str) -> None:
    (problem,) = told(tmp_path, read, read.replace("placed", "paid"), one="заказы", other="письма")
    assert 'sources[0].name: source "письма" is to its broker the same reader as source "заказы"' in problem
    assert "rename one of them" in problem


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (KAFKA, KAFKA.replace("}", ", group: checks}")),
        (KAFKA, KAFKA.replace("orders", "payments")),
        (KAFKA, KAFKA.replace("a.example", "c.example")),
        (REDIS, REDIS.replace("}", ", group: checks}")),
        (REDIS, REDIS.replace("cache", "other")),
        (RABBIT, RABBIT.replace("orders", "payments")),
        (RABBIT, REDIS),
        (SQS, SQS.replace("orders", "payments")),
        (OUTBOX, OUTBOX.replace("outbox: outbox", "channel: outbox")),
        ("{type: postgres, url: env:SHOP, channel: news}",) * 2,  # which is told to every listener
        (NATS, NATS),  # by names that differ
        (MQTT, MQTT),
        ("{type: folder, path: /srv/incoming}",) * 2,
    ],
)
def test_sources_that_are_told_apart_are_taken(tmp_path: Path, first: str, second: str) -> None:
    assert told(tmp_path, first, second) == []


def test_a_name_that_comes_twice_is_told_as_that_alone(tmp_path: Path) -> None:
    (problem,) = told(tmp_path, KAFKA, KAFKA, other="one")
    assert 'source "one" is defined twice' in problem
