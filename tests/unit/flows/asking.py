"""A reporter that hears everything and answers as a test says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from whenthen.flows.execution.reporter import REPORTER, SilentReporter


class Asked(SilentReporter):
    """Keeps what it heard. `answers` are values, or functions of the request's body."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.events: list[Any] = []
        self.artifacts: list[Any] = []

    def event(self, event: Any) -> None:
        self.events.append(event)

    def artifact(self, artifact: Any) -> None:
        self.artifacts.append(artifact)

    def request(self, kind: str, body: dict[str, Any]) -> Any:
        self.requests.append((kind, body))
        answer = self.answers[kind.replace(".", "_")]
        return answer(body) if isinstance(answer, Callable) else answer  # type: ignore[arg-type]  # callable or value


@contextmanager
def connected(**answers: Any) -> Iterator[Asked]:
    """In the block runs have a server, which gives these answers."""
    reporter = Asked(**answers)
    token = REPORTER.set(reporter)
    try:
        yield reporter
    finally:
        REPORTER.reset(token)
