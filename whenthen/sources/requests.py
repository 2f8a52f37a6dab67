"""A received HTTP request as a value, and its body decoded. No web framework.

The HTTP edge builds a `Request`; translators read it. Bodies are bounded in size by the edge.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from whenthen.schemas.errors import InvalidEvent, UnsupportedMediaType
from whenthen.sources.json_bodies import decode_json

__all__ = ["Request", "decode_body", "is_text", "kind_of"]

#: fields of a form
MAX_FIELDS = 10_000
_JSON_TYPES = ("application/json", "text/json")  #: the latter is an old name of the former
_CHARSETS = {"utf-8": "utf-8", "us-ascii": "utf-8", "ascii": "utf-8", "iso8859-1": "latin-1"}


@dataclass(slots=True, kw_only=True)
class Request:
    """One request, read-only. `body` is as it came over the wire.

    Header names are in lower case, and all text can be written as UTF-8, as is so for what ASGI gives; `of` makes it so for
    other texts. Not frozen: there is one for every request, and frozen ones take three times as long to make.
    """

    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    repeated: frozenset[str] = frozenset()  #: headers that came several times, of which `headers` has the last
    trace: dict[str, str] | None = None  #: that its events become part of
    raw_query: str = ""  #: as it came
    proven: bool = False  #: whether a webhook has verified it
    proven_by: object | None = None  #: what has verified all of its proof by its head alone
    signed_at: str | None = None  #: what was signed beside its body, once it is verified
    from_proxy: bool = False  #: whether a trusted proxy sent it

    @classmethod
    def of(
        cls,
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Request:
        """A request of any texts."""
        return cls(
            method=method,
            headers={name.lower(): _writable(value) for name, value in (headers or {}).items()},
            query={_writable(name): _writable(value) for name, value in (query or {}).items()},
            body=body,
        )

    @property
    def media_type(self) -> str:
        """`application/json` of `Application/JSON; charset=utf-8`; empty when there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def charset(self) -> str:
        """The encoding of a text or form body.

        Raises:
            UnsupportedMediaType: it is neither UTF-8, ASCII nor Latin-1.
        """
        for parameter in self.headers.get("content-type", "").split(";")[1:]:
            name, _, value = parameter.partition("=")
            if name.strip().lower() == "charset":
                named = value.strip().strip('"')
                try:
                    found = _CHARSETS.get(codecs.lookup(named).name)
                except (LookupError, ValueError):
                    found = None
                if found is None:
                    raise UnsupportedMediaType(f"headers.content-type: charset {named[:40]!r}; send UTF-8")
                return found
        return "utf-8"


def decode_body(request: Request) -> Any:
    """The body of a request: decoded JSON, a mapping of form fields, or text.

    A body without a content type is read as JSON. A form field that is given several times is a list.

    Raises:
        InvalidEvent: the body is not what its content type says; names the position.
        UnsupportedMediaType: another content type.
    """
    if request.headers.get("content-type") == "application/json":
        return decode_json(request.body)  # as nearly all are, with nothing to parse
    media_type = request.media_type
    if not media_type or media_type in _JSON_TYPES or media_type.endswith("+json"):
        return decode_json(request.body)
    if media_type == "application/x-www-form-urlencoded":
        return decode_form(request)
    if is_text(request):
        text = _decode_text(request)
        if not text:
            raise InvalidEvent("empty; send some text", path=("body",))
        return text
    raise UnsupportedMediaType(
        f"headers.content-type: {media_type[:80]!r} is not understood; send application/json,"
        " application/x-www-form-urlencoded or text/plain"
    )


def is_text(request: Request) -> bool:
    """Whether the body of a request is declared as text, and not as JSON."""
    media_type = request.media_type
    return media_type.startswith("text/") and media_type not in _JSON_TYPES and not media_type.endswith("+json")


def decode_form(request: Request) -> dict[str, Any]:
    """The fields of a form body.

    Raises:
        InvalidEvent: empty, JSON that is declared as a form, or not text.
    """
    text = _decode_text(request)
    if not text.strip():
        raise InvalidEvent("empty; send the form's fields", path=("body",))
    if text.lstrip()[:1] in ("{", "["):
        raise InvalidEvent(
            "looks like JSON and is declared as a form; send the header Content-Type: application/json", path=("body",)
        )
    try:
        pairs = parse_qsl(
            text,
            keep_blank_values=True,
            strict_parsing=False,
            encoding=request.charset,
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except UnicodeDecodeError:
        raise InvalidEvent("a form field is not valid UTF-8; send UTF-8", path=("body",)) from None
    except ValueError:
        raise InvalidEvent(f"more than {MAX_FIELDS} form fields", path=("body",)) from None
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name not in fields:
            fields[name] = value
        elif isinstance(fields[name], list):
            fields[name].append(value)
        else:
            fields[name] = [fields[name], value]
    return fields


def kind_of(value: Any) -> str:
    """What a JSON value is, for messages."""
    if value is None:
        return "null"
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean"}
    return names.get(type(value), "a number")


def _writable(text: str) -> str:
    """Text that can be written as UTF-8 again: halves of surrogate pairs become question marks."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _decode_text(request: Request) -> str:
    try:
        return request.body.decode(request.charset)
    except UnicodeDecodeError as error:
        raise InvalidEvent(f"byte {error.start} is not valid UTF-8; send UTF-8", path=("body",)) from None
