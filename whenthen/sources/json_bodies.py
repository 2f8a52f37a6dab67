"""JSON from outside, decoded: what every body that is JSON goes through, with the place of what is wrong. Pure.

Called by `sources.requests` for webhooks and by `engine.http` for the API. Bodies are bounded in size by their reader and in
depth here. An integer that 64 bits do not hold becomes its decimal text: a float would be another number, without a word.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from typing import Any

import orjson

from whenthen.schemas.errors import FieldPath, InvalidJson

__all__ = ["MAX_DEPTH", "decode_json"]

#: levels of nesting; the encoder of the stream's messages refuses what is deeper than 254
MAX_DEPTH = 100
_PADDING = (
    254 - MAX_DEPTH
)  #: a value padded by this much stops the encoder at our depth, far faster than a walk in Python


_AS_ZEROS = bytes(0x30 if byte in b"0123456789" else byte for byte in range(256))
_LONG = (
    b"0" * 19
)  #: digits of what may be a long integer; so looked for, it takes a twentieth of a regular expression's time
_HUGE_INTEGER = re.compile(rb"[0-9]{300,}")
_LEAST, _MOST = -(2**63), 2**64 - 1  #: what the encoder writes as integers
_MOST_DIGITS = 20


def decode_json(body: bytes, path: FieldPath = ("body",)) -> Any:
    """The JSON value in `body`, which is UTF-8 with or without a byte order mark. `path` leads to it.

    Raises:
        InvalidJson: empty, not UTF-8, not JSON, or nested too deeply; names line and column.
    """
    body = body.removeprefix(codecs.BOM_UTF8)
    if not body or body.isspace():
        raise InvalidJson("empty; send JSON", path=path)
    fault: orjson.JSONDecodeError | None = None
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # integers beyond every float are refused by the fast decoder; without them it tells whether the rest is JSON
        shorter, replaced = _HUGE_INTEGER.subn(b"0", body)
        if not replaced:
            raise _not_json(body, path, error) from None
        try:
            value, fault = orjson.loads(shorter), error
        except orjson.JSONDecodeError:
            raise _not_json(body, path, error) from None
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        padded = value
        for _ in range(_PADDING):
            padded = [padded]
        try:
            orjson.dumps(padded)
        except TypeError:
            raise _too_deep(path) from None
    # the fast decoder makes floats of integers that are longer; they have nineteen digits at least
    if _LONG in body.translate(_AS_ZEROS):
        try:
            value = json.loads(body.decode(), parse_int=_integer, parse_float=_finite)
        except ValueError:
            assert fault is not None  # what is JSON to the one is JSON to the other
            raise _not_json(body, path, fault) from None
    return value


def _finite(text: str) -> float:
    found = float(text)
    if math.isinf(found):
        raise ValueError
    return found


def _integer(text: str) -> int | str:
    if len(text.lstrip("-")) <= _MOST_DIGITS and _LEAST <= int(text) <= _MOST:
        return int(text)
    return text


def _not_json(body: bytes, path: FieldPath, error: orjson.JSONDecodeError) -> InvalidJson:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as found:
        return InvalidJson(
            f"byte {found.start} (0x{body[found.start]:02x}) is not UTF-8; send JSON in UTF-8", path=path
        )
    if _depth(body[: error.pos]) > MAX_DEPTH:
        return _too_deep(path)
    return InvalidJson(f"not JSON at line {error.lineno}, column {error.colno}: {error.msg}", path=path)


def _too_deep(path: FieldPath) -> InvalidJson:
    return InvalidJson(f"nested more than {MAX_DEPTH} deep; flatten it", path=path)


def _depth(text: bytes) -> int:
    """How many lists and objects are open at the end of a piece of JSON."""
    depth = 0
    inside = escaped = False
    for byte in text:
        if inside:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                inside = False
        elif byte == 0x22:
            inside = True
        elif byte in b"[{":
            depth += 1
        elif byte in b"]}":
            depth -= 1
    return depth
