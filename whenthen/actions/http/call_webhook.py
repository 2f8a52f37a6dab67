"""call-webhook: one HTTP request, with the idempotency key, signed when the rule asks for it.

What can be judged when the rule is loaded is judged then (`destinations` for the URL, `_headers` here); what depends
on the event is checked again with the rendered values. Redirects are not followed.
Meaning: docs/actions.md, "call-webhook".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import orjson

from whenthen import __version__
from whenthen.actions.attempts import ActionResult, Call
from whenthen.actions.fields import Field, compile_text_field, compile_value_field
from whenthen.actions.http.destinations import Destination, compile_destination
from whenthen.actions.http.outgoing import DIRECT, Answer, Proxy, RequestFailed, TlsMaterial
from whenthen.actions.http.signatures import SIGNATURE_HEADERS, signature_headers
from whenthen.actions.http.try_records import shown_body
from whenthen.actions.secrets import is_reference
from whenthen.schemas.actions import CallWebhook
from whenthen.schemas.errors import ActionError, InvalidTemplate, RenderError
from whenthen.schemas.trace_context import trace_headers

__all__ = ["CallWebhookHandler", "read_retry_after"]

#: of an answer's body that an error quotes
QUOTED_CHARS = 200
#: statuses below 500 that another attempt may change: Request Timeout, Too Early, Too Many Requests
RETRYABLE_STATUS = frozenset({408, 425, 429})
#: headers that the request sets by itself
OWN_HEADERS = frozenset(
    {"connection", "content-length", "host", "idempotency-key", "proxy-authorization", "transfer-encoding"}
)
#: methods whose requests have no default body
BODILESS = frozenset({"GET", "DELETE"})

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: a reference, alone or after the scheme of an Authorization header
_HEADER_REFERENCE = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9_-]* )?(?P<reference>env:[A-Za-z_][A-Za-z0-9_]*|file:\S+)"
)
_NOT_IN_HEADERS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class _Header:
    name: str
    text: Field[str] | None  #: a template, or
    scheme: str  #: what stands before
    reference: str  #: a secret

    def render(self, call: Call) -> str:
        value = self.scheme + call.ports.resolve_secret(self.reference) if self.text is None else self.text.render(call)
        if _NOT_IN_HEADERS.search(value):
            raise RenderError("has control characters; a header is one line of text", path=("headers", self.name))
        return value.strip()


@dataclass(frozen=True, slots=True)
class CallWebhookHandler:
    """One request; the answer's status decides."""

    action: CallWebhook
    destination: Destination
    headers: tuple[_Header, ...]
    body: Field[Any] | None

    @classmethod
    def compile(cls, action: CallWebhook) -> CallWebhookHandler:
        destination = compile_destination("url", action.url, allow_hosts=action.allow_hosts)
        if action.tls is not None and destination.origin is not None and destination.origin[0] == "http":
            raise InvalidTemplate("the url is http://, so nothing of it would be used; write https://", path=("tls",))
        return cls(
            action,
            destination,
            _headers(action),
            None if action.body is None else compile_value_field(action.body, "body", links=True),
        )

    async def run(self, call: Call) -> ActionResult:
        url = self.destination.resolve(call)
        body, media_type = self._body(call)
        headers = {
            "user-agent": f"whenthen/{__version__}",
            "accept": "*/*",
            "accept-encoding": "identity",
            "idempotency-key": call.key,
        }
        if media_type:
            headers["content-type"] = media_type
        own = {header.name.lower(): header.render(call) for header in self.headers}
        if "traceparent" not in own:
            headers.update(trace_headers(call.trace))
        headers.update(own)
        if self.action.secret is not None:
            secret = call.ports.resolve_secret(self.action.secret)
            signed = signature_headers(secret, id=call.key, now=call.now, body=body, reference=self.action.secret)
            headers.update(signed)
        return await self._send(call, url, headers, body)

    def _body(self, call: Call) -> tuple[bytes, str | None]:
        if self.body is not None:
            value = self.body.render(call)
        elif self.action.method in BODILESS:
            return b"", None
        else:
            context = call.context
            value = {name: context[name] for name in ("automation", "firing", "event", "key")}
        if isinstance(value, str):
            return value.encode(), "text/plain; charset=utf-8"
        try:
            return orjson.dumps(value), "application/json"
        except TypeError as error:
            raise RenderError(f"can not be written as JSON: {error}", path=("body",)) from None

    async def _send(self, call: Call, url: httpx.URL, headers: dict[str, str], body: bytes) -> ActionResult:
        where = f"{self.action.method} {url.scheme}://{url.netloc.decode()}"
        call.record.sends(method=self.action.method, url=url, headers=headers, body=body)
        try:
            answer = await call.ports.http.request(
                self.action.method, url, headers, body, proxy=self._proxy(call), tls=self._tls(call)
            )
        except RequestFailed as error:
            raise ActionError(f"{where}: {error}", retryable=error.retryable, reason=error.reason) from None
        status = answer.status
        call.record.receives(status=status, headers=answer.headers, body=answer.body)
        expected = self.action.expect_status
        if status in expected or (not expected and 200 <= status < 300):
            return ActionResult(details={"status": status, "host": url.host})
        raise _failure(call, where, answer, expected)

    def _proxy(self, call: Call) -> Proxy | None:
        written = self.action.proxy or call.ports.http.defaults.proxy
        if written is None or written == DIRECT:
            return None
        url = call.ports.resolve_secret(written) if is_reference(written) else written
        return Proxy(url, from_settings=self.action.proxy is None)

    def _tls(self, call: Call) -> TlsMaterial | None:
        tls = self.action.tls or call.ports.http.defaults.tls
        if tls is None:
            return None
        read = call.ports.resolve_secret
        return TlsMaterial(
            ca=None if tls.ca is None else read(tls.ca, public=True),
            # without a `key` of its own the certificate's text has the key in it
            certificate=None if tls.certificate is None else read(tls.certificate, public=tls.key is not None),
            key=None if tls.key is None else read(tls.key),
        )


