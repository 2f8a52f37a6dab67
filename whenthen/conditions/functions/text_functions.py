"""Text: parts, places, cases, lists of texts. Positions are those of characters, from 0.

Called through `function_table`. Each is charged for the text that it searches and makes, before it makes it.
Meaning: the strings extension of cel-go, version 5; a position behind the end finds nothing there, which cel-spec still calls an error.
"""

from __future__ import annotations

import re
from typing import Any

from whenthen.conditions.functions.standard_functions import search_steps
from whenthen.conditions.runtime.cel_values import EvaluationFault, no_overload
from whenthen.conditions.runtime.condition_errors import Reason, describe
from whenthen.conditions.runtime.cost import Budget, allowance, charge, spend
from whenthen.conditions.runtime.operators import MADE_TEXT, MAX_RESULT

__all__ = [
    "char_at",
    "index_of",
    "join",
    "last_index_of",
    "lower_ascii",
    "quote",
    "replace",
    "reverse",
    "split",
    "substring",
    "trim",
    "upper_ascii",
]

CHANGED_TEXT = 3  #: 2**3 characters are looked at one by one, and perhaps changed, in a step

#: Unicode's White_Space, which is not what Python's strip() removes
_WHITE = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
_ESCAPES = {
    "\\": "\\\\", '"': '\\"', "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v",
}  # fmt: skip
_SURROGATE = re.compile("[\ud800-\udfff]")


def _is_int(value: Any) -> bool:
    return type(value) is int


def _checked_position(position: int, length: int, value: str) -> int:
    if not 0 <= position <= length:
        raise EvaluationFault(
            Reason.INDEX_OUT_OF_RANGE,
            f"position {position} of a text of {length} characters: {describe(value)}",
            position,
        )
    return position


def _made(size: int) -> int:
    """The steps of making a text.

    Raises:
        EvaluationFault: it would be too large.
    """
    if size > MAX_RESULT:
        raise EvaluationFault(Reason.BUDGET, f"cost limit: a text of {size:,} characters; the limit is {MAX_RESULT:,}")
    return size >> MADE_TEXT


def _every_search_steps(chars: int, part: int) -> int:
    """Steps of finding every occurrence. Behind the last one a text may be left that is short enough to be searched
    place by place."""
    return search_steps(chars, part) + search_steps(min(chars, 2_499 if part >= 100 else 29_999), part)


# -- parts


def char_at(text: Any, position: Any) -> str:
    if not isinstance(text, str) or not _is_int(position):
        raise no_overload("charAt()", text, position)
    _checked_position(position, len(text), text)
    return text[position : position + 1]


def substring(text: Any, start: Any, *more: Any) -> str:
    *arguments, budget = start, *more
    if not isinstance(text, str) or not all(map(_is_int, arguments)):
        raise no_overload("substring()", text, *arguments)
    end = arguments[1] if len(arguments) == 2 else len(text)
    _checked_position(start, len(text), text)
    _checked_position(end, len(text), text)
    if start > end:
        raise EvaluationFault(Reason.INDEX_OUT_OF_RANGE, f"a part from {start} to {end} ends before it starts", start)
    charge(_made(end - start), budget)
    return text[start:end]


def trim(text: Any, budget: Budget | None) -> str:
    if not isinstance(text, str):
        raise no_overload("trim()", text)
    charge(len(text) >> CHANGED_TEXT, budget)
    return text.strip(_WHITE)


# -- places


def index_of(text: Any, part: Any, *more: Any) -> int:
    start, budget = _search("indexOf", text, part, more)
    if start is None:
        start = 0
    charge(search_steps(len(text), len(part)), budget)
    return int(text.find(part, start)) if part else min(start, len(text))


def last_index_of(text: Any, part: Any, *more: Any) -> int:
    """The last place at which `part` starts, at the given position or before it."""
    start, budget = _search("lastIndexOf", text, part, more)
    if not part:
        return len(text) if start is None else min(start, len(text))
    if start is not None and start >= len(text):
        return -1
    # Backwards Python compares at every place, however long the texts are.
    charge(len(text) * (8 + len(part)) >> 9 if len(part) <= len(text) else 0, budget)
    return int(text.rfind(part, 0, len(text) if start is None else start + len(part)))


