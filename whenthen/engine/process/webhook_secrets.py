"""Which secrets of webhooks can not be read where requests come in? Looked at when rules are taken and then every few seconds.

A webhook none of whose secrets can be read refuses every request, and its sender learns no reason: so the log says it at the start, and
`whenthen status`, the metric `whenthen_webhook_secrets_missing` and an alert as long as it lasts. Environments do not change, files do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from whenthen.cancellation import wait_event
from whenthen.engine.metrics import Metrics
from whenthen.engine.process.rule_registry import Compiled, RuleRegistry
from whenthen.sources import WebhookTranslator

__all__ = ["WebhookSecrets"]

log = logging.getLogger(__name__)

LOOK_EVERY_S = 10.0
_LOGGED = 20  #: lines at one time


class WebhookSecrets:
    """`missing` has for each webhook why secrets of it can not be read; webhooks whose secrets can be read are not there."""

    def __init__(self, rule_registry: RuleRegistry, metrics: Metrics) -> None:
        self.missing: dict[str, list[str]] = {}
        self._rule_registry = rule_registry
        self._metrics = metrics
        self._changed = asyncio.Event()
        rule_registry.on_change(self._take_rules)

    async def look(self) -> None:
        """Try to read every secret, and say what has changed."""
        webhooks = self._rule_registry.now.webhooks
        # in a thread: files may be on a disk that answers slowly
        found = await asyncio.to_thread(_unreadable, webhooks)
        if webhooks is not self._rule_registry.now.webhooks:
            return  # other rules are in force, and are looked at next
        self._say(found, webhooks)
        self.missing = found
        for name in webhooks:
            self._metrics.secrets_missing(name, len(found.get(name, ())))

    async def run(self) -> None:
        """Look every few seconds, and at once when rules are taken, until cancelled."""
        while True:
            await wait_event(self._changed, LOOK_EVERY_S)
            self._changed.clear()
            await self.look()

    def _take_rules(self, _compiled: Compiled) -> None:
        self._changed.set()

    def _say(self, found: Mapping[str, list[str]], webhooks: Mapping[str, WebhookTranslator]) -> None:
        lines = []
        for name, reasons in found.items():
            if reasons != self.missing.get(name):
                refused = "every request is refused" if len(reasons) == webhooks[name].secrets else "it has others"
                lines.append(f"webhook {name}: a secret of it can not be read, {refused}: {'; '.join(reasons)}")
        for line in lines[:_LOGGED]:
            log.warning("%s", line)
        if len(lines) > _LOGGED:
            log.warning("%d webhooks have secrets that can not be read; `whenthen status` lists them", len(found))
        for name in [name for name in self.missing if name in webhooks and name not in found][:_LOGGED]:
            log.info("webhook %s: its secrets can be read again", name)


def _unreadable(webhooks: Mapping[str, WebhookTranslator]) -> dict[str, list[str]]:
    found = {name: webhook.unreadable_secrets() for name, webhook in webhooks.items()}
    return {name: reasons for name, reasons in found.items() if reasons}
