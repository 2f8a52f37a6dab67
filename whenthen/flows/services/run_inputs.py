"""`RunInput`: what a run is given while it runs. The classes and their checks are here; the sending and waiting is a server's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, PrivateAttr, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticSerializationError

from whenthen.flows.argument_kinds import ID, SECONDS, TEXT, TRUTH, checked_arguments
from whenthen.flows.execution.run_contexts import FLOW
from whenthen.flows.flow_errors import (
    ArgumentError,
    ConfigurationError,
    FlowInputTimeout,
    MissingContextError,
    ParameterTypeError,
)
from whenthen.flows.services.sync_or_awaited import asked, in_thread, sync_or_awaited
from whenthen.flows.unsupported import needs_server, not_supported

__all__ = ["GetInputHandler", "InputReader", "RunInput", "asend_input", "receive_input", "send_input"]

R = TypeVar("R", bound="RunInput")

RECEIVE = {
    "timeout": SECONDS.or_none,
    "poll_interval": SECONDS,
    "raise_timeout_error": TRUTH,
    "key_prefix": TEXT.or_none,
    "flow_run_id": ID.or_none,
}
SEND = {"flow_run_id": ID, "sender": TEXT.or_none, "key_prefix": TEXT.or_none}


OF_RUN = "prefect.flow-run."  #: begins the sender of what a run sent, as Prefect writes it


@dataclass(frozen=True, kw_only=True)
class RunInputMetadata:
    """How an input came: the key under which it lies, who sent it, and to which run."""

    key: str | None
    sender: str | None
    receiver: UUID


class RunInput(BaseModel):
    """A model of what a run is given: `class Approval(RunInput): approved: bool`."""

    model_config = ConfigDict(extra="forbid")
    _description: ClassVar[str | None] = None
    _metadata: RunInputMetadata | None = PrivateAttr(default=None)

    @property
    def metadata(self) -> RunInputMetadata:
        """Of an input that was received.

        Raises:
            MissingContextError: it was made here.
        """
        if self._metadata is None:
            raise MissingContextError(
                f"{type(self).__name__} was not received, so nobody sent it; receive() gives those that were"
            )
        return self._metadata

    @classmethod
    @checked_arguments(description=TEXT.or_none)
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
    @checked_arguments(**RECEIVE)
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
            NeedsServer: no reporter connects the run to a server.
        """
        _refuse_excluded(exclude_keys)
        return GetInputHandler(
            cls, timeout=timeout, raise_timeout_error=raise_timeout_error, key_prefix=key_prefix, run_id=flow_run_id
        )

    @checked_arguments(**SEND)
    def send_to(self, flow_run_id: UUID, sender: str | None = None, key_prefix: str | None = None) -> Any:
        """Send it to a run; in an async run a coroutine of it.

        Raises:
            NeedsServer: no reporter connects the run to a server.
        """
        return sync_or_awaited(lambda: _send(self, flow_run_id, sender, key_prefix))

    @checked_arguments(**SEND)
    async def asend_to(self, flow_run_id: UUID, sender: str | None = None, key_prefix: str | None = None) -> None:
        await in_thread(lambda: _send(self, flow_run_id, sender, key_prefix))

    @checked_arguments(**SEND)
    def respond(self, run_input: Any, sender: str | None = None, key_prefix: str | None = None) -> Any:
        """Answer the run that sent this; in an async run a coroutine of it.

        Raises:
            MissingContextError: this was not received, or whoever sent it is no run.
            NeedsServer: no reporter connects the run to a server.
        """
        receiver = self._sender_run()
        return sync_or_awaited(lambda: _send(run_input, receiver, sender, key_prefix))

    @checked_arguments(**SEND)
    async def arespond(self, run_input: Any, sender: str | None = None, key_prefix: str | None = None) -> None:
        receiver = self._sender_run()
        await in_thread(lambda: _send(run_input, receiver, sender, key_prefix))

    def _sender_run(self) -> UUID:
        sender = self.metadata.sender
        if sender is None or not sender.startswith(OF_RUN):
            raise MissingContextError(
                f"Cannot respond to an input that was not sent by a flow run: its sender is {sender!r:.80}"
            )
        return UUID(sender.removeprefix(OF_RUN))


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
        self._run_id = UUID(str(run_id or flow.flow_run.id))  # type: ignore[union-attr]  # there is one of them
        self._after: Any = None

    def next(self) -> Any:
        """The next input.

        Raises:
            FlowInputTimeout: none came in time.
            NeedsServer: no reporter connects the run to a server.
        """
        body = {
            "flow_run_id": str(self._run_id),
            "timeout_s": self._timeout_s,
            "key_prefix": self._prefix,
            "after": self._after,
        }
        answer = asked("receive_input", body, otherwise=needs_server("RunInput"))
        if answer is None:
            raise FlowInputTimeout(f"no input came within {self._timeout_s} seconds")
        self._after = answer.get("key")
        value = self._reader.read(answer["value"])
        if isinstance(value, RunInput):
            value._metadata = RunInputMetadata(key=self._after, sender=answer.get("sender"), receiver=self._run_id)
        return value

    async def anext(self) -> Any:
        return await in_thread(self.next)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return self.next()
        except FlowInputTimeout:
            if self._raises:
                raise
            raise StopIteration from None

    def __aiter__(self) -> GetInputHandler:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self.anext()
        except FlowInputTimeout:
            if self._raises:
                raise
            raise StopAsyncIteration from None


@checked_arguments(**RECEIVE, with_metadata=TRUTH)
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
    """Values of `input_type` that are sent to the run, one after the other.

    Raises:
        NotSupported: `exclude_keys` or `with_metadata` is given.
    """
    _refuse_excluded(exclude_keys)
    if with_metadata:
        not_supported("receive_input(with_metadata=True)")
    return GetInputHandler(
        input_type,
        timeout=timeout,
        raise_timeout_error=raise_timeout_error,
        key_prefix=key_prefix,
        run_id=flow_run_id,
    )


@checked_arguments(**SEND)
def send_input(run_input: Any, flow_run_id: UUID, sender: str | None = None, key_prefix: str | None = None) -> Any:
    """Send a value to a run; in an async run a coroutine of it.

    Raises:
        NeedsServer: no reporter connects the run to a server.
    """
    return sync_or_awaited(lambda: _send(run_input, flow_run_id, sender, key_prefix))


@checked_arguments(**SEND)
async def asend_input(
    run_input: Any, flow_run_id: UUID, sender: str | None = None, key_prefix: str | None = None
) -> None:
    await in_thread(lambda: _send(run_input, flow_run_id, sender, key_prefix))


def _refuse_excluded(exclude_keys: Any) -> None:
    if exclude_keys:
        not_supported("receive_input(exclude_keys=...)", f"{exclude_keys!r:.80}")


def _send(run_input: Any, flow_run_id: UUID, sender: str | None, key_prefix: str | None) -> None:
    try:
        value = TypeAdapter(type(run_input)).dump_python(run_input, mode="json")
    except (PydanticUserError, PydanticSerializationError) as problem:
        raise ArgumentError(f"input of a run is JSON; found {run_input!r:.80}: {problem}") from None
    flow = FLOW.get()
    if sender is None and flow is not None:
        sender = f"{OF_RUN}{flow.flow_run.id}"
    body = {
        "flow_run_id": str(UUID(str(flow_run_id))),
        "value": value,
        "sender": sender,
        "key_prefix": key_prefix,
    }
    asked("send_input", body, otherwise=needs_server("RunInput"))
