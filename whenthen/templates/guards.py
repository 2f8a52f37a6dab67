"""Filters, tests and methods whose cost depends on their arguments are checked here before they run.

Used by `templates.environment`. A guard is called with a filter's own arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jinja2.runtime import LoopContext

from whenthen.schemas.errors import RenderError
from whenthen.templates.bounded_text import NUMBER_CHARS, TIME_TYPES, check_number, check_strftime, check_width
from whenthen.templates.budget import CHARS_PER_STEP, Budget

__all__ = ["GUARDS", "check_method"]

_SEARCHES = frozenset(("count", "find", "index", "rfind", "rindex", "partition", "rpartition"))


def check_method(budget: Budget, method: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Check a call of a method of a built-in value before it is made."""
    owner = getattr(method, "__self__", None)
    name = getattr(method, "__name__", "")
    if isinstance(owner, str):
        budget.glance(owner)
        for arg in args:
            budget.walk(arg)
        if name in ("center", "ljust", "rjust", "zfill") and args:
            check_width(args[0], name)
        elif name == "replace" and len(args) >= 2:
            check_replace(budget, owner, *args)
        elif name in _SEARCHES and args and isinstance(args[0], str):
            budget.search(len(owner), len(args[0]))
        elif name in ("split", "rsplit", "splitlines"):
            _check_split(budget, owner, name, args)
        elif name in ("strip", "lstrip", "rstrip") and args and isinstance(args[0], str):
            _guard_trim(budget, owner, args[0])
    elif isinstance(owner, TIME_TYPES):
        if name == "strftime" and args:
            check_strftime(args[0])
    elif isinstance(owner, (list, tuple)):
        budget.walk(owner)
    elif isinstance(owner, LoopContext) and name == "changed":
        budget.walk(args)  # it compares them with those of the last call
    else:
        budget.spend((len(args) + len(kwargs)) // 16)


def _check_split(budget: Budget, owner: str, name: str, args: tuple[Any, ...]) -> None:
    between = args[0] if args and name != "splitlines" else None
    if isinstance(between, str) and between:
        budget.search(len(owner), len(between))
        budget.spend(owner.count(between))
    else:
        budget.spend(len(owner) // 8)


def check_replace(budget: Budget, s: Any, old: Any, new: Any, count: Any = None) -> None:
    text, before, after = str(s), str(old), str(new)
    budget.search(len(text), len(before))
    found = text.count(before)
    if isinstance(count, int) and count >= 0:
        found = min(found, count)
    budget.room(len(text) + found * len(after))


def _guard_center(budget: Budget, value: Any, width: Any = 80) -> None:
    check_width(width, "center")


def _guard_indent(budget: Budget, s: Any, width: Any = 4, first: Any = False, blank: Any = False) -> None:
    text = str(s)
    if not isinstance(width, str):
        check_width(width, "indent")
    each = len(width) if isinstance(width, str) else int(width)
    budget.room(len(text) + (len(text.splitlines()) + 1) * max(each, 0))


def _guard_batch(budget: Budget, value: Any, linecount: Any = 1, fill_with: Any = None) -> None:
    check_width(linecount, "batch")


def _guard_slice(budget: Budget, value: Any, slices: Any = 1, fill_with: Any = None) -> None:
    check_width(slices, "slice")


def _guard_round(budget: Budget, value: Any, precision: Any = 0, method: Any = "common") -> None:
    _check_numbers("round", value, precision)
    check_width(precision, "round", 30)


def _guard_number(budget: Budget, value: Any, *args: Any, **kwargs: Any) -> None:
    if isinstance(value, str) and len(value) > NUMBER_CHARS:
        raise RenderError(f"a number of {len(value)} characters; at most {NUMBER_CHARS} are read")


def _guard_trim(budget: Budget, value: Any, chars: Any = None) -> None:
    if isinstance(value, str) and isinstance(chars, str):
        budget.spend(len(value) * len(chars) // CHARS_PER_STEP)


def _guard_slow(budget: Budget, s: Any, *args: Any, **kwargs: Any) -> None:
    if isinstance(s, str):
        budget.spend(len(s) // 8)


def _guard_sort(budget: Budget, value: Any, *args: Any, **kwargs: Any) -> None:
    # the comparisons of a sort, beyond the one look at each item that is charged for every filter
    if isinstance(value, (list, tuple, dict, str)):
        budget.spend(len(value) * len(value).bit_length() // 4)


def _guard_in(budget: Budget, value: Any, seq: Any) -> None:
    if isinstance(seq, str) and isinstance(value, str):
        budget.search(len(seq), len(value))


def _guard_remainder(budget: Budget, value: Any, num: Any = 2) -> None:
    _check_numbers("a test of divisibility", value, num)


def _check_numbers(what: str, *values: Any) -> None:
    for value in values:
        if not isinstance(value, (int, float)):
            raise RenderError(f"{what} takes numbers, found {type(value).__name__}")
        check_number(value)


def _guard_wordwrap(
    budget: Budget,
    s: Any,
    width: Any = 79,
    break_long_words: Any = True,
    wrapstring: Any = None,
    break_on_hyphens: Any = True,
) -> None:
    check_width(width, "wordwrap")
    check_width(len(wrapstring or ""), "wordwrap: the length of wrapstring", 100)
    budget.room(len(str(s)) * (1 + len(wrapstring or "\n")))
    budget.spend(len(str(s)) // 2)  # it is slow: about half a step a character


GUARDS: dict[str, Callable[..., None]] = {
    "batch": _guard_batch,
    "center": _guard_center,
    "dictsort": _guard_sort,
    "divisibleby": _guard_remainder,
    "even": _guard_remainder,
    "filesizeformat": _guard_number,
    "float": _guard_number,
    "groupby": _guard_sort,
    "in": _guard_in,
    "indent": _guard_indent,
    "int": _guard_number,
    "odd": _guard_remainder,
    "replace": check_replace,
    "round": _guard_round,
    "slice": _guard_slice,
    "sort": _guard_sort,
    "title": _guard_slow,
    "trim": _guard_trim,
    "urlencode": _guard_slow,
    "wordcount": _guard_slow,
    "wordwrap": _guard_wordwrap,
}
