"""What would a webhook in force make of a request? Reads it as the hot route does, and stores nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from whenthen.engine.http import answer_models as answers
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.schemas.errors import InvalidInput, KeysUnavailable, Refused
from whenthen.sources import Request

__all__ = ["WebhookTrials"]


class WebhookTrials:
    def __init__(self, rule_registry: RuleRegistry, *, clock: Callable[[], datetime]) -> None:
        self._rule_registry = rule_registry
        self._clock = clock

    async def try_request(self, webhook: str, request: Request) -> answers.TriedRequest:
        """The events, whether or not the request proves who it is from, and what is wrong with that.

        Raises:
            NotFound: there is no such webhook.
            InvalidInput: the request does not fit it.
        """
        translator = self._rule_registry.webhook(webhook)
        if request.method not in {"POST", *translator.methods}:
            known = ", ".join(sorted(translator.methods))
            raise InvalidInput(f"{request.method}: this webhook is called with {known}", path=("method",))
        now, proof = self._clock(), ""
        try:
            made = translator.translate(request, now)
        except (Refused, KeysUnavailable) as error:
            proof = f"{error.reason}: {error}"
            made = translator.read(request, now)
        return answers.TriedRequest(
            events=[event.data for event in made.events],
            dropped=made.dropped,
            answer=None if made.answer is None else made.answer.body.decode("utf-8", "replace"),
            proof=proof,
        )
