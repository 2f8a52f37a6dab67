"""What a flow and a task have in common: a function with options, called as a run. Meaning: docs/flows.md."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, ParamSpec, Protocol, Self, TypeVar, overload

from whenthen.flows.definitions.by_name import ByName
from whenthen.flows.definitions.option_checks import checked_function, checked_hooks
from whenthen.flows.definitions.parameters import Parameters
from whenthen.flows.execution.steps import drive, drive_async, drive_async_generator, drive_generator

if TYPE_CHECKING:
    from whenthen.flows.execution.run_moves import RunCall
    from whenthen.flows.states.state import State

__all__ = ["Delay", "Hooks", "NotSet", "RunnableFunction"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
H = TypeVar("H", bound=Callable[..., Any])


class NotSet:
    """An option that was not given, where None means something."""


Hooks = Iterable[Callable[..., Any]] | None
Delay = float | int | list[float] | Callable[[int], list[float]] | None


class MakesCall(Protocol):
    """Makes the call of one run, for the drivers of steps."""

    def __call__(self, definition: Any, parameters: dict[str, Any], wait_for: Iterable[Any] | None, /) -> RunCall: ...


class RunnableFunction(ByName, Generic[P, R]):
    """A function whose calls are runs. The base of `Flow` and `Task`, which check and keep the options."""

    _kind: ClassVar[str]  #: "flow" or "task", for messages
    _call_of: ClassVar[MakesCall]

    name: str
    on_completion_hooks: list[Callable[..., Any]]
    on_failure_hooks: list[Callable[..., Any]]
    on_running_hooks: list[Callable[..., Any]]

    def __init__(
        self, fn: Callable[P, R], *, description: str | None, local_types: Mapping[str, Any] | None = None
    ) -> None:
        function: Any = fn.__func__ if isinstance(fn, (classmethod, staticmethod)) else fn
        self.fn: Callable[P, R] = checked_function(function, self._kind)
        functools.update_wrapper(self, function)
        self._owner_bound = isinstance(fn, classmethod)
        self._unbound = isinstance(fn, staticmethod)
        self.description = description or inspect.getdoc(function)
        self.isasync = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        self.isgenerator = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
        self._local_types = local_types
        self._signature: Parameters | None = None
        self._before: tuple[Any, ...] = ()  #: the instance or class of a bound method

    @property
    def signature(self) -> Parameters:
        if self._signature is None:
            self._signature = Parameters(self.fn, local_types=self._local_types)
        return self._signature

    def _bound_to(self, instance: Any, owner: type | None) -> Self:
        """As a method: what `__get__` of both gives."""
        if self._unbound or (instance is None and not self._owner_bound):
            return self
        bound: Self = copy.copy(self)
        bound._signature = self.signature
        bound._before = (owner if self._owner_bound else instance,)
        return bound

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

    @overload
    def __call__(
        self: RunnableFunction[..., Coroutine[Any, Any, T]],
        *args: Any,
        return_state: Literal[True],
        wait_for: Any = ...,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, State[T]]: ...

    @overload
    def __call__(self, *args: Any, return_state: Literal[True], wait_for: Any = ..., **kwargs: Any) -> State[R]: ...

    @overload
    def __call__(self, *args: Any, return_state: Literal[False] = ..., wait_for: Any, **kwargs: Any) -> R: ...

    def __call__(  # type: ignore[misc]  # P may have parameters of these names for all mypy knows; `checked_function` refuses them
        self,
        *args: Any,
        return_state: bool = False,
        wait_for: Iterable[Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run it here and now, and give what the function gives; the final state with `return_state=True`.

        Futures among the arguments are waited for, and become their results.

        Raises:
            ParameterBindError: the arguments do not fit the signature.
            ParameterTypeError: an argument of a flow does not fit its annotation.
        """
        parameters = self.signature.bind(self._before + args, kwargs)
        if self.isasync:
            if self.isgenerator:
                return self._iterate_async(parameters, wait_for)
            return self._run_async(parameters, wait_for, return_state)
        call = self._call_of(self, parameters, wait_for)
        if self.isgenerator:
            return drive_generator(call.steps(), copy_context(), _result)
        drive(call.steps())
        return call.final_state() if return_state else call.result()

    async def _run_async(self, parameters: dict[str, Any], wait_for: Any, return_state: bool) -> Any:
        call = await drive_async(self._call_of(self, parameters, wait_for).steps())
        return call.final_state() if return_state else call.result()

    async def _iterate_async(self, parameters: dict[str, Any], wait_for: Any) -> Any:
        call = self._call_of(self, parameters, wait_for)
        async for value in drive_async_generator(call.steps(), copy_context(), _result):
            yield value

    def _with(self, options: dict[str, Any]) -> Self:
        """The same function, bound as this one is, with `options`."""
        made = type(self)(self.fn, **options)
        made._owner_bound, made._unbound, made._before = self._owner_bound, self._unbound, self._before
        return made

    def on_completion(self, fn: H) -> H:
        """A decorator: `fn(flow or task, run, state)` is called when a run has completed."""
        return self._hooked(self.on_completion_hooks, fn, "on_completion")

    def on_failure(self, fn: H) -> H:
        """A decorator: `fn(flow or task, run, state)` is called when a run has failed and is not tried again."""
        return self._hooked(self.on_failure_hooks, fn, "on_failure")

    def on_running(self, fn: H) -> H:
        """A decorator: `fn(flow or task, run, state)` is called before each try."""
        return self._hooked(self.on_running_hooks, fn, "on_running")

    def _hooked(self, hooks: list[Callable[..., Any]], fn: H, option: str) -> H:
        hooks += checked_hooks([fn], option, f"{self._kind} {self.name!r}")
        return fn

    def __repr__(self) -> str:
        return f"<{self._kind.capitalize()} {self.name!r}>"


def _result(call: RunCall) -> Any:
    return call.result()