def _search(name: str, text: Any, part: Any, more: tuple[Any, ...]) -> tuple[int | None, Budget | None]:
    *position, budget = more
    if not isinstance(text, str) or not isinstance(part, str) or not all(map(_is_int, position)):
        raise no_overload(f"{name}()", text, part, *position)
    if position and position[0] < 0:
        raise EvaluationFault(
            Reason.INDEX_OUT_OF_RANGE, f"{name}() takes a position from 0, not {position[0]}", position[0]
        )
    return (position[0] if position else None), budget


# -- the whole text, changed


def _ascii(name: str, text: Any, budget: Budget | None) -> bytes:
    if not isinstance(text, str):
        raise no_overload(f"{name}()", text)
    charge(len(text) >> CHANGED_TEXT, budget)
    return text.encode("utf-8", "surrogatepass")


def lower_ascii(text: Any, budget: Budget | None) -> str:
    return _ascii("lowerAscii", text, budget).lower().decode("utf-8", "surrogatepass")


def upper_ascii(text: Any, budget: Budget | None) -> str:
    return _ascii("upperAscii", text, budget).upper().decode("utf-8", "surrogatepass")


def reverse(text: Any, budget: Budget | None) -> str:
    if not isinstance(text, str):
        raise no_overload("reverse()", text)
    charge(len(text) >> CHANGED_TEXT, budget)
    return text[::-1]


def quote(text: Any, budget: Budget | None) -> str:
    """Between double quotes, with the escapes of CEL; lone surrogates become U+FFFD."""
    if not isinstance(text, str):
        raise no_overload("strings.quote()", text)
    charge(len(text), budget)  # each of the escapes is looked for
    _made(2 * len(text) + 2)
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    return '"' + _SURROGATE.sub("\ufffd", text) + '"'


def replace(text: Any, old: Any, new: Any, *more: Any) -> str:
    *limit, budget = more
    if not all(isinstance(value, str) for value in (text, old, new)) or not all(map(_is_int, limit)):
        raise no_overload("replace()", text, old, new, *limit)
    most = limit[0] if limit else -1
    paid = allowance(budget)
    spend(2 * _every_search_steps(len(text), len(old)), paid)
    found = text.count(old)
    if 0 <= most < found:
        found = most
    spend(_made(len(text) + found * (len(new) - len(old))) + (found >> 1), paid)
    return str(text.replace(old, new, found))


# -- lists of texts


def split(text: Any, separator: Any, *more: Any) -> list[str]:
    *limit, budget = more
    if not isinstance(text, str) or not isinstance(separator, str) or not all(map(_is_int, limit)):
        raise no_overload("split()", text, separator, *limit)
    most = limit[0] if limit else -1
    paid = allowance(budget)
    spend(2 * _every_search_steps(len(text), len(separator)) + _made(len(text)), paid)
    if most == 0:
        return []
    parts = text.count(separator) + 1 if separator else len(text)
    parts = min(parts, most) if most > 0 else parts
    spend(parts, paid)
    if separator:
        return text.split(separator, parts - 1)
    return [*text[: parts - 1], text[parts - 1 :]] if parts else []


def join(texts: Any, *more: Any) -> str:
    *separators, budget = more
    if not isinstance(texts, list) or not all(isinstance(separator, str) for separator in separators):
        raise no_overload("join()", texts, *separators)
    separator = separators[0] if separators else ""
    paid = allowance(budget)
    spend(len(texts), paid)
    size = len(separator) * max(0, len(texts) - 1)
    for text in texts:
        if not isinstance(text, str):
            raise EvaluationFault(
                Reason.NO_OVERLOAD, f"join() takes a list of texts, which {describe(text)} is not", text
            )
        size += len(text)
    spend(_made(size), paid)
    return str(separator.join(texts))
