"""An automation and the other things that a rules folder holds."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from whenthen.schemas.actions import Action
from whenthen.schemas.base import Document, Model, Name, OneOrMany, as_list
from whenthen.schemas.deployments import Deployment
from whenthen.schemas.providers import Provider
from whenthen.schemas.times import Duration
from whenthen.schemas.triggers import Trigger
from whenthen.schemas.webhooks import Webhook

__all__ = ["Automation", "Notifier", "RuleFile"]

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
