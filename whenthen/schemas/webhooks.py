"""Webhooks as they are written: how a request is verified and becomes events. Translation: `whenthen.sources`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Annotated, Any, Literal, Self, Union

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator, model_validator

from whenthen.schemas.base import Model, Name, ObjectPath, OneOrMany, SecretRef, as_list
from whenthen.schemas.times import Duration, format_duration, parse_duration
from whenthen.schemas.webhook_proofs import JwtVerification, ProxyVerification, SnsVerification, TwilioVerification

__all__ = [
    "SIGNED_PARTS",
    "BasicVerification",
    "BearerVerification",
    "EventMapping",
    "HmacRecipe",
    "HmacVerification",
    "JwtVerification",
    "PresetUse",
    "ProxyVerification",
    "RateLimit",
    "Secrets",
    "SignedTime",
    "SigningKey",
    "SnsVerification",
    "TwilioVerification",
    "Verification",
    "Webhook",
    "WebhookLimits",
]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """So many requests within a time."""

    count: int
    within: timedelta

    def __str__(self) -> str:
        return f"{self.count}/{format_duration(self.within)}"


def parse_rate(value: Any) -> Any:
    """`100/1m` as a `RateLimit`.

    Raises:
        ValueError: not a rate; the message has the remedy.
    """
    if isinstance(value, RateLimit):
        return value
    count, slash, within = value.partition("/") if isinstance(value, str) else ("", "", "")
    if not (slash and count.strip().isascii() and count.strip().isdigit() and 1 <= int(count[:8]) <= 1_000_000):
        raise ValueError("a number of requests (1 to 1000000) and a time are expected, such as 100/1m")
    time = parse_duration(within.strip())
    if not timedelta(seconds=1) <= time <= timedelta(days=1):
        raise ValueError(f"{within.strip()[:40]}: the time of a rate is 1s to 1d, such as in 100/1m")
    return RateLimit(int(count), time)


Rate = Annotated[
    RateLimit,
    PlainValidator(parse_rate, json_schema_input_type=str),
    PlainSerializer(str, return_type=str),
]

Secrets = Annotated[list[SecretRef], BeforeValidator(as_list), OneOrMany(), Field(min_length=1, max_length=10)]


class SignedTime(Model):
    """Where the time that a signature covers is found: in exactly one place."""

    header: str | None = Field(default=None, min_length=1, max_length=256)
    field: str | None = Field(default=None, min_length=1, max_length=64)
    """The beginning of an item of the signature's own header, such as `t=`."""
    body: str | None = Field(default=None, min_length=1, max_length=256)
    """A dotted path in a JSON body, such as `meta.sent_at`."""
    unit: Literal["s", "ms", "iso"] = "s"
    """Seconds or milliseconds since 1970, or a time such as `2026-01-31T08:00:00Z`."""
    required: bool = True
    """`false`: a request without it is signed without it, as some senders leave it to a setting."""

    @model_validator(mode="after")
    def _one_place(self) -> SignedTime:
        if sum(place is not None for place in (self.header, self.field, self.body)) != 1:
            raise ValueError("say where the time is: one of `header`, `field` and `body`")
        return self


class SigningKey(Model):
    """How the key is written in the secret."""

    strip: str = Field(default="", max_length=64)
    """Text before it that is no part of it, such as `whsec_`; it may be missing."""
    decode: Literal["base64", "hex"] | None = None


#: what `signed` may name: the body, the signed time, or a header
SIGNED_PARTS = re.compile(r"\{([A-Za-z0-9_-]{1,128})\}")


def _check_signed(text: str) -> str:
    rest = SIGNED_PARTS.sub("", text)
    if "{" in rest or "}" in rest:
        raise ValueError(f"{text!r}: a brace has no name in it; write such as {{timestamp}}.{{body}}")
    if SIGNED_PARTS.findall(text).count("body") != 1:
        raise ValueError(
            f"{text!r} must name {{body}} once: a signature that does not cover the body proves nothing of it"
        )
    return text


