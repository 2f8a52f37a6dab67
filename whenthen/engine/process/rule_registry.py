"""The rules in force, compiled: what every part of the process looks up, swapped whole when a new set is applied.

Built by the wiring; `engine.process.revisions.rules_in_force` hands it new sets. Implements `runs.stores.Deployments` and `actions.ports.Notifiers`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from whenthen.actions import CompiledAction, CompiledActions
from whenthen.rules import Rules
from whenthen.schemas.automations import Automation
from whenthen.schemas.deployments import Deployment
from whenthen.schemas.errors import NotFound, did_you_mean
from whenthen.schemas.events import EventLimits
from whenthen.schemas.firings import Firing
from whenthen.schemas.work_pools import NamedLimit, NamedSecret, WorkPool, same_name
from whenthen.sources import PublicKeys, SourceLimits, WebhookTranslator
from whenthen.sources.readings import SourceTranslator
from whenthen.triggers import CompiledAutomation, RuleSet, compile_named, shard_of

__all__ = ["Compiled", "RuleRegistry"]

log = logging.getLogger(__name__)

_LOGGED = 20  #: warnings of one set


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """One set of rules with what was made of it."""

    rules: Rules
    number: int = 0  #: of the revision; 0 while it is not published
    automations: Mapping[str, CompiledAutomation]
    actions: Mapping[str, CompiledActions]  #: by the name of the automation
    shards: Sequence[RuleSet]
    webhooks: Mapping[str, WebhookTranslator]
    deployments: Mapping[str, Deployment]
    work_pools: Mapping[str, WorkPool]
    named_limits: Mapping[str, NamedLimit]  #: by what their names have in common (`same_name`)
    named_secrets: Mapping[str, NamedSecret]  #: likewise
    notifiers: Mapping[str, Sequence[str]]
    sources: Mapping[str, SourceTranslator]


class RuleRegistry:
    """Holds the set in force."""

    def __init__(
        self,
        rules: Rules,
        *,
        number: int = 0,
        shards: int,
        resolve_secret: Callable[[str], str],
        limits: EventLimits | None = None,
    ) -> None:
        self._shards = shards
        self._resolve_secret = resolve_secret
        self._limits = SourceLimits(event=limits or EventLimits())
        self._keys = PublicKeys()
        self._listeners: list[Callable[[Compiled], None]] = []
        self.now = self.compile(rules, number=number)
        _log_warnings(rules)

    def on_change(self, listener: Callable[[Compiled], None]) -> None:
        """Call `listener` with each set that is applied from now on."""
        self._listeners.append(listener)

    def compile(self, rules: Rules, *, number: int = 0) -> Compiled:
        """Compile a checked set without applying it.

        Raises:
            InvalidInput: something does not compile that the checks let pass; nothing was changed.
        """
        automations: dict[str, CompiledAutomation] = {}
        actions: dict[str, CompiledActions] = {}
        for automation in rules.automations:
            name, made = automation.name, rules.compiled.get(automation.name)
            automations[name] = compile_named(automation) if made is None else made.trigger
            actions[name] = CompiledActions.compile(automation) if made is None else made.actions
        parts: list[list[CompiledAutomation]] = [[] for _ in range(self._shards)]
        for name, compiled in automations.items():
            parts[shard_of(name, self._shards)].append(compiled)
        providers = {provider.name: provider for provider in rules.providers}
        return Compiled(
            rules=rules,
            number=number,
            automations=automations,
            actions=actions,
            shards=[RuleSet(part) for part in parts],
            webhooks={
                webhook.name: WebhookTranslator(
                    webhook,
                    resolve_secret=self._resolve_secret,
                    limits=self._limits,
                    providers=providers,
                    keys=self._keys,
                )
                for webhook in rules.webhooks
            },
            deployments={deployment.name: deployment for deployment in rules.deployments},
            work_pools=_work_pools(rules),
            named_limits={same_name(limit.name): limit for limit in rules.limits},
            named_secrets={same_name(secret.name): secret for secret in rules.secrets},
            notifiers={notifier.name: tuple(notifier.urls) for notifier in rules.notifiers},
            sources={
                source.name: SourceTranslator(source, limits=self._limits, providers=providers)
                for source in rules.sources
            },
        )

    def apply(self, compiled: Compiled) -> None:
        """Put a compiled set in force."""
        self.now = compiled
        _log_warnings(compiled.rules)
        for listener in self._listeners:
            listener(compiled)

    # -- look-ups

    def shard_of(self, automation: str) -> int:
        """The shard that evaluates an automation of this name."""
        return shard_of(automation, self._shards)

    def current(self) -> Mapping[str, Deployment]:
        """All deployments by name."""
        return self.now.deployments

    def work_pools(self) -> Mapping[str, WorkPool]:
        """The pools that the rules describe or that their deployments name."""
        return self.now.work_pools

    def named_limits(self) -> Mapping[str, NamedLimit]:
        """See `runs.stores.Deployments`."""
        return self.now.named_limits

    def named_secrets(self) -> Mapping[str, NamedSecret]:
        """See `runs.stores.Deployments`."""
        return self.now.named_secrets

    def urls(self, name: str) -> Sequence[str]:
        """A notifier's URLs. Raises `NotFound`."""
        found = self.now.notifiers.get(name)
        if found is None:
            raise NotFound(f"there is no notifier {name!r}{did_you_mean(name, self.now.notifiers)}")
        return found

    def automation(self, name: str) -> Automation:
        """An automation. Raises `NotFound`."""
        found = self.now.automations.get(name)
        if found is None:
            raise NotFound(f"there is no automation {name[:200]!r}", word=name, among=self.now.automations)
        return found.model

    def action(self, firing: Firing, index: int) -> CompiledAction | None:
        """The action of `firing` that has `index` in the rules in force; None when they have none."""
        found = self.now.actions.get(firing.automation)
        return None if found is None else found.find(firing, index)

    def webhook(self, name: str) -> WebhookTranslator:
        """A webhook. Raises `NotFound`."""
        found = self.now.webhooks.get(name)
        if found is None:
            raise NotFound(f"there is no webhook {name[:200]!r}{did_you_mean(name, self.now.webhooks)}")
        return found


def _work_pools(rules: Rules) -> dict[str, WorkPool]:
    named = {deployment.work_pool for deployment in rules.deployments}
    return {
        **{name: WorkPool(name=name) for name in sorted(named)},
        **{pool.name: pool for pool in rules.work_pools},
    }


def _log_warnings(rules: Rules) -> None:
    for warning in rules.warnings[:_LOGGED]:
        log.warning("rules: %s", warning)
    if len(rules.warnings) > _LOGGED:
        log.warning("rules: %d warnings in all; `whenthen check` lists them", len(rules.warnings))
