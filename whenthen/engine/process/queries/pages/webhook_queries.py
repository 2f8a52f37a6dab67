"""The webhooks of the rules in force, without what is secret of them."""

from __future__ import annotations

from whenthen.engine.http import answer_models as answers
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.schemas.webhooks import Webhook

__all__ = ["WebhookQueries"]


class WebhookQueries:
    def __init__(self, rule_registry: RuleRegistry) -> None:
        self._rule_registry = rule_registry

    async def list_webhooks(self) -> list[answers.WebhookItem]:
        now = self._rule_registry.now
        return [
            answers.WebhookItem(
                name=webhook.name,
                path=f"/hooks/{webhook.name}",
                preset=webhook.preset or "",
                proof=_proof(webhook),
                rate_limit="" if webhook.rate_limit is None else str(webhook.rate_limit),
                methods=sorted(now.webhooks[webhook.name].methods) if webhook.name in now.webhooks else [],
            )
            for webhook in sorted(now.rules.webhooks, key=lambda webhook: webhook.name)
        ]


def _proof(webhook: Webhook) -> str:
    if webhook.verify is None:
        return "as the provider signs"
    return "none" if webhook.verify == "none" else webhook.verify.type