class HmacRecipe(Model):
    """How a sender signs the raw body of its requests."""

    type: Literal["hmac"]
    header: str = Field(min_length=1, max_length=256)
    algorithm: Literal["sha1", "sha256", "sha512"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    prefix: str = Field(default="", max_length=64)
    """Text before the signature, such as `sha256=`."""
    separator: str | None = Field(default=None, min_length=1, max_length=8)
    """The header has several items with this between them; each that starts with `prefix` is a signature, and one must match."""
    timestamp_header: str | None = Field(default=None, max_length=256)
    """Short for `timestamp: {header: ...}`."""
    timestamp: SignedTime | None = None
    """The time that is signed with the body; it must be recent."""
    tolerance: Duration = timedelta(minutes=5)
    signed: Annotated[str, AfterValidator(_check_signed)] | None = Field(default=None, max_length=512)
    """What is signed: a text with `{body}`, `{timestamp}` and `{<header>}`. The default is `{body}`, or with a time that is not in the
    body `{timestamp}.{body}`."""
    key: SigningKey = Field(default_factory=SigningKey)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.timestamp_header is not None and self.timestamp is not None:
            raise ValueError("give either `timestamp_header` or `timestamp`, not both")
        timed = self.timestamp_header is not None or self.timestamp is not None
        if self.signed is not None:
            named = "timestamp" in SIGNED_PARTS.findall(self.signed)
            if timed and not named:
                raise ValueError(
                    f"`signed` must name {{timestamp}}, as a time that is not signed proves nothing; found {self.signed!r}"
                )
            if named and not timed:
                raise ValueError("`signed` names {timestamp}; say with `timestamp` where it is")
        if self.timestamp is not None and self.timestamp.field is not None and self.separator is None:
            raise ValueError(
                "`timestamp.field` is one item of several in the header; say with `separator` what is between them"
            )
        return self

    @property
    def time(self) -> SignedTime | None:
        """Where the signed time is; None when none is signed."""
        return self.timestamp if self.timestamp_header is None else _time_in(self.timestamp_header)


@lru_cache(maxsize=256)
def _time_in(header: str) -> SignedTime:
    """A time in seconds in a header; made once, as it is asked for with every request."""
    return SignedTime(header=header)


class HmacVerification(HmacRecipe):
    """A signature of the raw body."""

    secret: Secrets
    """One or several; each is accepted, so that a secret can be rotated."""


class BearerVerification(Model):
    """`Authorization: Bearer <token>`, or the token alone in another header."""

    type: Literal["bearer"]
    token: Secrets
    header: str = Field(default="Authorization", min_length=1, max_length=256)


class BasicVerification(Model):
    """HTTP basic authentication."""

    type: Literal["basic"]
    username: str = Field(min_length=1, max_length=256)
    password: Secrets


Verification = Annotated[
    Union[
        HmacVerification,
        BearerVerification,
        BasicVerification,
        SnsVerification,
        JwtVerification,
        TwilioVerification,
        ProxyVerification,
    ],
    Field(discriminator="type"),
]


class EventMapping(Model):
    """How a request becomes an event. `$.` starts JSONPath and keeps the type; `{{ }}` is Jinja and gives text.

    Both see `body` (decoded JSON or form), `headers` (lower case), `query`, `method`, `name` and, with `each`, `item`.
    """

    body: Literal["json"] | None = None
    """`json` reads the body as JSON whatever its content type says, such as SNS's `text/plain`."""
    each: str | None = Field(default=None, max_length=512)
    """JSONPath of a list: one event for each `item` of it."""
    when: str | None = Field(default=None, max_length=20_000)
    """A CEL condition over the same variables and `now`; what does not hold is dropped (and answered 2xx)."""
    event: str = Field(min_length=1, max_length=4096)
    resource: dict[str, str] | ObjectPath
    """Labels, or one path that gives them all."""
    related: list[dict[str, str] | ObjectPath] | ObjectPath = Field(default_factory=list)
    """The labels of other resources, or one path that gives a list of them."""
    payload: Any = "$.body"
    occurred: str | None = Field(default=None, max_length=4096)
    id: str | None = Field(default=None, max_length=4096)
    """What makes a redelivery the same event, such as `$.headers.x-delivery-id`."""

    @model_validator(mode="after")
    def _resource_has_id(self) -> EventMapping:
        if isinstance(self.resource, dict) and "id" not in self.resource:
            raise ValueError('resource needs an id, such as {id: "order.{{ body.number }}"}')
        return self


Envelope = Literal["sns", "pubsub"]
AddedLabel = Annotated[str, Field(max_length=4096)]


class WebhookLimits(Model):
    """How much one request may bring."""

    body: int | None = Field(default=None, ge=1024, le=64_000_000)
    """Bytes of its body, in place of the setting `body_limit`; more is answered 413. GitHub sends up to 25 MB."""
    items: int | None = Field(default=None, ge=1, le=10_000)
    """Events of one request (1000); more is answered 400."""


class PresetUse(Model):
    """A preset, and what a webhook or a source adds to it."""

    preset: Name | None = None
    """A provider whose requests or messages are understood, of `whenthen providers` or of `providers:` in the rules: no mapping needed."""
    envelope: Envelope | None = None
    """What lies around what the preset or mapping reads: a message of Amazon SNS or Google Pub/Sub; of a webhook `verify` checks its proof."""
    ids: Name | None = None
    """One word for several webhooks and sources that bring the same, such as S3's notifications by SNS and by SQS: what comes twice is
    then one event. Without it each makes ids of its own."""
    when: str | None = Field(default=None, max_length=20_000)
    """With a preset: a CEL condition over `event` and `now`; what does not hold is dropped."""
    each: str | None = Field(default=None, max_length=512)
    """With a preset: JSONPath of a list in place of the preset's; one event for each `item` of it."""
    labels: dict[str, AddedLabel] = Field(default_factory=dict, max_length=100)
    """With a preset: further labels of the resource, texts, paths or templates; what is lacking is left out."""
    related: list[dict[str, AddedLabel]] = Field(default_factory=list, max_length=100)
    """With a preset: further resources; each is left out where its `id` is not there."""

    @model_validator(mode="after")
    def _complete_preset(self) -> Self:
        if self.preset is None:
            for field in ("each", "labels", "related"):
                if getattr(self, field):
                    raise ValueError(f"`{field}` belongs to a preset; a mapping says it itself")
        for place, labels in enumerate(self.related):
            if "id" not in labels:
                raise ValueError(f"related[{place}] needs an id, such as {{id: $.body.customer.id}}")
        return self


class Webhook(PresetUse):
    """An address, `/hooks/<name>`, and what its requests mean."""

    name: Name
    secret: Secrets | None = None
    """For a preset that knows how its sender proves itself: one or several accepted secrets."""
    verify: Literal["none"] | Verification | None = None
    """How requests prove who they are; `none` accepts everyone and must be said."""
    rate_limit: Rate | None = None
    """How many requests one address may send within a time, such as `100/1m`; more are answered 429."""
    limits: WebhookLimits = Field(default_factory=lambda: WebhookLimits())
    """How large one request may be."""
    map: EventMapping | None = None
    """Without a preset: how a request becomes an event."""
    allow_reserved_names: bool = False
    """Whether its events may be called like the engine's own, such as `flow-run.Failed`."""

    @model_validator(mode="after")
    def _complete(self) -> Webhook:
        if (self.preset is None) == (self.map is None):
            raise ValueError("a webhook has either a preset or a `map`")
        if self.preset is None:
            if self.verify is None:
                raise ValueError(
                    "say how requests are verified: `verify: {type: hmac, ...}`, bearer, basic, or `verify: none`"
                )
            if self.secret is not None:
                raise ValueError("`secret` belongs to a preset; use `verify` here")
        elif self.secret is not None and self.envelope is not None:
            raise ValueError("`secret` proves a sender's own requests; what comes in an envelope is proven by `verify`")
        elif self.secret is None and self.verify is None:
            raise ValueError(
                "say how requests prove who they are: `secret: env:NAME` where the preset knows their proof, "
                "`verify: {type: bearer, ...}`, or `verify: none`"
            )
        return self
