"""From what the key of a task's kept result is made: inputs, source, flow parameters, run. Keys are pure functions of these.

Policies are combined: `INPUTS + TASK_SOURCE` is both, `INPUTS - "session"` leaves a parameter out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whenthen import python_syntax
from whenthen.flows.caching.value_hash import stable_hash
from whenthen.flows.flow_errors import HashError

if TYPE_CHECKING:
    from whenthen.flows.execution.run_contexts import TaskRunContext

__all__ = [
    "DEFAULT",
    "FLOW_PARAMETERS",
    "INPUTS",
    "NONE",
    "NO_CACHE",
    "RUN_ID",
    "TASK_SOURCE",
    "CachePolicy",
    "CompoundCachePolicy",
    "IsolationLevel",
    "task_input_hash",
]

KeyFunction = Callable[[Any, dict[str, Any]], "str | None"]


class IsolationLevel(StrEnum):
    READ_COMMITTED = "READ_COMMITTED"
    SERIALIZABLE = "SERIALIZABLE"


@dataclass(frozen=True)
class CachePolicy:
    """How a key is made; and, where configured, where results are kept and whether equal runs wait for each other."""

    key_storage: Any = field(default=None, kw_only=True)
    isolation_level: IsolationLevel | None = field(default=None, kw_only=True)
    lock_manager: Any = field(default=None, kw_only=True)

    @staticmethod
    def from_cache_key_fn(cache_key_fn: KeyFunction) -> CachePolicy:
        return CacheKeyFnPolicy(cache_key_fn=cache_key_fn)

    def configure(
        self,
        key_storage: str | Path | Any = None,
        lock_manager: Any = None,
        isolation_level: IsolationLevel | str | None = None,
    ) -> CachePolicy:
        """The policy with another place for results, or with `SERIALIZABLE` isolation."""
        level = self.isolation_level if isolation_level is None else IsolationLevel(isolation_level)
        return replace(
            self,
            key_storage=self.key_storage if key_storage is None else key_storage,
            lock_manager=lock_manager or self.lock_manager,
            isolation_level=level,
        )

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **more: Any
    ) -> str | None:
        """The key of a run, or None when it is not to be kept.

        Raises:
            HashError: an input has no stable hash.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define compute_key(task_ctx, inputs, flow_parameters, **more)"
        )

    def __add__(self, other: CachePolicy) -> CachePolicy:
        if not isinstance(other, CachePolicy):
            return NotImplemented
        if isinstance(other, NoCache):
            return self
        for name in ("key_storage", "isolation_level", "lock_manager"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine is not None and theirs is not None and mine != theirs:
                raise ValueError(f"cache policies with different {name} can not be added: {mine!r} and {theirs!r}")
        return CompoundCachePolicy(
            policies=(*_parts_of(self), *_parts_of(other)),
            key_storage=self.key_storage or other.key_storage,
            isolation_level=self.isolation_level or other.isolation_level,
            lock_manager=self.lock_manager or other.lock_manager,
        )

    def __sub__(self, name: str) -> CachePolicy:
        if not isinstance(name, str):
            raise TypeError(f"from a cache policy a parameter is taken by name: INPUTS - 'session'; got {name!r:.80}")
        return self


@dataclass(frozen=True)
class CacheKeyFnPolicy(CachePolicy):
    cache_key_fn: KeyFunction | None = None

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **more: Any
    ) -> str | None:
        return None if self.cache_key_fn is None else self.cache_key_fn(task_ctx, inputs)


@dataclass(frozen=True)
class NoCache(CachePolicy):
    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **more: Any
    ) -> str | None:
        return None

    def __add__(self, other: CachePolicy) -> CachePolicy:
        return other


@dataclass(frozen=True)
class TaskSource(CachePolicy):
    """The source of the task's function; its byte code where the source is not at hand."""

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **more: Any
    ) -> str | None:
        return stable_hash(source_of(task_ctx.task.fn))


@dataclass(frozen=True)
class FlowParameters(CachePolicy):
    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **more: Any
    ) -> str | None:
        return stable_hash(flow_parameters) if flow_parameters else None


@dataclass(frozen=True)
class RunId(CachePolicy):
    """The id of the flow run; of the task run where there is no flow."""

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **more: Any
    ) -> str | None:
        return str(task_ctx.task_run.flow_run_id or task_ctx.task_run.id)


@dataclass(frozen=True)
class Inputs(CachePolicy):
    exclude: tuple[str, ...] = ()

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **more: Any
    ) -> str | None:
        if not inputs:
            return None
        return stable_hash({name: value for name, value in inputs.items() if name not in self.exclude})

    def __sub__(self, name: str) -> CachePolicy:
        super().__sub__(name)
        return replace(self, exclude=tuple(sorted({*self.exclude, name})))


@dataclass(frozen=True)
class CompoundCachePolicy(CachePolicy):
    """The keys of several policies together; those that have none are left out."""

    policies: tuple[CachePolicy, ...] = ()

    def __post_init__(self) -> None:
        flat = [part for policy in self.policies for part in _parts_of(policy)]
        inputs = [policy for policy in flat if isinstance(policy, Inputs)]
        others = [policy for policy in flat if not isinstance(policy, Inputs)]
        if inputs:
            others.append(Inputs(exclude=tuple(sorted({name for policy in inputs for name in policy.exclude}))))
        object.__setattr__(self, "policies", tuple(others))

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **more: Any
    ) -> str | None:
        keys = [policy.compute_key(task_ctx, inputs, flow_parameters, **more) for policy in self.policies]
        found = [key for key in keys if key is not None]
        return stable_hash(*found) if found else None

    def __sub__(self, name: str) -> CachePolicy:
        super().__sub__(name)
        return replace(self, policies=tuple(policy - name for policy in self.policies))


def _parts_of(policy: CachePolicy) -> tuple[CachePolicy, ...]:
    return policy.policies if isinstance(policy, CompoundCachePolicy) else (policy,)


def source_of(fn: Callable[..., Any]) -> str | bytes:
    """The source of a function, or of the class of a callable object; its byte code where there is no source."""
    target: Any = inspect.unwrap(fn)
    if not inspect.isroutine(target):
        target = getattr(target, "func", type(target))
    try:
        return python_syntax.source_of(target)
    except (OSError, TypeError):
        code = getattr(target, "__code__", None)
        return (
            code.co_code + repr(code.co_consts).encode()
            if code is not None
            else f"{target.__module__}.{target.__qualname__}"
        )


def task_input_hash(context: TaskRunContext, arguments: dict[str, Any]) -> str | None:
    """A `cache_key_fn`: task, byte code and arguments. None, that is no caching, when an argument has no stable hash."""
    code = getattr(inspect.unwrap(context.task.fn), "__code__", None)
    try:
        return stable_hash(context.task.task_key, code.co_code if code is not None else b"", arguments)
    except HashError:
        return None


INPUTS = Inputs()
NO_CACHE = NoCache()
NONE = NO_CACHE
TASK_SOURCE = TaskSource()
FLOW_PARAMETERS = FlowParameters()
RUN_ID = RunId()
DEFAULT = INPUTS + TASK_SOURCE + RUN_ID
