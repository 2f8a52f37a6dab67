"""Providers as they are written: what is known of a webhook's sender, as data. Reading and translation: `whenthen.sources`.

One file each in `whenthen/sources/providers/`; users write their own under `providers:` in their rules. Meaning: docs/sources.md, "Providers".
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, Union

from pydantic import BeforeValidator, Field, model_validator

from whenthen.schemas.base import Model, Name, OneOrMany, as_list
from whenthen.schemas.times import parse_time
from whenthen.schemas.webhooks import HmacRecipe

__all__ = ["After", "Form", "Handshake", "Pick", "Provider", "Sample"]

_Text = Annotated[str, Field(max_length=4096)]


class After(Model):
    """What comes after a text, where a value begins with it; otherwise nothing is there."""

    of: _Text
    """A path or template."""
    after: str = Field(min_length=1, max_length=256)


#: a path (`$.body.id`), a template or a text; of a list the first that is there
Pick = Annotated[list[Union[_Text, After]], BeforeValidator(as_list), OneOrMany(), Field(min_length=1, max_length=20)]
Picks = dict[Annotated[str, Field(min_length=1, max_length=256)], Pick]


class BearerRecipe(Model):
    """`Authorization: Bearer <secret>`, or the secret alone in another header."""

    type: Literal["bearer"]
    header: str = Field(default="Authorization", min_length=1, max_length=256)


#: how a sender proves who it is; the secret is the webhook's
Recipe = Annotated[Union[HmacRecipe, BearerRecipe], Field(discriminator="type")]


class Handshake(Model):
    """A request that is no event and wants an answer before others are sent."""

    method: Literal["POST", "GET", "OPTIONS"] = "POST"
    when: str | None = Field(default=None, max_length=20_000)
    """CEL over `body`, `headers`, `query` and `method`; the first handshake that holds is answered."""
    proof: bool = True
    """`false`: the sender can not prove itself yet. Only where no body is read, so not with POST."""
    status: int = Field(default=200, ge=200, le=299)
    headers: dict[str, _Text] = Field(default_factory=dict, max_length=10)
    body: Any = None
    """A JSON value with paths and templates."""
    text: _Text | None = None
    """In place of `body`: a text."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.proof and self.method == "POST":
            raise ValueError("a handshake by POST is proven as every request is: leave `proof` out")
        if self.body is not None and self.text is not None:
            raise ValueError("give either `body` or `text`, not both")
        return self


class Form(Model):
    """Where a form holds JSON."""

    field: str = Field(min_length=1, max_length=256)
    required: bool = True
    """`false`: a form without it is read as a form."""


class Sample(Model):
    """A request of this sender and what becomes of it: its documentation and its test."""

    name: str = Field(min_length=1, max_length=200)
    method: Literal["POST", "GET", "OPTIONS"] = "POST"
    headers: dict[str, str] = Field(default_factory=dict)
    query: dict[str, str] = Field(default_factory=dict)
    body: Any = None
    """JSON."""
    text: str | None = None
    """In place of `body`: the body as it is."""
    form: dict[str, Any] | None = None
    """In place of `body`: form fields; an object is written as JSON."""
    secret: str | None = None
    """Of a published signature, which `headers` has; without it the test signs."""
    at: str | None = None
    """When it came, such as `2026-01-31T08:00:00Z`."""
    events: list[dict[str, Any]] = Field(default_factory=list)
    """What is to come of it: `event`, and whichever of `id` (without the webhook's name), `occurred`, `resource` (some labels),
    `related` (some labels of each), `payload`."""
    answer: Any = None
    """What a handshake is answered with."""
    answer_headers: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_body(self) -> Self:
        if sum(body is not None for body in (self.body, self.text, self.form)) > 1:
            raise ValueError("give one of `body`, `text` and `form`")
        if self.at is not None:
            parse_time(self.at)
        return self


class Provider(Model):
    """What is known of a sender of webhooks. Paths and templates see what those of a mapping see; what is missing is left out."""

    name: Name
    title: str = Field(default="", max_length=200)
    extends: Name | None = None
    """Another provider, whose fields count where this one has none; labels are added to its labels."""
    facts: list[_Text] = Field(default_factory=list, max_length=20)
    """Where what stands here is from."""
    note: str = Field(default="", max_length=4096)
    """What its user has to know, in a sentence or two."""
    verify: list[Recipe] = Field(default_factory=list, max_length=10)
    """How requests prove who they are: the first counts whose header is there. Empty: the webhook says it."""
    methods: list[Literal["POST", "GET"]] = Field(default=["POST"], min_length=1)
    """GET only where the sender's setting offers it: its body is an empty object."""
    handshakes: list[Handshake] = Field(default_factory=list, max_length=10)
    code: Literal["s3", "gcs", "azure-blob"] | None = None
    """A translation that data can not say."""
    body: Literal["json"] | None = None
    """`json` reads the body as JSON whatever its content type says."""
    form: Form | None = None
    each: str | None = Field(default=None, max_length=512)
    """JSONPath of a list: one event for each `item` of it. `$.body` takes a single object too."""
    when: str | None = Field(default=None, max_length=20_000)
    """CEL over the same variables and `now`; what does not hold is dropped."""
    event: Annotated[list[Pick], BeforeValidator(as_list), OneOrMany()] = Field(default_factory=list, max_length=10)
    """Parts of the name, with a dot between them. The first that is read from the request must be there."""
    separators: str = Field(default="", max_length=8)
    """Characters of parts that become dots, such as those of `orders/create`."""
    kind: Pick | None = None
    """What `labels_by_kind` goes by, such as `$.headers.x-github-event`."""
    resource: Picks = Field(default_factory=dict, max_length=100)
    labels_by_kind: dict[str, Picks] = Field(default_factory=dict, max_length=200)
    related: list[Picks] = Field(default_factory=list, max_length=100)
    """Other resources; each is left out where its `id` is not there."""
    payload: Any = None
    """The default is the body, with `each` the item."""
    occurred: Pick | None = None
    id: Pick | None = None
    """What makes a redelivery the same event."""
    webhook: dict[str, Any] = Field(default_factory=dict, max_length=10)
    """Fields of a webhook to start from, such as `verify`, where no secret alone proves its sender."""
    samples: list[Sample] = Field(default_factory=list, max_length=100)
    automations: list[dict[str, Any]] = Field(default_factory=list, max_length=20)
    """Examples, which `whenthen providers show NAME --rules` prints."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.code is None and self.extends is None:
            if not self.event:
                raise ValueError("say how events are named: `event: [acme, $.body.type]`")
            if "id" not in self.resource:
                raise ValueError('resource needs an id, such as {id: "acme.order.{{ body.number }}"}')
        for place, labels in enumerate(self.related):
            if "id" not in labels:
                raise ValueError(f"related[{place}] needs an id, such as {{id: $.body.customer.id}}")
        return self
