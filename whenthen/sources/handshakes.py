"""Which requests are no events but wait for an answer, and which answer? Compiled from a provider's data. Pure.

Called by `sources.translator`. Meaning: docs/sources.md, "Handshakes".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from whenthen.schemas.base import CONTROL
from whenthen.schemas.errors import InvalidEvent, RenderError, WhenthenError
from whenthen.schemas.providers import Handshake
from whenthen.sources.mapping import HandshakeAnswer, checked_condition, reject
from whenthen.sources.provider_mapping import VARIABLES, context_of
from whenthen.sources.requests import Request, decode_body
from whenthen.templates import compile_value

__all__ = ["Handshakes"]

MOST_ANSWER_BYTES = 16_384  #: of an answer, which repeats parts of a request
MOST_HEADER_CHARS = 1024


class Handshakes:
    """The handshakes of one provider, in their order."""

    def __init__(self, webhook: str, given: Sequence[Handshake]) -> None:
        self._name = webhook
        self._compiled = [_Compiled(handshake, place) for place, handshake in enumerate(given)]

    def is_open(self, method: str) -> bool:
        """Whether a request by this method needs no proof."""
        return any(each.model.method == method and not each.model.proof for each in self._compiled)

    def answer(self, request: Request) -> HandshakeAnswer | None:
        """The answer to a request that is a handshake; None for every other one."""
        compiled = [each for each in self._compiled if each.model.method == request.method]
        if not compiled:
            return None
        body: Any = {}
        if request.method == "POST":
            try:
                body = decode_body(request)
            except WhenthenError:
                return None  # the translation says what is wrong
        context = context_of(request, body, self._name)
        for each in compiled:
            if each.holds(context):
                return each.answer(context)
        return None


class _Compiled:
    def __init__(self, model: Handshake, place: int) -> None:
        self.model = model
        where = ("handshakes", place)
        self._when = None if model.when is None else checked_condition(model.when, (*where, "when"), VARIABLES)
        value = model.text if model.text is not None else model.body
        self._body = compile_value(value, known=VARIABLES, known_steps=VARIABLES, path=where)
        self._headers = [
            (name, compile_value(text, known=VARIABLES, known_steps=VARIABLES, path=(*where, "headers", name)))
            for name, text in model.headers.items()
        ]

    def holds(self, context: dict[str, Any]) -> bool:
        return self._when is None or reject(self._when, context) is None

    def answer(self, context: dict[str, Any]) -> HandshakeAnswer:
        """Raises:
        InvalidEvent: the request lacks what the answer repeats, or it is too long or no header's value.
        """
        try:
            body = self._body.render(context)
            headers = tuple((name, str(value.render(context))) for name, value in self._headers)
        except RenderError as error:
            raise InvalidEvent(error.detail, path=("handshake",)) from None
        for name, text in headers:
            if not text.isascii() or CONTROL.search(text) or len(text) > MOST_HEADER_CHARS:
                raise InvalidEvent(f"its answer's header {name} would be {text[:40]!r}", path=("handshake",))
        if self.model.text is not None:
            data, content_type = str(body).encode("utf-8", "replace"), "text/plain; charset=utf-8"
        else:
            data, content_type = (b"" if body is None else orjson.dumps(body)), "application/json"
        if len(data) > MOST_ANSWER_BYTES:
            raise InvalidEvent(f"its answer would have more than {MOST_ANSWER_BYTES} bytes", path=("handshake",))
        return HandshakeAnswer(status=self.model.status, body=data, content_type=content_type, headers=headers)
