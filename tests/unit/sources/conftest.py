"""What the tests of sources share: a clock, secrets, and webhooks from their YAML form."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from whenthen.schemas.webhooks import Webhook
from whenthen.sources import WebhookTranslator

SECRETS = {"env:OLD": "old secret", "env:NEW": "new secret", "env:EMPTY": "", "env:LINE": "new secret\n"}

Translate = Callable[..., WebhookTranslator]


@pytest.fixture
def now() -> datetime:
    return datetime(2026, 1, 31, 8, 0, tzinfo=UTC)


@pytest.fixture
def build() -> Translate:
    """Builds the translator of a webhook written as in YAML."""

    def make(**fields: Any) -> WebhookTranslator:
        webhook = Webhook.model_validate({"name": "hook", "verify": "none", **fields})
        return WebhookTranslator(webhook, resolve_secret=lambda reference: SECRETS[reference])

    return make
