"""One webhook, compiled when rules are loaded: verify a request, then turn it into events.

Called by the HTTP edge in `engine`. Pure: takes the request and `now`. Meaning: docs/sources.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime

from whenthen.schemas.errors import InvalidInput, Unproven
from whenthen.schemas.events import check_outside
from whenthen.schemas.providers import Provider
from whenthen.schemas.webhooks import (
    BearerVerification,
    HmacRecipe,
    HmacVerification,
    JwtVerification,
    SnsVerification,
    Verification,
    Webhook,
)
from whenthen.sources.cloud import translate_azure_blob, translate_gcs, unwrap
from whenthen.sources.handshakes import Handshakes
from whenthen.sources.json_bodies import decode_json
from whenthen.sources.mapping import CompiledMapping, SourceLimits, Translation, checked_condition, ids_of, reject
from whenthen.sources.objectstore import Reading, translate_notification
from whenthen.sources.proofs import PublicKeys, confirmation_of, require_libraries
from whenthen.sources.provider_files import find_provider
from whenthen.sources.provider_mapping import VARIABLES, Additions, ProviderMapping, context_of
from whenthen.sources.requests import Request, decode_body
from whenthen.sources.verification import (
    ResolveSecret,
    is_all_in_head,
    proof_headers,
    references,
    unreadable_secrets,
    verify,
    verify_head,
    wanted_keys,
)

__all__ = ["WebhookTranslator", "check_provider"]

_POST = frozenset({"POST"})
_BUCKETS = {"s3": translate_notification, "gcs": translate_gcs, "azure-blob": translate_azure_blob}


class WebhookTranslator:
    """Turns the requests of one webhook into events.

    Args:
        webhook: as it is written in the rules.
        resolve_secret: the secret of a reference; called for every request, so that a rotated secret counts at once.
        limits: how much one request may become.
        providers: those of the rules, by name.
        keys: the public keys at hand, shared by all webhooks of a process.
        source: of its events, in place of `webhook:<name>`.
        ids: what their ids begin with, in place of the name.

    Raises:
        InvalidInput: a template, path or condition is wrong, or two settings contradict; names the field.
    """

    def __init__(
        self,
        webhook: Webhook,
        *,
        resolve_secret: ResolveSecret,
        limits: SourceLimits | None = None,
        providers: Mapping[str, Provider] | None = None,
        keys: PublicKeys | None = None,
        source: str = "",
        ids: str = "",
    ) -> None:
        self.name = webhook.name
        self._source = source or f"webhook:{webhook.name}"
        self._ids = ids or ids_of(webhook.ids, webhook.name)
        self.rate_limit = webhook.rate_limit
        self.body_limit = webhook.limits.body  #: in place of the process's; None where that counts
        self.methods: frozenset[str] = _POST  #: that requests may have
        self._limits = limits or SourceLimits()
        if webhook.limits.items is not None:
            self._limits = replace(self._limits, events=webhook.limits.items)
        self._keys = keys or PublicKeys()
        self._envelope = webhook.envelope
        self._resolve_secret = resolve_secret
        self._when = None
        self._reserved_names = webhook.allow_reserved_names
        self._handshakes: Handshakes | None = None
        self._read: Callable[[Request, datetime, str | None], Translation]
        provider = None if webhook.preset is None else find_provider(webhook.preset, providers)
        self._verifications = _verifications(webhook, provider)
        #: whether its requests are verified by public keys
        self.needs_keys = any(isinstance(each, (SnsVerification, JwtVerification)) for each in self._verifications)
        if webhook.map is not None:
            if webhook.when is not None:
                raise InvalidInput("belongs to a preset; write it as map.when here", path=("when",))
            self._read = CompiledMapping(
                webhook.name,
                webhook.map,
                limits=self._limits,
                allow_reserved_names=webhook.allow_reserved_names,
                source=self._source,
                ids=self._ids,
            ).translate
            return
        assert provider is not None
        related = [{label: [text] for label, text in labels.items()} for labels in webhook.related]
        labels = {label: [text] for label, text in webhook.labels.items()}
        if provider.code is not None:
            if webhook.each is not None:
                raise InvalidInput(f"the {provider.name} preset has its own; leave it out", path=("each",))
            self._additions = Additions(labels, related, VARIABLES)
            self._translate_notice = _BUCKETS[provider.code]
            self._read = self._read_bucket
        else:
            try:
                self._read = ProviderMapping(
                    webhook.name,
                    provider,
                    limits=self._limits,
                    each=webhook.each,
                    labels=labels,
                    related=related,
                    allow_reserved_names=webhook.allow_reserved_names,
                    source=self._source,
                    ids=self._ids,
                ).translate
            except InvalidInput as error:
                # what the webhook does not have itself is the provider's, which is looked at where it is written
                if error.path[:1] and str(error.path[0]) in ("labels", "related", "each"):
                    raise
                raise InvalidInput(f"provider {provider.name!r}: {error}", path=("preset",)) from None
        if webhook.when is not None:
            self._when = checked_condition(webhook.when, ("when",), ("event", "now"))
        if provider.handshakes:
            self._handshakes = Handshakes(webhook.name, provider.handshakes)
        self.methods = frozenset({*provider.methods, *(handshake.method for handshake in provider.handshakes)})

    @property
    def secrets(self) -> int:
        """The number of secrets that it accepts."""
        return len(self._references())

    def unreadable_secrets(self) -> list[str]:
        """Why secrets of it can not be read, one text for each that can not; it names references, never values."""
        looked = [
            (references(each), unreadable_secrets(each, resolve_secret=self._resolve_secret))
            for each in self._verifications
        ]
        found: list[str] = []
        for reference in self._references():
            reasons = [unreadable.get(reference) for named, unreadable in looked if reference in named]
            # of several recipes one is enough: a secret may be the key of the one and the token of the other
            known = [reason for reason in reasons if reason is not None]
            if len(known) == len(reasons):
                found.append(min(known))
        return found

    def _references(self) -> list[str]:
        return list(dict.fromkeys(reference for each in self._verifications for reference in references(each)))

    def check_head(self, request: Request, now: datetime) -> None:
        """Return if the headers of a request may be those of an authentic one; its body is not there yet.

        Raises:
            Refused: whatever its body is, it does not prove who it is from.
        """
        if self._verifications and not self._is_open(request):
            verification = self._verification_of(request)
            verify_head(request, verification, now=now, resolve_secret=self._resolve_secret, keys=self._keys)
            if is_all_in_head(verification):
                request.proven_by = self

    @property
    def proof_headers(self) -> set[str]:
        """The headers that prove a request, in lower case."""
        return {header for each in self._verifications for header in proof_headers(each)}

    @property
    def proof(self) -> str:
        """How requests prove who they are, in a word or two; empty where they do not."""
        return ", ".join(dict.fromkeys(each.type for each in self._verifications))

    def wanted_keys(self, request: Request, now: datetime) -> str | None:
        """The address of public keys that are to be fetched, and put into `keys`, before the request is verified; None: none are."""
        if not self.needs_keys or self._is_open(request):
            return None
        return wanted_keys(request, self._verifications[0], now=now, keys=self._keys)

    def put_keys(self, url: str, document: bytes | None, now: datetime) -> None:
        """Keep keys that were fetched; None when they could not be."""
        self._keys.put(url, document, now)

    def translate(self, request: Request, now: datetime) -> Translation:
        """Verify the request and translate it: its events, and for whatever was dropped the reason; or the answer to a handshake.

        Raises:
            Refused: it does not prove who it is from (401, 403).
            UnsupportedMediaType: its content type is not read (415).
            InvalidInput: it does not fit the webhook; names the field (400).
            ReservedName: an event would be called like one of the engine's own (400).
        """
        signed_at = None
        if self._verifications and not self._is_open(request):
            if request.proven_by is not self:  # else `check_head` has seen all of its proof
                signed_at = verify(
                    request,
                    self._verification_of(request),
                    now=now,
                    resolve_secret=self._resolve_secret,
                    keys=self._keys,
                )
            request.proven, request.signed_at = True, signed_at
            if type(self._verifications[0]) is SnsVerification:
                found = self._confirmation(request, self._verifications[0])
                if found is not None:
                    return found
        return self.read(request, now, signed_at)

    def read(self, request: Request, now: datetime, signed_at: str | None = None) -> Translation:
        """Translate a request whose proof is known to hold, as `translate` does. Raises as `translate`, but for the proof."""
        if self._handshakes is not None:
            answer = self._handshakes.answer(request)
            if answer is not None:
                return Translation(answer=answer)
            if self._is_open(request):
                raise InvalidInput("not a handshake of this sender", path=("method",))
        if self._envelope is not None:
            inside = unwrap(request, self._envelope)
            if isinstance(inside, str):
                return Translation(dropped=[inside])
            request, message_id = inside
            signed_at = message_id or signed_at
        result = self._read(request, now, signed_at)
        for event in result.events:
            check_outside(event, reserved_names=self._reserved_names)
            if request.trace is not None:
                event.data["trace"] = request.trace
        if self._when is None:
            return result
        kept = Translation(dropped=result.dropped, extra_bytes=result.extra_bytes)
        for event in result.events:
            reason = reject(self._when, {**event.variables, "now": now})
            if reason is None:
                kept.events.append(event)
            else:
                kept.dropped.append(f"{event.name} {event.id}: when: {reason}")
        return kept

    def _confirmation(self, request: Request, how: SnsVerification) -> Translation | None:
        """What becomes of a genuine request that asks for a subscription; None for every other one."""
        body = decode_json(request.body)
        if body.get("Type") != "SubscriptionConfirmation":
            return None
        url = confirmation_of(body)
        if url is None:
            raise InvalidInput("it is not at https://sns.<region>.amazonaws.com/", path=("body", "SubscribeURL"))
        said = (
            "is being confirmed" if how.confirm else "waits: `confirm: true` confirms it, as does opening SubscribeURL"
        )
        return Translation(
            dropped=[f"the subscription of {body['TopicArn']} {said}"], confirm=url, confirms=how.confirm
        )

    def _is_open(self, request: Request) -> bool:
        """Whether a request needs no proof: a handshake of a sender that can not prove itself yet. It becomes no event."""
        return request.method != "POST" and self._handshakes is not None and self._handshakes.is_open(request.method)

    def _verification_of(self, request: Request) -> Verification:
        """The first whose header is there; with none of them the first, which says what is missing."""
        first = self._verifications[0]
        if len(self._verifications) == 1:
            return first
        for verification in self._verifications:
            if proof_headers(verification)[0] in request.headers:
                return verification
        names = ", ".join(dict.fromkeys(proof_headers(verification)[0] for verification in self._verifications))
        raise Unproven("proof_missing", f"none of these headers is there: {names}", status=401)

    def _read_bucket(self, request: Request, now: datetime, signed_at: str | None) -> Translation:
        # SNS declares its JSON as text/plain.
        plain = request.media_type == "text/plain"
        body = decode_json(request.body) if plain else decode_body(request)
        added = (self._additions, context_of(request, body, self.name)) if self._additions else None
        return self._translate_notice(body, Reading(self._source, self._ids, now, self._limits, added))


def check_provider(provider: Provider, providers: Mapping[str, Provider]) -> None:
    """Return if a provider of the rules compiles. `providers` are all of the rules.

    Raises:
        InvalidInput: a template, path or condition is wrong, or what it extends; names the field.
    """
    whole = find_provider(provider.name, {**providers, provider.name: provider})
    if whole.code is None:
        ProviderMapping("check", whole, limits=SourceLimits())
    Handshakes("check", whole.handshakes)


def _verifications(webhook: Webhook, provider: Provider | None) -> list[Verification]:
    """How requests are verified, one of several ways; none accepts everyone, which the webhook must have said."""
    if webhook.secret is not None:
        if webhook.verify is not None:
            raise InvalidInput("give either `secret` or `verify`, not both", path=("verify",))
        if provider is None or not provider.verify:
            name = "this webhook" if provider is None else f"the {provider.name} preset"
            raise InvalidInput(
                f"{name} knows no proof of its own; use `verify: {{type: bearer, ...}}`, hmac, basic, or none",
                path=("secret",),
            )
        return [
            HmacVerification(**recipe.model_dump(exclude_unset=True), secret=webhook.secret)
            if isinstance(recipe, HmacRecipe)
            else BearerVerification(type="bearer", token=webhook.secret, header=recipe.header)
            for recipe in provider.verify
        ]
    if webhook.verify is None:
        raise InvalidInput("say how requests are verified, or `verify: none`", path=("verify",))
    if isinstance(webhook.verify, (SnsVerification, JwtVerification)):
        require_libraries(f"verify: {{type: {webhook.verify.type}}}")
    return [] if webhook.verify == "none" else [webhook.verify]
