"""Checks of what is given to `@flow` and `@task`, when the function is decorated: a mistake is reported where it was made."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from whenthen.flows.argument_kinds import NAMES, SECONDS, SPAN, TEXT, TRUTH, refuse_unknown
from whenthen.flows.clock import LONGEST_WAIT_S
from whenthen.flows.flow_errors import InvalidNameError, ReservedArgumentError

__all__ = [
    "JITTER",
    "OPTIONS",
    "checked_delay",
    "checked_function",
    "checked_hooks",
    "checked_name",
    "checked_options",
    "checked_retries",
    "checked_run_name",
    "checked_timeout",
]

#: of both decorators: those that no function below checks
OPTIONS = {
    "name": TEXT.or_none,
    "version": TEXT.or_none,
    "description": TEXT.or_none,
    "tags": NAMES.or_none,
    "persist_result": TRUTH.or_none,
    "log_prints": TRUTH.or_none,
    "refresh_cache": TRUTH.or_none,
    "validate_parameters": TRUTH.or_none,
    "cache_result_in_memory": TRUTH.or_none,
    "cache_expiration": SPAN.or_none,
    "result_storage_key": TEXT.or_none,
}

JITTER = {"retry_jitter_factor": SECONDS.or_none}

RESERVED = ("return_state", "wait_for")
MOST_DELAYS = 50
BANNED_IN_NAMES = "/%&><"


def checked_options(options: Mapping[str, Any], made: type[Any], decorator: str) -> None:
    """Refuse an option that the class which the decorator makes does not take."""
    refuse_unknown(
        f"@{decorator}",
        options,
        (name for name in made.__init__.__kwdefaults__ or {} if name != "local_types"),
        "option",
        TypeError,
    )


def checked_function(fn: Any, decorator: str) -> Callable[..., Any]:
    """The function to decorate; a static or class method is unwrapped by the caller."""
    if not callable(fn):
        raise TypeError(
            f"@{decorator}: 'fn' must be callable, and {fn!r:.80} is not; options are given by keyword: @{decorator}(name=...)"
        )
    try:
        names = inspect.signature(fn).parameters
    except ValueError:
        raise TypeError(f"@{decorator}: {fn!r} has no signature; wrap it in a function of your own") from None
    for name in RESERVED:
        if name in names:
            raise ReservedArgumentError(
                f"@{decorator}: {getattr(fn, '__name__', fn)!r} has a parameter {name!r}, which a call of a {decorator} uses itself; rename it"
            )
    return fn  # type: ignore[no-any-return]


def checked_name(name: Any, where: str) -> str:
    if not isinstance(name, str) or not name:
        raise TypeError(f"{where}: 'name' must be a text that is not empty; got {name!r:.80}")
    if banned := sorted(set(name) & set(BANNED_IN_NAMES)):
        raise InvalidNameError(
            f"{where}: the name {name!r} has {' '.join(banned)}; a name can have any character but {' '.join(BANNED_IN_NAMES)}"
        )
    return name


def checked_hooks(hooks: Any, option: str, where: str) -> list[Callable[..., Any]]:
    if hooks is None:
        return []
    if not isinstance(hooks, Iterable) or isinstance(hooks, (str, bytes)):
        raise TypeError(
            f"{where}: Expected iterable for '{option}'; got {type(hooks).__name__} instead: {option}=[hook]"
        )
    listed = list(hooks)
    for hook in listed:
        if not callable(hook):
            raise TypeError(f"{where}: Expected callables in '{option}'; got {type(hook).__name__} instead")
    return listed


def checked_retries(retries: Any, where: str) -> int:
    if isinstance(retries, bool) or not isinstance(retries, int):
        raise TypeError(f"{where}: 'retries' must be a whole number; got {retries!r:.80}")
    if retries < 0:
        raise ValueError(f"{where}: 'retries' must be 0 or more; got {retries}")
    return retries


def checked_delay(delay: Any, retries: int, where: str) -> float | list[float] | None:
    """Seconds before a retry, as a number or a list; a callable is given the number of retries."""
    if callable(delay):
        delay = delay(retries)
    if delay is None:
        return None
    if isinstance(delay, Sequence) and not isinstance(delay, (str, bytes)):
        listed = list(delay)
        if len(listed) > MOST_DELAYS:
            raise ValueError(f"{where}: can not configure more than {MOST_DELAYS} retry delays; got {len(listed)}")
        for one in listed:
            _checked_seconds(one, "retry_delay_seconds", where)
        return listed
    return _checked_seconds(delay, "retry_delay_seconds", where)


def checked_timeout(timeout: Any, where: str) -> float | None:
    return min(float(_checked_seconds(timeout, "timeout_seconds", where)), LONGEST_WAIT_S) if timeout else None


def checked_run_name(name: Any, option: str, where: str) -> Any:
    if name is not None and not isinstance(name, str) and not callable(name):
        raise TypeError(f"{where}: Expected string or callable for '{option}'; got {type(name).__name__} instead")
    return name


def _checked_seconds(value: Any, option: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{where}: '{option}' must be an int, float, list or callable; got {value!r:.80}")
    if not value >= 0:
        raise ValueError(f"{where}: '{option}' must be 0 or more; got {value}")
    return value
