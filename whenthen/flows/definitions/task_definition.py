"""`@task`: a function whose calls are runs, with retries, caching, hooks, and futures. Meaning: docs/flows.md."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Iterable
from datetime import timedelta
from typing import Any, Concatenate, Literal, NoReturn, ParamSpec, TypeVar, overload

from whenthen.flows.argument_kinds import SECONDS, check, checked_arguments
from whenthen.flows.caching.cache_policy import DEFAULT, NO_CACHE, CachePolicy
from whenthen.flows.caching.result_store import refreshes_by_default
from whenthen.flows.definitions.annotations import unmapped
from whenthen.flows.definitions.option_checks import (
    JITTER,
    OPTIONS,
    checked_delay,
    checked_hooks,
    checked_options,
    checked_retries,
    checked_run_name,
    checked_timeout,
)
from whenthen.flows.definitions.runnable_function import Delay, Hooks, NotSet, RunnableFunction
from whenthen.flows.execution.run_contexts import FLOW
from whenthen.flows.execution.run_logging import engine_logger
from whenthen.flows.execution.task_engine import TaskCall
from whenthen.flows.flow_errors import MissingContextError, NotSupported
from whenthen.flows.futures.future import PrefectFuture, PrefectFutureList
from whenthen.flows.states.state import State
from whenthen.flows.unsupported import not_supported

__all__ = ["NotSet", "Task", "exponential_backoff", "task"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")
H = TypeVar("H", bound=Callable[..., Any])


class Task(RunnableFunction[P, R]):
    """A function as a task. Calling it runs it; `.submit` starts a run and gives a future, `.map` one for each element."""

    _kind = "task"
    _call_of = TaskCall

    def __init__(
        self,
        fn: Callable[P, R],
        *,
        name: str | None = None,
        description: str | None = None,
        tags: Iterable[str] | None = None,
        version: str | None = None,
        cache_policy: CachePolicy | type[NotSet] | None = NotSet,
        cache_key_fn: Callable[[Any, dict[str, Any]], str | None] | None = None,
        cache_expiration: timedelta | None = None,
        task_run_name: str | Callable[..., str] | None = None,
        retries: int | None = None,
        retry_delay_seconds: Delay = None,
        retry_jitter_factor: float | None = None,
        persist_result: bool | None = None,
        result_storage: Any = None,
        result_serializer: Any = None,
        result_storage_key: str | None = None,
        cache_result_in_memory: bool = True,
        timeout_seconds: float | None = None,
        log_prints: bool | None = None,
        refresh_cache: bool | None = None,
        on_completion: Hooks = None,
        on_failure: Hooks = None,
        on_running: Hooks = None,
        on_rollback: Hooks = None,
        on_commit: Hooks = None,
        retry_condition_fn: Callable[..., Any] | None = None,
        viz_return_value: Any = None,
        asset_deps: Any = None,
    ) -> None:
        super().__init__(fn, description=description)
        function: Any = self.fn
        own_name = str(getattr(function, "__name__", type(function).__name__))
        check(f"task {own_name!r}", OPTIONS, {"name": name})
        self.name = name or own_name
        where = f"task {self.name!r}"
        check(
            where,
            OPTIONS,
            {
                "version": version,
                "description": description,
                "persist_result": persist_result,
                "log_prints": log_prints,
                "refresh_cache": refresh_cache,
                "cache_expiration": cache_expiration,
                "result_storage_key": result_storage_key,
                "cache_result_in_memory": cache_result_in_memory,
            },
        )
        if asset_deps is not None:
            raise NotSupported(f"{where}: asset_deps is not supported; emit an event (emit_event) for what a task made")
        self.version = version
        self.tags = frozenset(checked_tags(tags, where))
        self.task_run_name = checked_run_name(task_run_name, "task_run_name", where)
        self.retries = checked_retries(_default_of("RETRIES") if retries is None else retries, where)
        self.retry_delay_seconds = checked_delay(retry_delay_seconds, self.retries, where)
        check(where, JITTER, {"retry_jitter_factor": retry_jitter_factor}, ValueError)
        self.retry_jitter_factor = retry_jitter_factor
        if retry_condition_fn is not None and not callable(retry_condition_fn):
            raise TypeError(
                f"{where}: Expected `retry_condition_fn` to be callable, got {type(retry_condition_fn).__name__} instead"
            )
        self.retry_condition_fn = retry_condition_fn
        self.timeout_seconds = checked_timeout(timeout_seconds, where)
        self.log_prints = log_prints
        self.refresh_cache = refresh_cache
        self.cache_expiration = cache_expiration
        self.cache_key_fn = cache_key_fn
        self.result_storage = result_storage
        self.result_serializer = result_serializer
        self.result_storage_key = result_storage_key
        self.cache_result_in_memory = cache_result_in_memory
        self.viz_return_value = viz_return_value  #: read by nothing here: flows are not drawn
        self.on_completion_hooks = checked_hooks(on_completion, "on_completion", where)
        self.on_failure_hooks = checked_hooks(on_failure, "on_failure", where)
        self.on_running_hooks = checked_hooks(on_running, "on_running", where)
        self.on_rollback_hooks = checked_hooks(on_rollback, "on_rollback", where)
        self.on_commit_hooks = checked_hooks(on_commit, "on_commit", where)
        self.cache_policy, self.persist_result = _kept(self, cache_policy, persist_result, where)
        self._given_cache_policy = cache_policy
        self._given_persist_result = persist_result
        module = getattr(function, "__module__", "__main__")
        self.task_key = f"{module}.{getattr(function, '__qualname__', type(function).__qualname__)}"

    def refreshes_cache(self) -> bool:
        return refreshes_by_default() if self.refresh_cache is None else self.refresh_cache

    @overload
    def __get__(self, instance: None, owner: type) -> Task[P, R]: ...

    @overload
    def __get__(self: Task[Concatenate[Any, Q], T], instance: object, owner: type | None = None) -> Task[Q, T]: ...

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self._bound_to(instance, owner)

    @overload
    def submit(
        self: Task[..., Coroutine[Any, Any, T]],
        *args: Any,
        return_state: Literal[False] = ...,
        wait_for: Any = ...,
        **kwargs: Any,
    ) -> PrefectFuture[T]: ...

    @overload
    def submit(
        self, *args: Any, return_state: Literal[False] = ..., wait_for: Any = ..., **kwargs: Any
    ) -> PrefectFuture[R]: ...

    @overload
    def submit(self, *args: Any, return_state: Literal[True], wait_for: Any = ..., **kwargs: Any) -> State[R]: ...

    def submit(
        self, *args: Any, return_state: bool = False, wait_for: Iterable[Any] | None = None, **kwargs: Any
    ) -> Any:
        """Start a run in the task runner of the flow, and give its future at once.

        Raises:
            MissingContextError: there is no flow around.
            ParameterBindError: the arguments do not fit the signature.
        """
        runner = self._runner("submit")
        future = runner.submit(self, self.signature.bind(self._before + args, kwargs), wait_for)
        if return_state:
            future.wait()
            return future.state
        return future

    @overload
    def map(
        self: Task[..., Coroutine[Any, Any, T]],
        *args: Any,
        return_state: Literal[False] = ...,
        wait_for: Any = ...,
        **kwargs: Any,
    ) -> PrefectFutureList[T]: ...

    @overload
    def map(
        self, *args: Any, return_state: Literal[False] = ..., wait_for: Any = ..., **kwargs: Any
    ) -> PrefectFutureList[R]: ...

    @overload
    def map(self, *args: Any, return_state: Literal[True], wait_for: Any = ..., **kwargs: Any) -> list[State[R]]: ...

    def map(self, *args: Any, return_state: bool = False, wait_for: Iterable[Any] | None = None, **kwargs: Any) -> Any:
        """Start a run for each element of the sequences among the arguments, and give their futures.

        Raises:
            MissingContextError: there is no flow around.
            MappingMissingIterable: there is no sequence among the arguments.
            MappingLengthMismatch: the sequences have different lengths.
        """
        runner = self._runner("map")
        before = tuple(unmapped(one) for one in self._before)
        futures = runner.map(self, self.signature.bind(before + args, kwargs, defaults=False), wait_for)
        if return_state:
            futures.wait()
            return [future.state for future in futures]
        return futures

    def _runner(self, method: str) -> Any:
        flow = FLOW.get()
        if flow is None:
            raise MissingContextError(
                f"{self.name}.{method}(...) was called outside a flow, so there is no task runner: call it in a function with @flow, or call "
                f"{self.name}(...) directly, which needs none"
            )
        return flow.task_runner

    def delay(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Not supported: there is no task server.

        Raises:
            NotSupported: always.
        """
        not_supported("Task.delay", f"{self.name}.delay(...)")

    def apply_async(self, *args: Any, **kwargs: Any) -> NoReturn:
        """As `delay`."""
        not_supported("Task.apply_async", f"{self.name}.apply_async(...)")

    def serve(self, *args: Any, **kwargs: Any) -> NoReturn:
        """As `delay`."""
        not_supported("Task.serve", f"{self.name}.serve(...)")

    def with_options(
        self,
        *,
        name: Any = NotSet,
        description: Any = NotSet,
        tags: Any = NotSet,
        version: Any = NotSet,
        cache_policy: Any = NotSet,
        cache_key_fn: Any = NotSet,
        cache_expiration: Any = NotSet,
        task_run_name: Any = NotSet,
        retries: Any = NotSet,
        retry_delay_seconds: Any = NotSet,
        retry_jitter_factor: Any = NotSet,
        persist_result: Any = NotSet,
        result_storage: Any = NotSet,
        result_serializer: Any = NotSet,
        result_storage_key: Any = NotSet,
        cache_result_in_memory: Any = NotSet,
        timeout_seconds: Any = NotSet,
        log_prints: Any = NotSet,
        refresh_cache: Any = NotSet,
        on_completion: Any = NotSet,
        on_failure: Any = NotSet,
        on_running: Any = NotSet,
        on_rollback: Any = NotSet,
        on_commit: Any = NotSet,
        retry_condition_fn: Any = NotSet,
        viz_return_value: Any = NotSet,
        asset_deps: Any = NotSet,
    ) -> Task[P, R]:
        """The same function as a task with these options changed; this one stays as it is."""
        given = {key: value for key, value in locals().items() if key != "self" and value is not NotSet}
        options: dict[str, Any] = {
            "name": self.name,
            "description": self.description,
            "tags": self.tags,
            "version": self.version,
            "cache_policy": self._given_cache_policy,
            "cache_key_fn": self.cache_key_fn,
            "cache_expiration": self.cache_expiration,
            "task_run_name": self.task_run_name,
            "retries": self.retries,
            "retry_delay_seconds": self.retry_delay_seconds,
            "retry_jitter_factor": self.retry_jitter_factor,
            "persist_result": self._given_persist_result,
            "result_storage": self.result_storage,
            "result_serializer": self.result_serializer,
            "result_storage_key": self.result_storage_key,
            "cache_result_in_memory": self.cache_result_in_memory,
            "timeout_seconds": self.timeout_seconds,
            "log_prints": self.log_prints,
            "refresh_cache": self.refresh_cache,
            "on_completion": self.on_completion_hooks,
            "on_failure": self.on_failure_hooks,
            "on_running": self.on_running_hooks,
            "on_rollback": self.on_rollback_hooks,
            "on_commit": self.on_commit_hooks,
            "retry_condition_fn": self.retry_condition_fn,
            "viz_return_value": self.viz_return_value,
        }
        if "cache_policy" in given and "cache_key_fn" not in given:
            options["cache_key_fn"] = None
        return self._with({**options, **given})

    def on_rollback(self, fn: H) -> H:
        """A decorator: `fn(transaction)` undoes what a run did."""
        return self._hooked(self.on_rollback_hooks, fn, "on_rollback")

    def on_commit(self, fn: H) -> H:
        """A decorator: `fn(transaction)` is called when what a run did is committed."""
        return self._hooked(self.on_commit_hooks, fn, "on_commit")


