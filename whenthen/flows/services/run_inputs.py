"""`RunInput`: what a run is given while it runs. The classes and their checks are here; the sending and waiting is a server's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Self, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model

from whenthen.flows.execution.run_contexts import FLOW
from whenthen.flows.flow_errors import ConfigurationError, FlowPauseTimeout, MissingContextError, ParameterTypeError
from whenthen.flows.services.sync_or_awaited import asked, in_thread, sync_or_awaited
from whenthen.flows.unsupported import needs_server

__all__ = ["GetInputHandler", "InputReader", "RunInput", "asend_input", "receive_input", "send_input"]

R = TypeVar("R", bound="RunInput")


class RunInput(BaseModel):
    """A model of what a run is given: `class Approval(RunInput): approved: bool`."""

    model_config = ConfigDict(extra="forbid")
    _description: ClassVar[str | None] = None

    @classmethod
    def with_initial_data(cls: type[R], description: str | None = None, **kwargs: Any) -> type[R]:
        """The same model with a text for the person who fills it in, and with defaults."""
        if unknown := [name for name in kwargs if name not in cls.model_fields]:
            raise ConfigurationError(
                f"{cls.__name__} has no field {unknown[0]!r}; it has {', '.join(cls.model_fields) or 'none'}"
            )
        fields: Any = {name: (cls.model_fields[name].annotation, value) for name, value in kwargs.items()}
        made: type[R] = create_model(cls.__name__, __base__=cls, **fields)
        made._description = description
        return made

    @classmethod
    def receive(
        cls,
        timeout: float | None = 3600,
        poll_interval: float = 10,
        raise_timeout_error: bool = False,
        exclude_keys: set[str] | None = None,
        key_prefix: str | None = None,
        flow_run_id: UUID | None = None,
    ) -> GetInputHandler:
        """What is sent to the run, one after the other, until `timeout` seconds pass without any.

        Raises:
            NeedsServer: this process is not connected to one.
        """
        return GetInputHandler(
            cls, timeout=timeout, raise_timeout_error=raise_timeout_error, key_prefix=key_prefix, run_id=flow_run_id
        )

    def send_to(self, flow_run_id: UUID, sender: str | None = None, key_prefix: str | None = None) -> Any:
        """Send it to a run; in an async run a coroutine of it.

        Raises:
            NeedsServer: this process is not connected to one.
        """
        return sync_or_awaited(lambda: _send(self, flow_run_id, sender, key_prefix))

    async def asend_to(self, flow_run_id: UUID, sender: str | None = None, key_prefix: str | None = None) -> None:
        await in_thread(lambda: _send(self, flow_run_id, sender, key_prefix))

    def respond(self, run_input: Self, sender: str | None = None, key_prefix: str | None = None) -> Any:
        """Answer the run that sent this.

        Raises:
            NeedsServer: this process is not connected to one.
        """
        receiver = getattr(self, "_sender_run_id", None)
        if receiver is None:
            raise needs_server("RunInput")
        return sync_or_awaited(lambda: _send(run_input, receiver, sender, key_prefix))


class InputReader:
    """Reads input of one type: a `RunInput`, a pydantic model, or any type such as int or list[str].

    Raises:
        ConfigurationError: it is no type.
    """

    def __init__(self, kind: Any) -> None:
        self.description = getattr(kind, "_description", None) if isinstance(kind, type) else None
        try:
            self._reader: TypeAdapter[Any] = TypeAdapter(kind)
            self.schema = self._reader.json_schema()
        except Exception as error:
            raise ConfigurationError(f"input of a run has a type; {kind!r:.80} is none: {error}") from None
        if isinstance(kind, BaseModel) or kind is None:
            raise ConfigurationError(f"input of a run has a type; found {kind!r:.80}, which is a value")

    def read(self, value: Any) -> Any:
        """
        Raises:
            ParameterTypeError: the value does not fit.
        """
        try:
            return self._reader.validate_python(value)
        except ValidationError as error:
            raise ParameterTypeError(f"input of the run does not fit: {error}") from None


class GetInputHandler:
    """Iterates over what is sent to a run, sync and async. Ends when nothing has come for `timeout` seconds."""

    def __init__(
        self,
        kind: Any,
        *,
        timeout: float | None,
        raise_timeout_error: bool,
        key_prefix: str | None,
        run_id: UUID | None,
    ) -> None:
        flow = FLOW.get()
        if run_id is None and flow is None:
            raise MissingContextError("input is received in a flow run; elsewhere give flow_run_id=...")
        self._reader = InputReader(kind)
        self._timeout_s = timeout
        self._raises = raise_timeout_error
        self._prefix = key_prefix
        self._run_id = run_id or flow.flow_run.id  # type: ignore[union-attr]  # there is one of them
        self._after: Any = None

    def next(self) -> Any:
        """The next input.

        Raises:
            FlowPauseTimeout: none came in time.
            NeedsServer: this process is not connected to a server.
        """
        body = {
            "flow_run_id": str(self._run_id),
            "timeout_s": self._timeout_s,
            "key_prefix": self._prefix,
            "after": self._after,
        }
        answer = asked("receive_input", body, otherwise=needs_server("RunInput"))
        if answer is None:
            raise FlowPauseTimeout(f"no input came within {self._timeout_s} seconds")
        self._after = answer.get("key")
        return self._reader.read(answer["value"])

    async def anext(self) -> Any:
        return await in_thread(self.next)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return self.next()
        except FlowPauseTimeout:
            if self._raises:
                raise
            raise StopIteration from None

    def __aiter__(self) -> GetInputHandler:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self.anext()
        except FlowPauseTimeout:
            if self._raises:
                raise
            raise StopAsyncIteration from None


def receive_input(
    input_type: Any,
    timeout: float | None = 3600,
    poll_interval: float = 10,
    raise_timeout_error: bool = False,
    exclude_keys: set[str] | None = None,
    key_prefix: str | None = None,
    flow_run_id: UUID | None = None,
    with_metadata: bool = False,
) -> GetInputHandler:
    """Values of `input_type` that are sent to the run, one after the other."""
    return GetInputHandler(
        input_type,
        timeout=timeout,
        raise_timeout_error=raise_timeout_error,
        key_prefix=key_prefix,
        run_id=flow_run_id,
    )


def send_input(run_input: Any, flow_run_id: UUID, sender: str | None = None, key_prefix: str | None = None) -> Any:
    """Send a value to a run; in an async run a coroutine of it.

    Raises:
        NeedsServer: this process is not connected to one.
    """
    return sync_or_awaited(lambda: _send(run_input, flow_run_id, sender, key_prefix))


async def asend_input(
    run_input: Any, flow_run_id: UUID, sender: str | None = None, key_prefix: str | None = None
) -> None:
    await in_thread(lambda: _send(run_input, flow_run_id, sender, key_prefix))


def _send(run_input: Any, flow_run_id: UUID, sender: str | None, key_prefix: str | None) -> None:
    value = TypeAdapter(type(run_input)).dump_python(run_input, mode="json")
    body = {"flow_run_id": str(flow_run_id), "value": value, "sender": sender, "key_prefix": key_prefix}
    asked("send_input", body, otherwise=needs_server("RunInput"))
