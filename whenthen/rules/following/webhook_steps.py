"""Which events does a request to a webhook become, with nobody sending it? For steps of tests, and for `whenthen hooks try`.

The server's own translation (`sources`); whether the request proves who it is from is not looked at, as no secret is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from whenthen.rules.folder import Rules
from whenthen.schemas.errors import InvalidInput, did_you_mean
from whenthen.schemas.events import EventLimits
from whenthen.sources import Request, SourceLimits, Translation, WebhookTranslator

__all__ = ["TriedWebhooks"]


class TriedWebhooks:
    """The webhooks of a set of rules, each compiled when it is first asked for."""

    def __init__(self, rules: Rules, *, limits: EventLimits | None = None) -> None:
        self._webhooks = {webhook.name: webhook for webhook in rules.webhooks}
        self._providers = {provider.name: provider for provider in rules.providers}
        self._limits = SourceLimits(event=limits or EventLimits())
        self._compiled: dict[str, WebhookTranslator] = {}

    @staticmethod
    def request(
        body: Any, *, headers: Mapping[str, str], query: Mapping[str, str] | None = None, method: str = "POST"
    ) -> Request:
        """A request with a body as it is written: bytes and text as they are, every other value as JSON."""
        if isinstance(body, bytes):
            raw = body
        elif isinstance(body, str):
            raw = body.encode("utf-8", "replace")
        else:
            raw = b"" if body is None else orjson.dumps(body)
        return Request.of(method=method, headers=headers, query=query or {}, body=raw)

    def read(self, name: str, request: Request, now: datetime) -> Translation:
        """What becomes of a request.

        Raises:
            InvalidInput: there is no such webhook, or the request does not fit it.
        """
        compiled = self._compiled.get(name)
        if compiled is None:
            webhook = self._webhooks.get(name)
            if webhook is None:
                raise InvalidInput(
                    f"there is no webhook {name[:80]!r} in the rules{did_you_mean(name, self._webhooks)}",
                    path=("webhook",),
                )
            compiled = self._compiled[name] = WebhookTranslator(
                webhook, resolve_secret=_no_secret, limits=self._limits, providers=self._providers
            )
        if request.method not in compiled.methods:
            raise InvalidInput(
                f"{request.method}: this webhook is called with {', '.join(sorted(compiled.methods))}", path=("method",)
            )
        return compiled.read(request, now)


def _no_secret(reference: str) -> str:
    raise InvalidInput(f"{reference} is not read here")