def _default_of(name: str) -> int:
    value = os.environ.get(f"WHENTHEN_TASK_{name}", "0")
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"WHENTHEN_TASK_{name}={value!r} is no whole number") from None


def checked_tags(tags: Any, where: str) -> set[str]:
    if isinstance(tags, str):
        raise TypeError(f"{where}: 'tags' must be a list of texts; got the text {tags!r}: write tags=[{tags!r}]")
    check(where, OPTIONS, {"tags": tags})
    listed = set(tags or ())
    check(where, OPTIONS, {"tags": listed})
    return listed


def _kept(
    made: Task[..., Any], policy: Any, persist: bool | None, where: str
) -> tuple[CachePolicy | None, bool | None]:
    """The cache policy, and whether results are kept. Asking for a policy or a place is asking for results to be kept."""
    if made.cache_key_fn is not None:
        if policy is not NotSet:
            engine_logger().warning("%s: both cache_policy and cache_key_fn are given; cache_key_fn is used", where)
        if not callable(made.cache_key_fn):
            raise TypeError(f"{where}: 'cache_key_fn' must be callable; got {made.cache_key_fn!r:.80}")
        policy = CachePolicy.from_cache_key_fn(made.cache_key_fn)
    if policy is not NotSet and policy is not None and not isinstance(policy, CachePolicy):
        raise TypeError(f"{where}: 'cache_policy' must be a cache policy such as INPUTS; got {policy!r:.80}")
    caches = policy is not NotSet and policy is not None and policy != NO_CACHE
    if persist is None and (
        caches
        or made.result_storage_key is not None
        or made.result_storage is not None
        or made.result_serializer is not None
    ):
        persist = True
    if persist is False:
        if caches:
            engine_logger().warning("%s: cache_policy is ignored, because persist_result is False", where)
        return NO_CACHE, persist
    if policy is NotSet or isinstance(policy, type):
        return (DEFAULT if made.result_storage_key is None else None), persist
    return policy, persist


