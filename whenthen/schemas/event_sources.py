"""Sources as they are written: what is read beside requests, and how it becomes events. Meaning: docs/sources.md, "Brokers and folders".

Translation: `whenthen.sources`; the connections are in `whenthen.engine.sources`.
"""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Annotated, Literal, Union

from pydantic import AfterValidator, Field, model_validator

from whenthen.schemas.base import Model, Name, SecretRef
from whenthen.schemas.times import Duration
from whenthen.schemas.webhooks import EventMapping

__all__ = [
    "Existing",
    "FolderReading",
    "MqttReading",
    "NatsReading",
    "PollReading",
    "PostgresReading",
    "RabbitReading",
    "Reading",
    "RedisReading",
    "Source",
]

Existing = Literal["skip", "report"]
"""What becomes of what is there already when a source is read for the first time."""

MAX_WAIT = timedelta(days=7)


def _check_folder(text: str) -> str:
    if not PurePosixPath(text).is_absolute():
        raise ValueError(
            f"{text[:200]!r} is no absolute path; write the whole path of the folder, such as /srv/incoming"
        )
    return text


def _check_url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise ValueError(f"{text[:200]!r} is no address; write one that begins with https:// or http://")
    return text


def _check_server(text: str) -> str:
    if "://" not in text:
        raise ValueError(f"{text[:80]!r} is no address of a server; write such as nats://host:4222, or env:NAME")
    return text


ServerUrl = Annotated[str, AfterValidator(_check_server), Field(max_length=4096)]


def _bounded(least: timedelta, most: timedelta) -> AfterValidator:
    def check(value: timedelta) -> timedelta:
        if not least <= value <= most:
            raise ValueError(f"{value}: it must be from {least} to {most}")
        return value

    return AfterValidator(check)


class FolderReading(Model):
    """The files below a folder of one machine."""

    type: Literal["folder"]
    path: Annotated[str, AfterValidator(_check_folder)] = Field(min_length=1, max_length=4096)
    host: str | None = Field(default=None, min_length=1, max_length=255)
    """The host name of the machine that has the folder; without it any process with the role `source` reads it."""
    match: str = Field(default="*", min_length=1, max_length=256)
    """A glob that the name of a file must match, such as `*.csv`."""
    recursive: bool = True
    stable: Annotated[Duration, _bounded(timedelta(0), timedelta(hours=1))] = timedelta(seconds=2)
    """For how long a file must not change before it is reported."""
    existing: Existing = "skip"


class PollReading(Model):
    """What an address answers, asked again and again."""

    type: Literal["poll"]
    url: Annotated[str, AfterValidator(_check_url)] = Field(max_length=4096)
    every: Annotated[Duration, _bounded(timedelta(seconds=1), MAX_WAIT)]
    headers: dict[str, str | SecretRef] = Field(default_factory=dict, max_length=50)
    """Headers of the request; a value may be a secret, `env:NAME` or `file:/path`."""
    format: Literal["json", "feed"] = "json"
    """`feed` reads RSS and Atom: the body that the mapping sees is `{title, link, entries: [...]}`."""
    timeout: Annotated[Duration, _bounded(timedelta(seconds=1), timedelta(minutes=5))] = timedelta(seconds=30)
    existing: Existing = "skip"


class NatsReading(Model):
    """A subject of NATS, or a stream of JetStream; the engine's own streams are not read."""

    type: Literal["nats"]
    url: SecretRef | ServerUrl
    """`nats://host:4222`, or a secret with it where it has a password."""
    credentials: str | None = Field(default=None, min_length=1, max_length=4096)
    """A file with the user's credentials (.creds)."""
    subject: str = Field(default=">", min_length=1, max_length=512)
    """What is read, with wildcards; with a `stream` which of its messages."""
    stream: str | None = Field(default=None, min_length=1, max_length=255)
    """A stream: what is in it is kept until it was read. Without it messages that come while nobody reads are lost."""
    existing: Existing = "skip"

    @model_validator(mode="after")
    def _subject_or_stream(self) -> NatsReading:
        if self.stream is None and self.subject == ">":
            raise ValueError("give a `subject`, or a `stream`, whose messages are kept until they were read")
        return self


def _check_table(text: str) -> str:
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}(\.[a-z_][a-z0-9_]{0,62})?", text):
        raise ValueError(
            f"{text[:80]!r} is no name of small letters, digits and _, such as whenthen_outbox or app.outbox"
        )
    return text


Identifier = Annotated[str, AfterValidator(_check_table)]


class PostgresReading(Model):
    """What PostgreSQL tells by NOTIFY, or an outbox table that an application writes in its own transactions."""

    type: Literal["postgres"]
    url: SecretRef | Annotated[str, Field(pattern=r"^postgres(ql)?://")]
    """`postgresql://...`, or a secret with it where it has a password."""
    outbox: Identifier | None = None
    """A table as `whenthen sources sql` makes it: rows are kept until they were read, and deleted then."""
    channel: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]{0,62}$")] | None = None
    """A channel: what is told while nobody listens is lost."""

    @model_validator(mode="after")
    def _one_of_both(self) -> PostgresReading:
        if (self.outbox is None) == (self.channel is None):
            raise ValueError("give either an `outbox` table, whose rows are kept until they were read, or a `channel`")
        return self


class RedisReading(Model):
    """A stream of Redis, read in a consumer group."""

    type: Literal["redis"]
    url: SecretRef | ServerUrl
    """`redis://host:6379/0`, or a secret with it where it has a password."""
    stream: str = Field(min_length=1, max_length=1024)
    group: str = Field(default="whenthen", min_length=1, max_length=255)
    existing: Existing = "skip"


class RabbitReading(Model):
    """A queue of RabbitMQ, which is there already."""

    type: Literal["rabbitmq"]
    url: SecretRef | ServerUrl
    """`amqp://user@host:5672/vhost`, or a secret with it where it has a password."""
    queue: str = Field(min_length=1, max_length=255)


class MqttReading(Model):
    """Topics of an MQTT broker, in a session that the broker keeps for a week while nobody reads."""

    type: Literal["mqtt"]
    url: SecretRef | ServerUrl
    """`mqtt://host:1883`; who logs in is in `username` and `password`."""
    topic: str = Field(min_length=1, max_length=1024)
    """With the wildcards `+` and `#`."""
    qos: Literal[0, 1] = 1
    """With 0 what comes while nobody reads is lost."""
    username: str | None = Field(default=None, min_length=1, max_length=256)
    password: SecretRef | None = None

    @model_validator(mode="after")
    def _whole_login(self) -> MqttReading:
        if (self.username is None) != (self.password is None):
            raise ValueError("give `username` and `password` together")
        return self


Reading = Annotated[
    Union[FolderReading, PollReading, NatsReading, PostgresReading, RedisReading, RabbitReading, MqttReading],
    Field(discriminator="type"),
]


class Source(Model):
    """Something that is read, and what of it becomes which event."""

    name: Name
    read: Reading
    map: EventMapping | None = None
    """How a message becomes an event; left out, a folder and a feed have a mapping of their own, and other messages are events
    as `POST /api/events` takes them, or CloudEvents."""
    allow_reserved_names: bool = False
    """Whether its events may be called like the engine's own, such as `flow-run.Failed`."""

    @model_validator(mode="after")
    def _complete(self) -> Source:
        if isinstance(self.read, PollReading) and self.read.format == "json" and self.map is None:
            raise ValueError(
                "say with `map` how the answer becomes events, such as with `each: $.body.items` and an `id`"
            )
        return self
