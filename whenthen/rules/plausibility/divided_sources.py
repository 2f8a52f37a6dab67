"""Sources that would take each other's messages: two readers of one queue, or of one group, of which each message goes to one alone.

Called by `folder` once all files are read. Meaning: docs/sources.md, "Brokers and folders".
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator

from whenthen.rules.references import Finding, Part
from whenthen.schemas.event_sources import (
    KafkaReading,
    MqttReading,
    NatsReading,
    PostgresReading,
    RabbitReading,
    Reading,
    RedisReading,
    Source,
    SqsReading,
    reader_name,
)

__all__ = ["divided_sources"]

_ONE_SOURCE = "each message would come to one of them only; read it with one source, whose `each` and `map` may make several events"
_OTHER_GROUP = "each message would come to one of them only; give one of them another `group`"
_OTHER_NAME = "a broker tells readers apart by names of which only letters without accents, digits, _ and - are left; rename one of them"


def divided_sources(parts: Iterable[Part]) -> Iterator[Finding]:
    """Each source that reads what another one before it reads, as the same reader. Addresses are compared as they are written."""
    first: dict[Hashable, Part] = {}
    for part in parts:
        if not isinstance(part.model, Source):
            continue
        read = part.model.read
        if (found := _shared(read, part.name)) is None:
            continue
        key, path, why = found
        earlier = first.setdefault((read.type, key), part)
        if earlier is not part and earlier.name != part.name:
            detail = f'source "{part.name}" is to its broker the same reader as source "{earlier.name}": {why}'
            yield Finding(part=part, path=path, detail=detail, other=earlier)


def _shared(read: Reading, name: str) -> tuple[Hashable, tuple[str, ...], str] | None:
    """What one reader alone has of a broker, the field that says so, and what to do about two. None where readers are independent."""
    if isinstance(read, KafkaReading):
        return (frozenset(read.servers), read.topic, read.group), ("read", "group"), _OTHER_GROUP
    if isinstance(read, RedisReading):
        return (read.url, read.stream, read.group), ("read", "group"), _OTHER_GROUP
    if isinstance(read, RabbitReading):
        return (read.url, read.queue), ("read", "queue"), _ONE_SOURCE
    if isinstance(read, SqsReading):
        return read.queue, ("read", "queue"), _ONE_SOURCE
    if isinstance(read, PostgresReading):
        return None if read.outbox is None else ((read.url, read.outbox), ("read", "outbox"), _ONE_SOURCE)
    if isinstance(read, NatsReading):
        return (read.url, read.stream, reader_name(name)), ("name",), _OTHER_NAME
    if isinstance(read, MqttReading):
        return (read.url, reader_name(name)), ("name",), _OTHER_NAME
    return None