@overload
def task(__fn: Callable[P, R]) -> Task[P, R]: ...


@overload
def task(
    __fn: None = None,
    *,
    name: str | None = None,
    description: str | None = None,
    tags: Iterable[str] | None = None,
    version: str | None = None,
    cache_policy: CachePolicy | type[NotSet] | None = NotSet,
    cache_key_fn: Callable[[Any, dict[str, Any]], str | None] | None = None,
    cache_expiration: timedelta | None = None,
    task_run_name: str | Callable[..., str] | None = None,
    retries: int | None = None,
    retry_delay_seconds: Delay = None,
    retry_jitter_factor: float | None = None,
    persist_result: bool | None = None,
    result_storage: Any = None,
    result_serializer: Any = None,
    result_storage_key: str | None = None,
    cache_result_in_memory: bool = True,
    timeout_seconds: float | None = None,
    log_prints: bool | None = None,
    refresh_cache: bool | None = None,
    on_completion: Hooks = None,
    on_failure: Hooks = None,
    on_running: Hooks = None,
    on_rollback: Hooks = None,
    on_commit: Hooks = None,
    retry_condition_fn: Callable[..., Any] | None = None,
    viz_return_value: Any = None,
    asset_deps: Any = None,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def task(__fn: Any = None, **options: Any) -> Any:
    """Make a task of a function. Options are those of `Task`."""
    checked_options(options, Task, "task")
    if __fn is None:
        return lambda fn: Task(fn, **options)
    return Task(__fn, **options)


@checked_arguments(backoff_factor=SECONDS)
def exponential_backoff(backoff_factor: float) -> Callable[[int], list[float]]:
    """Delays that double: `backoff_factor`, twice that, and so on; for `retry_delay_seconds`."""

    def delays(retries: int) -> list[float]:
        return [backoff_factor * 2**number for number in range(min(retries, 50))]

    return delays
