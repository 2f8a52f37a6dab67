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

__all__ = ["PATTERN_MEMORY", "Pattern", "compile_pattern", "matches"]

PATTERN_MEMORY = 1_048_576  #: bytes that RE2 may use for one pattern

Pattern = Callable[[str], bool]


def _pattern_options() -> Any:
    options = re2.Options()
    options.max_mem = PATTERN_MEMORY
    options.log_errors = False
    options.never_capture = True
    return options


@lru_cache(maxsize=1_024)
def compile_pattern(pattern: str) -> Pattern:
    """A function that says whether RE2 finds `pattern` anywhere in a text.

    Raises:
        EvaluationFault: RE2 does not accept the pattern, or it needs more than `PATTERN_MEMORY`.
    """
    try:
        compiled = re2.compile(pattern, options=_pattern_options())
    except (re2.error, UnicodeEncodeError) as error:
        found: object = error.args[0] if error.args else error
        why = found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)
        detail = f"RE2 does not accept {describe(pattern)}: {why}"
        raise EvaluationFault(Reason.BAD_PATTERN, detail, pattern) from None
    direct = getattr(getattr(compiled, "_regexp", None), "Match", None)
    if direct is None:
        return lambda text: compiled.search(text) is not None
    # The public method builds a match object with decoded offsets, which costs six times the match itself.
    anchor = re2._re2.RE2.Anchor.UNANCHORED
    missing = (-1, -1)

    def search(text: str) -> bool:
        data = text.encode()
        return bool(direct(anchor, data, 0, len(data))[0] != missing)

    return search


def matches(value: Any, pattern: Any) -> bool:
    """Whether RE2 finds `pattern` in `value`."""
    if not isinstance(value, str) or not isinstance(pattern, str):
        raise no_overload("matches()", value, pattern)
    try:
        return compile_pattern(pattern)(value)
    except UnicodeEncodeError:
        raise EvaluationFault(Reason.BAD_CONVERSION, "the text holds a lone surrogate", value) from None
