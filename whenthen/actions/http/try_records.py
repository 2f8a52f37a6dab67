"""What an attempt sent and what came back, for people to look at: bounded, and without secrets. Pure.

A handler tells its `TryRecord` while it acts; `perform` has it shown beside the outcome, also of an attempt that failed. Kept with
the outcome and, for each try, in the history. Meaning: docs/actions.md, "What was sent".

Redaction: every secret that whenthen has read is masked, and so is the value of each header, query parameter and field of a JSON or form body
whose name says that it is one. What can not be read in whole is not shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

import orjson

from whenthen.actions.secrets import MASK, Redactor

__all__ = ["MAX_RECORD_BYTES", "TryRecord", "shown_body"]

#: characters that are shown of a body, of an address and of each header
BODY_CHARS = 1500
LINE_CHARS = 500
HEADER_CHARS = 200
HEADERS = 20
#: a larger body is not read, so nothing of it is shown
READ_BYTES = 256 * 1024
MAX_DEPTH = 100  #: of a JSON body that is looked through
#: of a record as JSON; of a larger one the bodies are left out
MAX_RECORD_BYTES = 8 * 1024
#: how names end whose values are secrets
_TELLING = (
    "token", "secret", "password", "passwd", "passphrase", "passcode", "authorization", "cookie", "credential", "credentials",
    "apikey", "api_key", "privatekey", "private_key", "accesskey", "access_key", "signature",
)  # fmt: skip
_TELLING_PARAMETERS = (*_TELLING, "key", "sig", "auth", "code")


class TryRecord:
    """Of one attempt. What is told later replaces what was told before: of a request that is sent twice the last one counts."""

    __slots__ = ("_answer", "_request")

    def __init__(self) -> None:
        self._request: Mapping[str, Any] | None = None
        self._answer: Mapping[str, Any] | None = None

    def sends(self, **request: Any) -> None:
        """What is about to be sent: `method`, `url`, `headers` and `body`, or what an action of another kind has."""
        self._request, self._answer = request, None

    def receives(self, **answer: Any) -> None:
        """What came back: `status`, `headers` and `body`."""
        self._answer = answer

    def shown(self, redactor: Redactor) -> dict[str, Any] | None:
        """`{"request": {...}, "answer": {...}}`, of at most `MAX_RECORD_BYTES` as JSON; None when nothing was sent."""
        if self._request is None:
            return None
        parts = {"request": self._request, "answer": self._answer}
        found = {name: _part(part, redactor) for name, part in parts.items() if part is not None}
        if len(orjson.dumps(found)) > MAX_RECORD_BYTES:
            for part in found.values():
                part.update(dict.fromkeys(part.keys() & {"body", "parameters", "headers"}, "… not shown"))
        return found


def _part(fields: Mapping[str, Any], redactor: Redactor) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if name == "headers":
            found[name] = _headers(value.items(), redactor)
        elif name == "url":
            found[name] = _cut(redactor.text(_url(str(value))), LINE_CHARS)
        elif isinstance(value, bytes):
            media_type = next((text for key, text in fields["headers"].items() if key.lower() == "content-type"), "")
            found |= {name: shown_body(value, media_type, redactor), f"{name}_bytes": len(value)}
        elif isinstance(value, str):
            found[name] = _cut(redactor.text(value), BODY_CHARS if name == "body" else LINE_CHARS)
        elif isinstance(value, (dict, list)):
            found[name] = _value(value, redactor)
        else:
            found[name] = value
    return found


def _headers(headers: Iterable[tuple[str, str]], redactor: Redactor) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        if len(found) == HEADERS:
            break
        text = MASK if _tells(name, _TELLING) else redactor.text(value)
        found.setdefault(_cut(redactor.text(name.lower()), HEADER_CHARS), _cut(text, HEADER_CHARS))
    return found


def _url(url: str) -> str:
    split = urlsplit(url)
    if not split.query:
        return url
    pairs = [pair.partition("=") for pair in split.query.split("&")]
    masked = "&".join(
        f"{name}{equals}{MASK if _tells(name, _TELLING_PARAMETERS) else value}" for name, equals, value in pairs
    )
    return urlunsplit(split._replace(query=masked))


def shown_body(body: bytes, media_type: str, redactor: Redactor) -> str:
    """A body as text: as it is where nothing of it is named like a secret."""
    if len(body) > READ_BYTES:
        return "… not shown, it is larger than 256 KiB"
    if not body:
        return ""
    kind = media_type.partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
        text = "&".join(f"{quote(name)}={MASK if _tells(name, _TELLING) else quote(value)}" for name, value in pairs)
    else:
        text = body.decode("utf-8", "replace")
        try:
            shown = _value(orjson.loads(body), redactor)
        except ValueError:  # no JSON, or only the first of it
            shown = ""
        if MASK in shown or shown.startswith("…"):
            return shown
    if "\0" in text:
        return "… not shown, it is no text"
    return _cut(redactor.text(text), BODY_CHARS)


def _value(value: Any, redactor: Redactor) -> str:
    try:
        data = orjson.dumps(_masked(value), default=str)
    except TypeError:  # nested too deep, or with a number that JSON of 64 bits has not
        return "… not shown, it can not be written as JSON"
    return (
        "… not shown, it is larger than 256 KiB"
        if len(data) > READ_BYTES
        else _cut(redactor.text(data.decode()), BODY_CHARS)
    )


def _masked(value: Any, depth: int = 0) -> Any:
    if depth > MAX_DEPTH:
        raise TypeError("nested too deep")
    if isinstance(value, dict):
        return {
            name: MASK if isinstance(item, str) and item and _tells(name, _TELLING) else _masked(item, depth + 1)
            for name, item in value.items()
        }
    return [_masked(item, depth + 1) for item in value] if isinstance(value, list) else value


def _tells(name: str, endings: tuple[str, ...]) -> bool:
    return name.lower().replace("-", "_").endswith(endings)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}… {len(text) - most:,} more characters"
