"""Requests of providers, made from their data: the body of a sample, signed by a recipe without the code that verifies."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from whenthen.schemas.providers import Provider, Sample
from whenthen.schemas.times import parse_time
from whenthen.schemas.webhooks import HmacRecipe, Webhook
from whenthen.sources import Request, WebhookTranslator, builtin_names, find_provider

NOW = datetime(2026, 1, 31, 8, 0, 30, tzinfo=UTC)
BASE64_SECRET = "whsec_" + base64.b64encode(b"a key of thirty-two bytes to test").decode()
SECRETS = {"env:MINE": BASE64_SECRET, "env:OTHER": "whsec_" + base64.b64encode(b"not this one").decode()}

PROVIDERS: dict[str, Provider] = {name: find_provider(name) for name in builtin_names()}


def hook(provider: str, **fields: Any) -> WebhookTranslator:
    """A webhook with this preset, which accepts `env:MINE` where the provider knows a proof."""
    if "verify" not in fields and "secret" not in fields:
        fields |= {"secret": "env:MINE"} if PROVIDERS[provider].verify else {"verify": "none"}
    webhook = Webhook.model_validate({"name": "hook", "preset": provider, **fields})
    return WebhookTranslator(webhook, resolve_secret=SECRETS.__getitem__)


def typical(name: str) -> Sample:
    """A sample that becomes events and is signed here; of a form its fields as JSON, which is read alike."""
    found = next(sample for sample in PROVIDERS[name].samples if sample.events and sample.secret is None)
    return found if found.form is None else found.model_copy(update={"body": found.form, "form": None})


def raw_body(sample: Sample) -> tuple[bytes, str]:
    """The bytes of a sample's body and their content type."""
    if sample.text is not None:
        return sample.text.encode(), "application/json"
    if sample.form is not None:
        fields = {
            name: json.dumps(value) if isinstance(value, dict | list) else value for name, value in sample.form.items()
        }
        return urlencode(fields).encode(), "application/x-www-form-urlencoded"
    return (b"" if sample.body is None else json.dumps(sample.body).encode()), "application/json"


def signed(
    recipe: Any, body: bytes, *, secret: str = BASE64_SECRET, at: datetime = NOW, headers: dict[str, str]
) -> dict[str, str]:
    """The headers that prove a request by a recipe."""
    if not isinstance(recipe, HmacRecipe):
        return {recipe.header: f"Bearer {secret}" if recipe.header == "Authorization" else secret}
    made: dict[str, str] = {}
    stamp = ""
    if recipe.time is not None:
        seconds = at.timestamp()
        stamp = {"s": str(int(seconds)), "ms": str(int(seconds * 1000)), "iso": at.isoformat()}[recipe.time.unit]
        if recipe.time.header is not None:
            made[recipe.time.header] = stamp
        if recipe.time.body is not None:
            stamp = ""  # which stands in what is signed
    text = recipe.signed or ("{timestamp}.{body}" if stamp and recipe.time.body is None else "{body}")
    lower = {name.lower(): value for name, value in headers.items()}

    def part(match: re.Match[str]) -> str:
        if match[1] == "body":
            return body.decode("latin-1")
        if match[1] == "timestamp":
            return stamp
        if match[1].lower() not in lower:
            lower[match[1].lower()] = made[match[1]] = "id-1"
        return lower[match[1].lower()]

    content = re.sub(r"\{([\w-]+)\}", part, text).encode("latin-1")
    plain = secret.removeprefix(recipe.key.strip) if recipe.key.strip else secret
    key = base64.b64decode(plain) if recipe.key.decode == "base64" else plain.encode()
    digest = hmac.new(key, content, getattr(hashlib, recipe.algorithm)).digest()
    signature = recipe.prefix + (digest.hex() if recipe.encoding == "hex" else base64.b64encode(digest).decode())
    items = [signature]
    if recipe.time is not None and recipe.time.field is not None:
        items.insert(0, recipe.time.field + stamp)
    return {**made, recipe.header: (recipe.separator or "").join(items)}


def request_of(
    provider: Provider, sample: Sample, *, recipe: Any = None, body: bytes | None = None, **options: Any
) -> Request:
    """A sample's request; signed by `recipe`, or the provider's first, unless the sample has its own signature."""
    raw, content_type = raw_body(sample)
    raw = raw if body is None else body
    headers = {"Content-Type": content_type, **sample.headers}
    recipe = recipe or next(iter(provider.verify), None)
    if recipe is not None and sample.secret is None and sample.method == "POST":
        headers |= signed(recipe, raw, headers=headers, **options)
    return Request.of(method=sample.method, headers=headers, query=sample.query, body=raw)


def time_of_sample(sample: Sample) -> datetime:
    return NOW if sample.at is None else parse_time(sample.at)
