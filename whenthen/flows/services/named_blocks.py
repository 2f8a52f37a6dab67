"""`Secret` and `JSON`: named values of Prefect's blocks. They come from the environment of the process; a secret is never shown."""

from __future__ import annotations

import json
from typing import Any, Generic, NoReturn, TypeVar

from whenthen.flows.flow_errors import BlockNotFound, ConfigurationError
from whenthen.flows.services.environment_values import from_environment, read_json, variable_of
from whenthen.flows.services.sync_or_awaited import asked, connected, in_thread, sync_or_awaited
from whenthen.flows.unsupported import needs_server

__all__ = ["JSON", "Secret"]

MASK = "**********"

T = TypeVar("T")


class _HiddenValue(Generic[T]):
    """A value that shows itself to nobody who does not ask for it."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def get_secret_value(self) -> T:
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _HiddenValue) and self._value == other._value

    __hash__ = None  # type: ignore[assignment]  # its value may be a mapping

    def __len__(self) -> int:
        return len(self._value) if isinstance(self._value, str) else 1

    def __str__(self) -> str:
        return MASK

    def __repr__(self) -> str:
        return f"Secret('{MASK}')"


class Secret(Generic[T]):
    """A secret. `Secret.load(name).get()` gives its value; nothing else shows it."""

    def __init__(self, *, value: Any) -> None:
        inner = value.get_secret_value() if hasattr(value, "get_secret_value") else value
        self.value: _HiddenValue[Any] = _HiddenValue(inner)

    @classmethod
    def load(cls, name: str, validate: bool = True, client: Any = None) -> Any:
        """The secret of a name; in an async run a coroutine of it.

        It is the environment variable `WHENTHEN_SECRET_<NAME>`: the value, or where it is (`file:/path`, `env:NAME`).

        Raises:
            BlockNotFound: it is not set, and there is no server to ask.
            ConfigurationError: it is empty, or the reference leads nowhere.
        """
        return sync_or_awaited(lambda: cls._load(name))

    @classmethod
    async def aload(cls, name: str, validate: bool = True, client: Any = None) -> Secret[Any]:
        return await in_thread(lambda: cls._load(name))

    @classmethod
    def _load(cls, name: str) -> Secret[Any]:
        variable = variable_of("SECRET", name)
        text = from_environment("SECRET", name, "secret")
        if text is None:
            if not connected("secret.get"):
                raise needs_server(
                    "Secret.load", f"; set {variable} for {name!r}, to file:/path or to the secret", BlockNotFound
                )
            text = asked("secret.get", {"name": name})
        if not text:
            raise ConfigurationError(f"{variable} is empty; give secret {name!r} a value")
        return cls(value=text)

    def get(self) -> Any:
        """The value; where it is JSON, what the JSON means."""
        value = self.value.get_secret_value()
        return read_json(value) if isinstance(value, str) else value

    def save(self, name: str | None = None, overwrite: bool = False, client: Any = None) -> NoReturn:
        """Not possible from here.

        Raises:
            NeedsServer: always: secrets are kept outside.
        """
        more = "" if name is None else f"; set {variable_of('SECRET', name)} there"
        raise needs_server("Secret.save", more)

    asave = save

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.value == other.value

    __hash__ = None  # type: ignore[assignment]  # its value may be a mapping

    def __repr__(self) -> str:
        return f"Secret(value={self.value!r})"


class JSON:
    """A named JSON value."""

    def __init__(self, *, value: Any) -> None:
        self.value = value

    @classmethod
    def load(cls, name: str, validate: bool = True, client: Any = None) -> Any:
        """The value of a name, from the environment variable `WHENTHEN_JSON_<NAME>`; in an async run a coroutine of it.

        Raises:
            BlockNotFound: it is not set, and there is no server to ask.
            ConfigurationError: it is no JSON.
        """
        return sync_or_awaited(lambda: cls._load(name))

    @classmethod
    async def aload(cls, name: str, validate: bool = True, client: Any = None) -> JSON:
        return await in_thread(lambda: cls._load(name))

    @classmethod
    def _load(cls, name: str) -> JSON:
        variable = variable_of("JSON", name)
        text = from_environment("JSON", name, "JSON value")
        if text is None:
            if not connected("json.get"):
                raise needs_server("JSON.load", f"; set {variable} for {name!r}", BlockNotFound)
            return cls(value=asked("json.get", {"name": name}))
        try:
            return cls(value=json.loads(text))
        except ValueError as error:
            raise ConfigurationError(f"{variable} is no JSON: {error}") from None

    def save(self, name: str | None = None, overwrite: bool = False, client: Any = None) -> NoReturn:
        """Not possible from here.

        Raises:
            NeedsServer: always.
        """
        raise needs_server("JSON.save", "" if name is None else f"; set {variable_of('JSON', name)}")

    asave = save

    def __repr__(self) -> str:
        return f"JSON(value={self.value!r})"
