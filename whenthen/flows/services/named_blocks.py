"""`Secret` and `JSON`: named values of Prefect's blocks. They come from the environment of the process, else secrets from the rules through the
worker, and JSON from the server's variables; a secret is never shown."""

from __future__ import annotations

import json
from typing import Any, Generic, NoReturn, TypeVar

from whenthen.flows.argument_kinds import TRUTH, checked_arguments
from whenthen.flows.flow_errors import BlockNotFound, ConfigurationError, ObjectNotFound
from whenthen.flows.services.environment_values import from_environment, read_json, variable_of
from whenthen.flows.services.named_variables import set_on_server
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

        It is the environment variable `WHENTHEN_SECRET_<NAME>`: the value, or where it is (`file:/path`, `env:NAME`); else, in a worker, the
        secret of the rules.

        Raises:
            BlockNotFound: it is not set, and no worker has it.
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
            try:
                text = asked("secret.get", {"name": name})
            except ObjectNotFound as error:
                raise BlockNotFound(str(error)) from None
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
        """The value of a name, from the environment variable `WHENTHEN_JSON_<NAME>`, else the variable of that name that the server keeps;
        in an async run a coroutine of it.

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
            try:
                return cls(value=asked("json.get", {"name": name}))
            except ObjectNotFound as error:
                raise BlockNotFound(str(error)) from None
        try:
            return cls(value=json.loads(text))
        except ValueError as error:
            raise ConfigurationError(f"{variable} is no JSON: {error}") from None

    @checked_arguments("JSON.save", overwrite=TRUTH)
    def save(self, name: str, overwrite: bool = False, client: Any = None) -> Any:
        """Keep it as the server's variable of that name; in an async run a coroutine.

        Raises:
            ObjectAlreadyExists: there is one, and `overwrite` is not set.
            NeedsServer: there is no server.
        """
        return sync_or_awaited(lambda: self._save(name, overwrite))

    async def asave(self, name: str, overwrite: bool = False, client: Any = None) -> None:
        await in_thread(lambda: self._save(name, overwrite))

    def _save(self, name: str, overwrite: bool) -> None:
        set_on_server(name, self.value, None, overwrite, what="JSON.save", kind="JSON")

    def __repr__(self) -> str:
        return f"JSON(value={self.value!r})"
