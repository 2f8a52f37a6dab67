"""Sources as they are written: what is read beside requests, and how it becomes events. Meaning: docs/sources.md, "Brokers and folders".

Translation: `whenthen.sources`; the connections are in `whenthen.engine.sources`.
"""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Annotated, Literal, Union

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from whenthen.schemas.actions import Tls
from whenthen.schemas.base import Model, Name, OneOrMany, SecretRef, as_list
from whenthen.schemas.times import Duration
from whenthen.schemas.webhooks import EventMapping, PresetUse

__all__ = [
    "Existing",
    "FolderReading",
    "KafkaReading",
    "MqttReading",
    "NatsReading",
    "PollReading",
    "PostgresReading",
    "RabbitReading",
    "Reading",
    "RedisReading",
    "Source",
    "SqsReading",
    "reader_name",
    "region_of",
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


def _check_host_port(text: str) -> str:
    if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]{1,253}):[0-9]{1,5}", text):
        raise ValueError(f"{text[:80]!r} is no host and port; write such as kafka.example:9092")
    return text


class KafkaReading(Model):
    """A topic of Kafka, read in a consumer group."""

    type: Literal["kafka"]
    servers: Annotated[
        list[Annotated[str, AfterValidator(_check_host_port)]],
        BeforeValidator(as_list),
        OneOrMany(),
        Field(min_length=1, max_length=100),
    ]
    """`host:port` of one or several brokers, by which the others are found."""
    topic: str = Field(min_length=1, max_length=249, pattern=r"^[A-Za-z0-9._-]+$")
    """A topic that is there already."""
    group: str = Field(default="whenthen", min_length=1, max_length=255)
    username: str | None = Field(default=None, min_length=1, max_length=256)
    password: SecretRef | None = None
    mechanism: Literal["plain", "scram-sha-256", "scram-sha-512"] = "plain"
    """How the password is shown (SASL); `plain` sends it as it is, so use it with `tls` alone."""
    tls: bool | Tls = False
    """`true`, or with authorities and a client certificate of your own: `{ca: file:/path, certificate: ..., key: ...}`."""
    existing: Existing = "skip"

    @model_validator(mode="after")
    def _whole_login(self) -> KafkaReading:
        if (self.username is None) != (self.password is None):
            raise ValueError("give `username` and `password` together")
        if self.username is None and "mechanism" in self.model_fields_set:
            raise ValueError("`mechanism` says how a password is shown; give `username` and `password`")
        return self


_REGION = re.compile(
    r"https://(?:[^/]+\.)?(?:sqs(?:-fips)?\.([a-z]{2}(?:-[a-z]+)+-[0-9])|([a-z]{2}(?:-[a-z]+)+-[0-9])\.queue)\."
    r"(?:vpce\.)?(?:amazonaws\.com|api\.aws)"
)


def region_of(queue: str) -> str | None:
    """The region in the address of a queue of Amazon's; None in any other."""
    found = _REGION.match(queue)
    return None if found is None else found[1] or found[2]


class SqsReading(Model):
    """A queue of Amazon SQS."""

    type: Literal["sqs"]
    queue: Annotated[str, Field(pattern=r"^https?://[^/?#@\s]+/[^?#\s]+$", max_length=2048)]
    """Its address, such as `https://sqs.eu-west-1.amazonaws.com/123456789012/uploads`; requests go to the host in it."""
    region: str | None = Field(default=None, pattern=r"^[a-z0-9-]{1,64}$")
    """Where the address does not say it."""
    access_key: SecretRef | None = None
    secret_key: SecretRef | None = None
    session_token: SecretRef | None = None
    """Of temporary credentials; all three are read again whenever they are refused. Without keys they are found as every tool of AWS does."""
    profile: str | None = Field(default=None, min_length=1, max_length=255)
    """A profile of AWS's configuration files."""

    @model_validator(mode="after")
    def _complete(self) -> SqsReading:
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("give `access_key` and `secret_key` together")
        if self.access_key is None and self.session_token is not None:
            raise ValueError("a `session_token` belongs to an `access_key` and a `secret_key`")
        if self.access_key is not None and self.profile is not None:
            raise ValueError("give either `access_key` and `secret_key`, or a `profile`")
        if self.region is None and region_of(self.queue) is None:
            raise ValueError("the queue's address does not say its region; add `region`, such as eu-west-1")
        return self


Reading = Annotated[
    Union[
        FolderReading,
        PollReading,
        NatsReading,
        PostgresReading,
        RedisReading,
        RabbitReading,
        MqttReading,
        KafkaReading,
        SqsReading,
    ],
    Field(discriminator="type"),
]


def reader_name(source: str) -> str:
    """What a source is called at a broker that has a place of each reader: a consumer and group of NATS, a session of MQTT."""
    return "whenthen-" + re.sub(r"[^A-Za-z0-9_-]", "-", source)


class Source(PresetUse):
    """Something that is read, and what of it becomes which event."""

    name: Name
    read: Reading
    map: EventMapping | None = None
    """Without a preset: how a message becomes an event; left out, a folder and a feed have a mapping of their own, and other messages are events
    as `POST /api/events` takes them, or CloudEvents."""
    allow_reserved_names: bool = False
    """Whether its events may be called like the engine's own, such as `flow-run.Failed`."""

    @model_validator(mode="after")
    def _complete(self) -> Source:
        if isinstance(self.read, PollReading) and self.read.format == "json" and self.map is None:
            raise ValueError(
                "say with `map` how the answer becomes events, such as with `each: $.body.items` and an `id`"
            )
        if isinstance(self.read, (FolderReading, PollReading)):
            for field in ("preset", "envelope"):
                if getattr(self, field) is not None:
                    raise ValueError(f"`{field}` is for messages; a {self.read.type} has none")
        if self.preset is not None and self.map is not None:
            raise ValueError("a source has either a preset or a `map`")
        if self.preset is None and self.when is not None:
            raise ValueError("`when` belongs to a preset; write it as map.when here")
        return self