def _headers(action: CallWebhook) -> tuple[_Header, ...]:
    found = []
    for name, text in action.headers.items():
        path = ("headers", name)
        if not _HEADER_NAME.fullmatch(name):
            raise InvalidTemplate("not a header's name; letters, digits and dashes only", path=path)
        if name.lower() in OWN_HEADERS:
            raise InvalidTemplate("is set by the request itself; leave it out", path=path)
        if name.lower() in SIGNATURE_HEADERS and action.secret is not None:
            raise InvalidTemplate("is set by the signature that `secret` asks for; leave one of them out", path=path)
        reference = _HEADER_REFERENCE.fullmatch(text)
        if reference:
            found.append(_Header(name, None, reference["scheme"] or "", reference["reference"]))
        else:
            found.append(_Header(name, compile_text_field(text, *path, empty=True), "", ""))
    return tuple(found)


def _failure(call: Call, where: str, answer: Answer, expected: Sequence[int]) -> ActionError:
    status = answer.status
    if 300 <= status < 400 and "location" in answer.headers:
        return ActionError(
            f"{where}: answered {status}, a redirect to {_host_of(answer.headers['location'])}, and redirects are not followed; "
            "put the final address into the rule",
            retryable=False,
            reason="redirect",
        )
    message = f"{where}: answered {status}"
    if expected:
        message += f", expected {' or '.join(map(str, expected))}"
    media_type = answer.headers.get("content-type", "")
    quoted = " ".join(shown_body(answer.body, media_type, call.ports.redactor).split())
    if quoted:
        message += ": " + (quoted if len(quoted) <= QUOTED_CHARS else quoted[:QUOTED_CHARS] + "…")
    return ActionError(
        message,
        retryable=status >= 500 or status in RETRYABLE_STATUS,
        reason="http_status",
        retry_after=read_retry_after(answer.headers.get("retry-after"), now=call.now),
    )


def _host_of(location: str) -> str:
    try:
        host = httpx.URL(location).host
    except httpx.InvalidURL:
        return "an unreadable address"
    return f"host {host}" if host else "a path of the same host"


def read_retry_after(value: str | None, *, now: datetime) -> timedelta | None:
    """A Retry-After header, seconds or an HTTP date, as a wait from `now`; None when it is missing or unreadable."""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return timedelta(seconds=min(int(value.strip()[:9]), 10**8))
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(moment - now, timedelta(0))
