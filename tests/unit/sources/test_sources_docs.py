"""docs/sources.md: its examples load, and its tables name what the code makes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from whenthen.schemas.automations import RuleFile
from whenthen.schemas.errors import Unproven
from whenthen.sources import WebhookTranslator, builtin_names, check_provider
from whenthen.sources.objectstore import _DETAIL_TYPES, _NAMES, _OTHER

PAGE = (Path(__file__).parents[3] / "docs" / "sources.md").read_text()


def _examples() -> list[Any]:
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]


def test_examples_of_the_page_load() -> None:
    files = [RuleFile.model_validate(example) for example in _examples()]
    for file in files:
        providers = {provider.name: provider for provider in file.providers}
        for provider in file.providers:
            check_provider(provider, providers)
        for webhook in file.webhooks:
            WebhookTranslator(webhook, resolve_secret=lambda reference: reference, providers=providers)
    webhooks = [webhook for file in files for webhook in file.webhooks]
    assert {webhook.preset for webhook in webhooks} >= {*builtin_names()}
    assert sum(len(file.automations) for file in files) == 4


def test_page_tells_every_reason_of_a_proof_that_fails() -> None:
    assert {*Unproven.REASONS} == set(re.findall(r"^\| `(proof_\w+|clock_skew)` \|", PAGE, re.MULTILINE))


def test_page_names_every_event_of_an_object_store() -> None:
    made = {name for _, name in _NAMES if name} | set(_DETAIL_TYPES.values()) | {_OTHER}
    assert made == set(re.findall(r"`(s3\.(?:file|bucket)\.[a-z-]+)`", PAGE))
