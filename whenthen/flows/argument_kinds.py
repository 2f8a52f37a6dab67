"""Which kind of value an argument of the SDK's functions takes, and the one way in which that is checked: when the function is called,
before anything is done. A wrong value, and a name that the function does not have, raise `ArgumentError`.

`@checked_arguments(timeout=SECONDS.or_none)` goes around functions; `check` is for what takes its arguments apart itself, such as the
options of `@flow` and of deployments. Arguments that are not named in a check take anything.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ParamSpec, TypeVar, cast
from uuid import UUID

from whenthen.flows.flow_errors import ArgumentError

__all__ = [
    "COUNT",
    "FUTURES",
    "ID",
    "LISTED",
    "MAPPING",
    "NAMES",
    "NUMBER",
    "SECONDS",
    "SIZE",
    "SPAN",
    "TEXT",
    "TIME",
    "TRUTH",
    "Kind",
    "bound_arguments",
    "check",
    "checked_arguments",
    "refuse_unknown",
]

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value: how a message names it, and whether a value is of it."""

    says: str
    fits: Callable[[Any], bool]

    @property
    def or_none(self) -> Kind:
        return Kind(f"{self.says}, or None", lambda value: value is None or self.fits(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_id(value: Any) -> bool:
    try:
        return isinstance(value, UUID) or (isinstance(value, str) and bool(UUID(value)))
    except ValueError:
        return False


def _is_listed(value: Any) -> bool:
    """Whether it is a list of texts; an iterator is read by whoever uses it, and not by a check."""
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(isinstance(one, str) for one in value)
    return _is_iterable(value)


def _is_iterable(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping))


TEXT = Kind("a text", lambda value: isinstance(value, str))
#: 0 and 1 too, which Prefect takes; a text is refused, since "no" would be true
TRUTH = Kind("True or False", lambda value: isinstance(value, bool) or (_is_whole(value) and value in (0, 1)))
NUMBER = Kind("a number", lambda value: _is_number(value) and value == value)
SECONDS = Kind("a number of seconds from 0", lambda value: _is_number(value) and value >= 0)
COUNT = Kind("a whole number from 1", lambda value: _is_whole(value) and value >= 1)
SIZE = Kind("a whole number from 0", lambda value: _is_whole(value) and value >= 0)
NAMES = Kind("a list of texts", _is_listed)
MAPPING = Kind(
    "a mapping of names to values",
    lambda value: isinstance(value, Mapping) and all(isinstance(key, str) for key in value),
)
LISTED = Kind("a list", _is_iterable)
FUTURES = Kind("a list of futures", _is_iterable)
TIME = Kind("a datetime", lambda value: isinstance(value, datetime))
SPAN = Kind("a timedelta", lambda value: isinstance(value, timedelta))
ID = Kind("the id of a run, a UUID or its text", _is_id)


def check(
    where: str, kinds: Mapping[str, Kind], given: Mapping[str, Any], error: type[Exception] = ArgumentError
) -> None:
    """`error` is another class where Prefect's own checks raise that one, and programs may ask for its name.

    Raises:
        ArgumentError: a value of `given` is not of the kind that `kinds` says.
    """
    for name, value in given.items():
        kind = kinds.get(name)
        if kind is not None and not kind.fits(value):
            raise error(f"{where}: {name} is {kind.says}; found {_shown(value)}")


def refuse_unknown(
    where: str,
    given: Iterable[str],
    known: Iterable[str],
    what: str = "argument",
    error: type[Exception] = ArgumentError,
) -> None:
    """`error` is as for `check`.

    Raises:
        ArgumentError: a name of `given` is none of `known`, which are listed.
    """
    listed = list(known)
    for name in given:
        if name not in listed:
            from whenthen.schemas.errors import did_you_mean

            near = did_you_mean(name, listed)
            there = f"{near} There are" if near else "; there are"
            raise error(f"{where}: there is no {what} {name!r}{there} {', '.join(listed)}")


def checked_arguments(where: str | None = None, /, **kinds: Kind) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator that checks arguments before the function is called; those of an async function when it is awaited."""

    def decorate(fn: Callable[P, R]) -> Callable[P, R]:
        code: Any = fn.__code__
        names = code.co_varnames[: code.co_argcount]
        known = [name for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount] if name not in OWNERS]
        takes_more = bool(code.co_flags & inspect.CO_VARKEYWORDS)
        name = where or fn.__name__

        def checked(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            if kwargs and not takes_more:
                refuse_unknown(name, kwargs, known)
            check(name, kinds, {**dict(zip(names, args, strict=False)), **kwargs})

        @functools.wraps(fn)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            checked(args, kwargs)
            return fn(*args, **kwargs)

        @functools.wraps(fn)
        async def acall(*args: P.args, **kwargs: P.kwargs) -> Any:
            checked(args, kwargs)
            return await cast("Awaitable[Any]", fn(*args, **kwargs))

        return cast("Callable[P, R]", acall) if inspect.iscoroutinefunction(fn) else call

    return decorate


#: not named by whoever calls
OWNERS = ("self", "cls")


def bound_arguments(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The arguments by name that a call of `fn` would have, with defaults: for a function that takes those of another.

    Raises:
        ArgumentError: they do not fit its signature.
    """
    signature = inspect.signature(fn)
    refuse_unknown(fn.__name__, kwargs, (name for name in signature.parameters if name not in OWNERS))
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as problem:
        raise ArgumentError(f"{fn.__name__}: {problem}") from None
    bound.apply_defaults()
    return dict(bound.arguments)


def _shown(value: Any) -> str:
    try:
        return f"{value!r:.80}"
    except Exception:  # a value of the user, whose `__repr__` may do anything
        return f"a {type(value).__name__}"
