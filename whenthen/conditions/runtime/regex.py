"""Regular expressions for `matches`: RE2 alone, whose time is linear in the text.

Called by `functions` and, for constant patterns, by `codegen`. Meaning: RE2's own syntax page.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import re2

from whenthen.conditions.runtime.cel_values import EvaluationFault, no_overload
from whenthen.conditions.runtime.condition_errors import Reason, describe
from whenthen.conditions.runtime.cost import FREE, Budget, charge, spend

__all__ = ["PATTERN_MEMORY", "STEPS_PER_PATTERN", "Pattern", "compile_pattern", "matches"]

PATTERN_MEMORY = 1_048_576  #: bytes that RE2 may use for one pattern

#: compiling a pattern that is not a constant of the condition, once in an evaluation; the worst take RE2 seven milliseconds
STEPS_PER_PATTERN = 20_000
CONSTANTS_KEPT = 1_024  #: compiled constant patterns
OTHERS_KEPT = 128  #: compiled patterns, or refusals, that came out of events

Pattern = Callable[[str, Budget | None], bool]


def _pattern_options() -> Any:
    options = re2.Options()
    options.max_mem = PATTERN_MEMORY
    options.log_errors = False
    options.never_capture = True
    return options


@lru_cache(maxsize=CONSTANTS_KEPT)
def compile_pattern(pattern: str) -> Pattern:
    """A function that says whether RE2 finds the constant `pattern` anywhere in a text.

    Raises:
        EvaluationFault: RE2 does not accept the pattern, or it needs more than `PATTERN_MEMORY`.
    """
    return _compile(pattern)


@lru_cache(maxsize=OTHERS_KEPT)
def _compiled_or_refused(pattern: str) -> Pattern | str:
    """The pattern, or why it is refused: trying again costs as much as the first time."""
    try:
        return _compile(pattern)
    except EvaluationFault as fault:
        return fault.detail


def _compile(pattern: str) -> Pattern:
    try:
        compiled = re2.compile(pattern, options=_pattern_options())
    except (re2.error, UnicodeEncodeError) as error:
        found: object = error.args[0] if error.args else error
        why = found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)
        detail = f"RE2 does not accept {describe(pattern)}: {why}"
        raise EvaluationFault(Reason.BAD_PATTERN, detail, pattern) from None
    # The size of the program: for texts made to that end RE2 steps through all of it for each character.
    size = int(compiled.programsize)
    factor = 8 + size + max(0, size - 128)
    unpaid = (FREE << 8) // factor
    direct = getattr(getattr(compiled, "_regexp", None), "Match", None)
    if direct is None:

        def slow_search(text: str, budget: Budget | None) -> bool:
            charge(len(text) * factor >> 8, budget)
            return compiled.search(text) is not None

        return slow_search
    # The public method builds a match object with decoded offsets, which costs six times the match itself.
    anchor = re2._re2.RE2.Anchor.UNANCHORED
    missing = (-1, -1)

    def search(text: str, budget: Budget | None) -> bool:
        if budget is not None or len(text) > unpaid:
            charge(len(text) * factor >> 8, budget)
        data = text.encode()
        found: bool = direct(anchor, data, 0, len(data))[0] != missing
        return found

    return search


def matches(value: Any, pattern: Any, budget: Budget, seen: set[str] | None) -> bool:
    """Whether RE2 finds `pattern` in `value`. `seen` are the patterns that were compiled in this evaluation; None when
    `pattern` is a constant of the condition."""
    if not isinstance(value, str) or not isinstance(pattern, str):
        raise no_overload("matches()", value, pattern)
    if seen is None:
        found: Pattern | str = compile_pattern(pattern)
    else:
        if pattern not in seen:
            spend(STEPS_PER_PATTERN + len(pattern), budget)
            seen.add(pattern)
        found = _compiled_or_refused(pattern)
    if isinstance(found, str):
        raise EvaluationFault(Reason.BAD_PATTERN, found, pattern)
    try:
        return found(value, budget)
    except UnicodeEncodeError:
        raise EvaluationFault(Reason.BAD_CONVERSION, "the text holds a lone surrogate", value) from None
