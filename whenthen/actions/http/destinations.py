"""Where a call-webhook action may send its request: the scheme, host and port come from the rule alone.

A template may fill the path and the query. One that reaches into the host needs `allow_hosts`, and then the rendered
scheme, host and port must match an entry. The rendered URL is parsed and compared again, so that no text of an event can move the request.
Meaning: docs/actions.md, "Where requests may go".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from urllib.parse import unquote

import httpx

from whenthen.actions.attempts import Call
from whenthen.actions.fields import Field, compile_text_field
from whenthen.actions.secrets import is_reference
from whenthen.schemas.errors import ActionError, InvalidTemplate

__all__ = ["Destination", "compile_destination"]

_TEMPLATE = re.compile(r"\{\{|\{%|\{#")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_END_OF_AUTHORITY = re.compile(r"[/?#]")
_DOT_SEGMENTS = frozenset({".", ".."})

#: an entry of `allow_hosts`: [scheme://]host[:port]
_ALLOWED = re.compile(
    r"(?:(?P<scheme>https?)://)?(?P<host>\[[0-9a-f:.]+\]|[^/:@?#\s\\]+)(?::(?P<port>[0-9]{1,5}|\*))?", re.IGNORECASE
)
_DEFAULT_PORTS = {"http": 80, "https": 443}

#: scheme, host, port
Origin = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class _Allowed:
    """One entry of `allow_hosts`."""

    text: str  #: as it was written
    scheme: str
    host: str  #: a glob
    port: int | None  #: None for every one

    def admits(self, origin: Origin) -> bool:
        scheme, host, port = origin
        return scheme == self.scheme and self.port in (None, port) and fnmatchcase(host, self.host)


@dataclass(frozen=True, slots=True)
class Destination:
    """A compiled URL."""

    field: str
    text: Field[str] | None  #: the template, or
    reference: str  #: a secret that holds the whole URL
    origin: Origin | None  #: what the rule fixes; None when it is in the secret or up to `allow_hosts`
    allow_hosts: tuple[_Allowed, ...]

    def resolve(self, call: Call) -> httpx.URL:
        """The URL for this attempt.

        Raises:
            ActionError: the rendered URL is unreadable or leads elsewhere; not retryable. Never quotes path or query.
        """
        text = call.ports.resolve_secret(self.reference) if self.text is None else self.text.render(call)
        try:
            url = _parse(text)
            found = _origin(url)
        except ValueError as error:
            raise self._refused(str(error)) from None
        if self.origin is not None and found != self.origin:
            raise self._refused(f"a value of the event would move the request from {self.origin[1]} to {found[1]}")
        if self.origin is None and self.text is not None and not any(each.admits(found) for each in self.allow_hosts):
            raise self._refused(
                f"{_origin_text(found)} is not in allow_hosts ({', '.join(each.text for each in self.allow_hosts)}); "
                "an entry without a scheme or a port stands for those of the rule's url, otherwise for https and its usual port"
            )
        return url

    def _refused(self, message: str) -> ActionError:
        return ActionError(message, path=(self.field,), retryable=False, reason="refused_url")


def compile_destination(field: str, text: str, *, allow_hosts: Sequence[str]) -> Destination:
    """Check and compile a rule's URL.

    Raises:
        InvalidTemplate: not http(s), a template in the host without `allow_hosts`, credentials, or unreadable.
    """
    scheme, mark, rest = text.partition("://")
    written = scheme.lower() if mark and scheme.lower() in _DEFAULT_PORTS else "https"
    allowed = tuple(_read_allowed(entry, written, index) for index, entry in enumerate(allow_hosts))
    if is_reference(text):
        if _TEMPLATE.search(text):
            raise InvalidTemplate("a reference to a secret has no templates in it; write the name out", path=(field,))
        return Destination(field, None, text, None, allowed)
    template = compile_text_field(text, field)
    first = _TEMPLATE.search(text)
    if text == "$" or text.startswith(("$.", "$[")) or (first and first.start() == 0):
        return _open_destination(field, template, allowed)
    if not mark or scheme.lower() not in ("http", "https"):
        found = _SCHEME.match(text)
        what = f"scheme {found[0][:-1]!r}" if found else f"{text[:40]!r}"
        raise InvalidTemplate(f"{what} can not be called; write http://host/... or https://host/...", path=(field,))
    end = _END_OF_AUTHORITY.search(rest)
    inside = _TEMPLATE.search(rest)
    if inside and (end is None or inside.start() < end.start()):
        return _open_destination(field, template, allowed)
    fixed = text if first is None else f"{scheme}://{rest[: end.start()] if end else rest}/"
    try:
        origin = _origin(_parse(fixed))
    except ValueError as error:
        raise InvalidTemplate(str(error), path=(field,)) from None
    return Destination(field, template, "", origin, allowed)


def _read_allowed(text: str, scheme: str, index: int) -> _Allowed:
    """An entry of `allow_hosts`. `scheme` is meant by one that has none."""
    found = _ALLOWED.fullmatch(text)
    port = found["port"] if found is not None else None
    if found is None or (port not in (None, "*") and not 0 < int(port or 0) < 65536):
        raise InvalidTemplate(
            f"{text[:80]!r} is no host; write host, host:port, host:* for every port, or http://host:port, with globs in the host alone",
            path=("allow_hosts", index),
        )
    scheme = (found["scheme"] or scheme).lower()
    number = None if port == "*" else int(port) if port else _DEFAULT_PORTS[scheme]
    return _Allowed(
        text,
        scheme,
        found["host"].strip("[]").lower() if found["host"].startswith("[") else found["host"].lower(),
        number,
    )


def _open_destination(field: str, template: Field[str], allowed: tuple[_Allowed, ...]) -> Destination:
    if not allowed:
        raise InvalidTemplate(
            "a template decides the host, so an event could send the request anywhere; "
            'write the host out, or list what it may be in allow_hosts, such as ["*.example.com", "http://10.0.0.5:8080"]',
            path=(field,),
        )
    return Destination(field, template, "", None, allowed)


@lru_cache(maxsize=1024)  # most rules call the same URL each time
def _parse(text: str) -> httpx.URL:
    """Raises `ValueError` with a message that quotes nothing of the URL but scheme and host."""
    if "\\" in text:
        raise ValueError("has a backslash; write a forward slash, or %5C")
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, UnicodeError):
        raise ValueError("is not a URL: a control character, a wrong port or host") from None
    if url.scheme not in ("http", "https"):
        raise ValueError("is not a URL that starts with http:// or https://")
    if not url.host:
        raise ValueError("has no host")
    if url.userinfo:
        raise ValueError("has credentials in it; send them as headers: {Authorization: Bearer env:NAME}")
    path = re.split(r"[?#]", text.partition("://")[2], maxsplit=1)[0]
    if not _DOT_SEGMENTS.isdisjoint(unquote(path).split("/")):
        raise ValueError("has a path with . or .. in it, which leads elsewhere on the host; write the path out")
    return url


def _origin(url: httpx.URL) -> Origin:
    return url.scheme, url.raw_host.decode().lower(), url.port or _DEFAULT_PORTS[url.scheme]


def _origin_text(origin: Origin) -> str:
    scheme, host, port = origin
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
