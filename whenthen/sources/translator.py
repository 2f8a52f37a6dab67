"""One webhook, compiled when rules are loaded: verify a request, then turn it into events.

Called by the HTTP edge in `engine`. Pure: takes the request and `now`. Meaning: docs/sources.md.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from whenthen.schemas.errors import InvalidInput
from whenthen.schemas.events import check_outside
from whenthen.schemas.webhooks import HmacVerification, Verification, Webhook
from whenthen.sources.github import SIGNATURE_HEADER, SIGNATURE_PREFIX, translate_github
from whenthen.sources.json_bodies import decode_json
from whenthen.sources.mapping import CompiledMapping, SourceLimits, Translation, checked_condition, reject
from whenthen.sources.objectstore import translate_notification
from whenthen.sources.requests import Request, decode_body
from whenthen.sources.verification import ResolveSecret, references, unreadable_secrets, verify, verify_head

__all__ = ["WebhookTranslator"]


class WebhookTranslator:
    """Turns the requests of one webhook into events.

    Args:
        webhook: as it is written in the rules.
        resolve_secret: the secret of a reference; called for every request, so that a rotated secret counts at once.
        limits: how much one request may become.

    Raises:
        InvalidInput: a template, path or condition is wrong, or two settings contradict; names the field.
    """

    def __init__(
        self,
        webhook: Webhook,
        *,
        resolve_secret: ResolveSecret,
        limits: SourceLimits | None = None,
    ) -> None:
        self.name = webhook.name
        self.rate_limit = webhook.rate_limit
        self._limits = limits or SourceLimits()
        self._resolve_secret = resolve_secret
        self._verification = _verification(webhook)
        self._when = None
        self._reserved_names = webhook.allow_reserved_names
        self._read: Callable[[Request, datetime, str | None], Translation]
        if webhook.map is not None:
            if webhook.when is not None:
                raise InvalidInput("belongs to a preset; write it as map.when here", path=("when",))
            self._read = CompiledMapping(
                webhook.name, webhook.map, limits=self._limits, allow_reserved_names=webhook.allow_reserved_names
            ).translate
        else:
            self._read = self._read_github if webhook.preset == "github" else self._read_s3
            if webhook.when is not None:
                self._when = checked_condition(webhook.when, ("when",), ("event", "now"))

    @property
    def secrets(self) -> int:
        """The number of secrets that it accepts."""
        return 0 if self._verification is None else len(references(self._verification))

    def unreadable_secrets(self) -> list[str]:
        """Why secrets of it can not be read, one text for each that can not; it names references, never values."""
        if self._verification is None:
            return []
        return unreadable_secrets(self._verification, resolve_secret=self._resolve_secret)

    def check_head(self, request: Request, now: datetime) -> None:
        """Return if the headers of a request may be those of an authentic one; its body is not there yet.

        Raises:
            Refused: whatever its body is, it does not prove who it is from.
        """
        if self._verification is not None:
            verify_head(request, self._verification, now=now, resolve_secret=self._resolve_secret)

    def translate(self, request: Request, now: datetime) -> Translation:
        """Verify the request and translate it: its events, and for whatever was dropped the reason.

        Raises:
            Refused: it does not prove who it is from (401, 403).
            UnsupportedMediaType: its content type is not read (415).
            InvalidInput: it does not fit the webhook; names the field (400).
            ReservedName: an event would be called like one of the engine's own (400).
        """
        signed_at = None
        if self._verification is not None:
            signed_at = verify(request, self._verification, now=now, resolve_secret=self._resolve_secret)
        result = self._read(request, now, signed_at)
        for event in result.events:
            check_outside(event, reserved_names=self._reserved_names)
            if request.trace is not None:
                event.data["trace"] = request.trace
        if self._when is None:
            return result
        kept = Translation(dropped=result.dropped)
        for event in result.events:
            reason = reject(self._when, {**event.variables, "now": now})
            if reason is None:
                kept.events.append(event)
            else:
                kept.dropped.append(f"{event.name} {event.id}: when: {reason}")
        return kept

    def _read_github(self, request: Request, now: datetime, signed_at: str | None) -> Translation:
        return translate_github(request, name=self.name, now=now, limits=self._limits)

    def _read_s3(self, request: Request, now: datetime, signed_at: str | None) -> Translation:
        # SNS declares its JSON as text/plain.
        plain = request.media_type == "text/plain"
        body = decode_json(request.body) if plain else decode_body(request)
        return translate_notification(body, name=self.name, now=now, limits=self._limits)


def _verification(webhook: Webhook) -> Verification | None:
    """How requests are verified; None accepts everyone, which the webhook must have said."""
    if webhook.secret is not None:
        if webhook.verify is not None:
            raise InvalidInput("give either `secret` or `verify`, not both", path=("verify",))
        return HmacVerification(
            type="hmac", secret=webhook.secret, header=SIGNATURE_HEADER, algorithm="sha256", prefix=SIGNATURE_PREFIX
        )
    if webhook.verify is None:
        raise InvalidInput("say how requests are verified, or `verify: none`", path=("verify",))
    return None if webhook.verify == "none" else webhook.verify
