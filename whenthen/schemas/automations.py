"""An automation and the other things that a rules folder holds, and that an automation was paused."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import orjson
from pydantic import BeforeValidator, Field

from whenthen.schemas.actions import Action, RunDeployment
from whenthen.schemas.base import Document, Model, Name, OneOrMany, as_list, known_fields
from whenthen.schemas.deployments import Deployment
from whenthen.schemas.event_sources import Source
from whenthen.schemas.providers import Provider
from whenthen.schemas.times import Duration, parse_time, parse_us
from whenthen.schemas.triggers import Trigger
from whenthen.schemas.webhooks import Webhook
from whenthen.schemas.work_pools import NamedLimit, NamedSecret, WorkPool

__all__ = ["Automation", "Notifier", "PauseChange", "RuleFile", "automations_of"]

Actions = Annotated[list[Action], BeforeValidator(as_list), OneOrMany(), Field(max_length=100)]


class Automation(Model):
    """When the trigger fires, the actions run."""

    name: Name
    description: str = Field(default="", max_length=20_000)
    enabled: bool = True
    tags: list[str] = Field(default_factory=list, max_length=100)
    trigger: Trigger
    actions: Actions = Field(default_factory=list)
    """Run on every firing."""
    actions_on_trigger: Actions = Field(default_factory=list)
    """Run when the state moves to Triggered."""
    actions_on_resolve: Actions = Field(default_factory=list)
    """Run when the state moves to Resolved."""
    expected_every: Duration | None = None
    """It should fire at least this often; an alert says when it does not."""

    @property
    def all_actions(self) -> list[Action]:
        """Those of every firing, of the way to Triggered and of the way to Resolved."""
        return [*self.actions, *self.actions_on_trigger, *self.actions_on_resolve]


def automations_of(deployment: Deployment) -> list[Automation]:
    """The automations that belong to a deployment, in the order of its triggers."""
    return [
        Automation(
            name=f"{deployment.name.replace('/', '.')}:{each.name}",  # names of automations have no slashes
            description=f"A trigger of the deployment {deployment.name}.",
            enabled=each.enabled,
            tags=deployment.tags,
            trigger=each.trigger,
            actions=[
                RunDeployment(
                    type="run-deployment", deployment=deployment.name, parameters=each.parameters, delay=each.delay
                )
            ],
        )
        for each in deployment.triggers
    ]


class Notifier(Model):
    """Where notifications go: Apprise URLs, or references (`env:NAME`, `file:/path`) to them."""

    name: Name
    urls: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=4096)]], BeforeValidator(as_list), OneOrMany()
    ] = Field(min_length=1)


class RuleFile(Document):
    """One YAML file of a rules folder. Every part is optional."""

    automations: list[Automation] = Field(default_factory=list)
    webhooks: list[Webhook] = Field(default_factory=list)
    deployments: list[Deployment] = Field(default_factory=list)
    notifiers: list[Notifier] = Field(default_factory=list)
    providers: list[Provider] = Field(default_factory=list)
    """Senders of webhooks beside those of `whenthen providers`, or in their place."""
    work_pools: list[WorkPool] = Field(default_factory=list)
    """Limits of work pools, and pauses. A pool that only deployments name needs no entry."""
    sources: list[Source] = Field(default_factory=list)
    """What is read beside requests: folders, addresses, brokers."""
    limits: list[NamedLimit] = Field(default_factory=list)
    """Slots that the code of all runs shares: `concurrency(name)`, `rate_limit(name)`."""
    secrets: list[NamedSecret] = Field(default_factory=list)
    """Secrets that the code of runs reads: `Secret.load(name)`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseChange:
    """That somebody paused or resumed an automation, as a message in the log says it: from its position on."""

    automation: str
    paused: bool
    until: str = ""  #: RFC 3339, of a pause that ends by itself, by the clock of the log
    version: int = 0  #: grows with each change of the automation; one that is not above the last one says nothing
    was_paused: bool = False  #: before
    was_until: str = ""
    reason: str = ""
    by: str = ""

    def encode(self) -> bytes:
        """The message; also a line that `whenthen replay` reads."""
        return orjson.dumps({"pause": asdict(self)})

    @classmethod
    def decode(cls, data: bytes) -> PauseChange:
        """Raises `ValueError`: it is none."""
        found = orjson.loads(data)
        return cls.of(found.get("pause") if isinstance(found, dict) else None)

    @classmethod
    def of(cls, found: Any) -> PauseChange:
        """From the fields of a message; those of later versions are left out. Raises `ValueError`: they are none of a change."""
        if not isinstance(found, dict) or not isinstance(found.get("automation"), str):
            raise ValueError('a pause names its automation: {"pause": {"automation": "nightly", "paused": true}}')
        change = cls(**{"paused": True, **known_fields(cls, found)})
        for name in ("until", "was_until", "reason", "by"):
            if not isinstance(getattr(change, name), str):
                raise ValueError(f"{name} of a pause is a text")
        if not isinstance(change.version, int) or isinstance(change.version, bool):
            raise ValueError("version of a pause is a number")
        if not isinstance(change.paused, bool) or not isinstance(change.was_paused, bool):
            raise ValueError("paused and was_paused of a pause are true or false")
        for name in ("until", "was_until"):
            if text := getattr(change, name):
                parse_time(text)  # raises
        return change

    def before(self) -> PauseChange:
        """How the automation stood before, as a change."""
        return PauseChange(automation=self.automation, paused=self.was_paused, until=self.was_until)

    @property
    def end_us(self) -> int | None:
        """When it ends by itself."""
        return parse_us(self.until) if self.until else None
