"""`Variable`: named JSON values that many flows share. A server keeps them; without one they come from the environment."""

from __future__ import annotations

import json
import re
from typing import Any, Generic, TypeVar

from whenthen.flows.argument_kinds import NAMES, TRUTH, checked_arguments
from whenthen.flows.flow_errors import ConfigurationError, InvalidNameError, ObjectAlreadyExists, ServerError
from whenthen.flows.services.environment_values import from_environment, read_json, variable_of
from whenthen.flows.services.sync_or_awaited import asked, connected, in_thread, sync_or_awaited
from whenthen.flows.unsupported import needs_server

__all__ = ["Variable", "set_on_server"]

NAME = re.compile(r"[a-z0-9_-]+")
MAX_NAME_CHARS = 255
MAX_VALUE_CHARS = 5000  #: as JSON

T = TypeVar("T")
MISSING: Any = object()


class Variable(Generic[T]):
    """A named value: text, number, true or false, null, or lists and mappings of them."""

    @checked_arguments("Variable", tags=NAMES.or_none)
    def __init__(self, *, name: str, value: T, tags: list[str] | None = None) -> None:
        self.name = _checked_name(name)
        self.value = _checked_value(name, value)
        self.tags = tags

    @classmethod
    @checked_arguments("Variable.get")
    def get(cls, name: str, default: Any = MISSING) -> Any:
        """The value of a variable, or `default`; in an async run a coroutine of it, as of all methods here.

        The environment variable `WHENTHEN_VARIABLE_<NAME>` comes first, read as JSON where it is JSON; then a server is asked, of which a
        variable that does not exist is None.

        Raises:
            NeedsServer: there is no server, no environment variable and no default.
        """
        return sync_or_awaited(lambda: _get(name, default))

    @classmethod
    async def aget(cls, name: str, default: Any = MISSING) -> Any:
        return await in_thread(lambda: _get(name, default))

    @classmethod
    @checked_arguments("Variable.set", tags=NAMES.or_none, overwrite=TRUTH)
    def set(cls, name: str, value: Any, tags: list[str] | None = None, overwrite: bool = False) -> Any:
        """Keep a value under a name; an existing one with `overwrite=True` only.

        Raises:
            ObjectAlreadyExists, ConfigurationError: there is one of that name, or the value is no JSON, or too large. Both are a ValueError.
            NeedsServer: there is no server.
        """
        return sync_or_awaited(lambda: cls._set(name, value, tags, overwrite))

    @classmethod
    @checked_arguments("Variable.aset", tags=NAMES.or_none, overwrite=TRUTH)
    async def aset(cls, name: str, value: Any, tags: list[str] | None = None, overwrite: bool = False) -> Variable[Any]:
        return await in_thread(lambda: cls._set(name, value, tags, overwrite))

    @classmethod
    def unset(cls, name: str) -> Any:
        """Forget a variable. Gives whether there was one.

        Raises:
            NeedsServer: there is no server.
        """
        return sync_or_awaited(lambda: _unset(name))

    @classmethod
    async def aunset(cls, name: str) -> bool:
        return await in_thread(lambda: _unset(name))

    @classmethod
    def _set(cls, name: str, value: Any, tags: list[str] | None, overwrite: bool) -> Variable[Any]:
        made = Variable(name=name, value=value, tags=tags or [])
        set_on_server(name, value, made.tags, overwrite, what="Variable.set")
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Variable) and (self.name, self.value, self.tags) == (
            other.name,
            other.value,
            other.tags,
        )

    __hash__ = None  # type: ignore[assignment]  # its value may be a list

    def __repr__(self) -> str:
        return f"Variable(name={self.name!r}, value={self.value!r}, tags={self.tags!r})"


def set_on_server(
    name: str, value: Any, tags: list[str] | None, overwrite: bool, *, what: str, kind: str = "VARIABLE"
) -> None:
    """Have the server keep a variable; `kind` is that of the environment variable beside it.

    Raises:
        ObjectAlreadyExists: there is one, and `overwrite` is not set. NeedsServer: there is no server; names `what`.
    """
    body = {
        "name": _checked_name(name),
        "value": _checked_value(name, value),
        "tags": tags or [],
        "overwrite": overwrite,
    }
    try:
        asked("variable.set", body, otherwise=needs_server(what, _remedy(name, kind)))
    except ServerError as error:
        if error.answered == "conflict":
            raise ObjectAlreadyExists(
                f"variable {name!r} already exists; set it with overwrite=True to change it"
            ) from None
        raise


def _get(name: str, default: Any) -> Any:
    text = from_environment("VARIABLE", _checked_name(name), "variable")
    if text is not None:
        return read_json(text)
    if connected("variable.get"):
        answer = asked("variable.get", {"name": name})
        if answer is not None:
            return answer["value"]
        return None if default is MISSING else default
    if default is MISSING:
        raise needs_server("Variable.get", _remedy(name))
    return default


def _unset(name: str) -> bool:
    body = {"name": _checked_name(name)}
    return bool(asked("variable.unset", body, otherwise=needs_server("Variable.set", _remedy(name))))


def _remedy(name: str, kind: str = "VARIABLE") -> str:
    return f"; set {variable_of(kind, name)} for {name!r}"


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or len(name) > MAX_NAME_CHARS or NAME.fullmatch(name) is None:
        raise InvalidNameError(
            "the name of a variable has lowercase letters, numbers, and dashes or underscores, at most "
            f"{MAX_NAME_CHARS}; found {name!r:.80}"
        )
    return name


def _checked_value(name: str, value: Any) -> Any:
    try:
        size = len(json.dumps(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"variable {name!r}: the value is no JSON: {error}") from None
    if size > MAX_VALUE_CHARS:
        raise ConfigurationError(
            f"variable {name!r}: the value has {size:,} characters as JSON; the most are {MAX_VALUE_CHARS:,}; keep it in a file"
        )
    return value
