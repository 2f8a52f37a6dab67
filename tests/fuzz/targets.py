"""Every target by name, and where its corpus lies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fuzz import documents, evaluation, incoming, languages

__all__ = ["CORPUS", "TARGETS", "corpus_of"]

CORPUS = Path(__file__).parent / "corpus"

#: each takes any bytes and raises for a fault alone
TARGETS: dict[str, Callable[[bytes], None]] = {
    "conditions": languages.conditions,
    "evaluator": evaluation.evaluator,
    "events": incoming.events,
    "paths": languages.paths,
    "records": documents.records,
    "replays": documents.replays,
    "requests": incoming.requests,
    "rules": documents.rules,
    "ruletests": documents.ruletests,
    "signatures": incoming.signatures,
    "subjects": languages.subjects,
    "templates": languages.templates,
    "webhooks": incoming.webhooks,
}


def corpus_of(target: str) -> list[Path]:
    """The stored inputs of a target, seeds and what was found, in the order of their names."""
    return sorted(path for path in (CORPUS / target).iterdir() if path.is_file())
