"""Commands of the API that leave a note in the audit trail."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from whenthen.engine.audit import AuditLog
from whenthen.schemas.errors import BusUnavailable, InvalidRules, WhenthenError

__all__ = ["audited"]

P = ParamSpec("P")
T = TypeVar("T")


def audited(
    audit: AuditLog,
    kind: str,
    command: Callable[P, Coroutine[Any, Any, T]],
    *,
    told: Callable[[T], str] = lambda _: "",
    refused: str = "",
) -> Callable[P, Coroutine[Any, Any, T]]:
    """`command`, which notes that it was done, with its first argument and what `told` makes of its result; and under `refused`, if
    given, that it was refused."""

    async def noted(*args: P.args, **kwargs: P.kwargs) -> T:
        what = args[0] if args and isinstance(args[0], str | int) else ""
        try:
            result = await command(*args, **kwargs)
        except WhenthenError as error:
            if refused and not isinstance(error, BusUnavailable):
                number = len(error.problems) if isinstance(error, InvalidRules) else 0
                problems = f"{number} problem{'s' * (number > 1)}; " if number else ""
                audit.note(refused, what=str(what), detail=f"{problems}{error}", cause=error.reason)
            raise
        more = "; ".join(f"{name}={value}" for name, value in kwargs.items() if isinstance(value, str | int | bool))
        audit.note(kind, what=str(what), detail="; ".join(filter(None, (told(result), more))))
        return result

    return noted
