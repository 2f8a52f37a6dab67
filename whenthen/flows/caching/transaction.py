"""Transactions: what tasks did is committed together, or rolled back together in reverse order. Meaning: docs/flows.md, "Transactions".

Every task run is a transaction. In the `with` block of another one it is staged, and committed or rolled back with that; otherwise it
commits when the task has returned. Committing runs the commit hooks and keeps the results.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar, Token
from datetime import datetime
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any

from whenthen.flows.argument_kinds import TEXT, TRUTH, Kind, checked_arguments
from whenthen.flows.caching.cache_policy import IsolationLevel
from whenthen.flows.caching.key_locks import held_lock
from whenthen.flows.caching.result_store import ResultStore
from whenthen.flows.execution.run_contexts import FLOW, TASK, current_run
from whenthen.flows.execution.run_logging import engine_logger, logger_of
from whenthen.flows.execution.timed_call import run_coroutine
from whenthen.flows.flow_errors import SerializationError

__all__ = [
    "CommitMode",
    "IsolationLevel",
    "Transaction",
    "TransactionState",
    "atransaction",
    "get_transaction",
    "transaction",
]

MISSING: Any = object()
Hook = Callable[["Transaction"], Any]


class CommitMode(StrEnum):
    EAGER = "EAGER"  #: commit when the block ends, whatever is around it
    LAZY = "LAZY"  #: commit with the transaction around it; the outermost when its block ends
    OFF = "OFF"  #: roll back unless `commit()` was called


class TransactionState(StrEnum):
    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    STAGED = "STAGED"
    COMMITTED = "COMMITTED"
    ROLLED_BACK = "ROLLED_BACK"


#: the states after which nothing more happens
SETTLED = (TransactionState.COMMITTED, TransactionState.ROLLED_BACK)


class Transaction:
    """One transaction, with those that were staged in it."""

    __slots__ = (
        "_lock",
        "_token",
        "_values",
        "children",
        "commit_mode",
        "expires",
        "isolation_level",
        "key",
        "logger",
        "on_commit_hooks",
        "on_rollback_hooks",
        "overwrite",
        "parent",
        "path",
        "staged_value",
        "state",
        "store",
        "stored",
        "write_on_commit",
    )

    def __init__(
        self,
        *,
        key: str | None = None,
        store: ResultStore | None = None,
        path: Path | None = None,
        commit_mode: CommitMode | None = None,
        isolation_level: IsolationLevel | None = None,
        overwrite: bool = False,
        write_on_commit: bool = True,
        logger: Any = None,
    ) -> None:
        self.key = key
        self.logger = logger  #: of what hooks are run; that of the run where there is none
        self.store = store
        self.path = path
        self.commit_mode = commit_mode
        self.isolation_level = isolation_level
        self.overwrite = overwrite
        self.write_on_commit = write_on_commit
        self.state = TransactionState.PENDING
        self.children: list[Transaction] = []
        self.on_commit_hooks: list[Hook] = []
        self.on_rollback_hooks: list[Hook] = []
        self.parent: Transaction | None = None
        self.staged_value: Any = MISSING
        self.expires: datetime | None = None
        self.stored: tuple[Any] | None = None  #: the kept result, if there was one at the beginning
        self._values: dict[str, Any] = {}
        self._token: Token[Transaction | None] | None = None
        self._lock: Any = None

    def set(self, name: str, value: Any) -> None:
        """Keep a value for hooks and for the transactions inside."""
        self._values[name] = value

    def get(self, name: str, default: Any = MISSING) -> Any:
        """A copy of the value that was set here or in a transaction around.

        Raises:
            ValueError: there is none, and no default.
        """
        above: Transaction | None = self
        while above is not None:
            if name in above._values:
                return copy.deepcopy(above._values[name])
            above = above.parent
        if default is MISSING:
            raise ValueError(
                f"Could not retrieve value for unknown key: {name}; it was set in no transaction around this one"
            )
        return default

    def is_pending(self) -> bool:
        return self.state is TransactionState.PENDING

    def is_active(self) -> bool:
        return self.state is TransactionState.ACTIVE

    def is_staged(self) -> bool:
        return self.state is TransactionState.STAGED

    def is_committed(self) -> bool:
        return self.state is TransactionState.COMMITTED

    def is_rolled_back(self) -> bool:
        return self.state is TransactionState.ROLLED_BACK

    @classmethod
    def get_active(cls) -> Transaction | None:
        return ACTIVE.get()

    def get_parent(self) -> Transaction | None:
        return self.parent

    def read(self) -> Any:
        """The kept result, once the transaction has begun and is committed by it."""
        return None if self.stored is None else self.stored[0]

    def stage(
        self, value: Any, on_rollback_hooks: list[Hook] | None = None, on_commit_hooks: list[Hook] | None = None
    ) -> None:
        """Take `value` to be kept when committed, and hooks to be run."""
        if self.state is not TransactionState.COMMITTED:
            self.staged_value = value
            self.on_rollback_hooks += on_rollback_hooks or []
            self.on_commit_hooks += on_commit_hooks or []
            self.state = TransactionState.STAGED

    def begin(self) -> None:
        """Enter: from here on this is the innermost transaction. A kept result commits it at once."""
        self.parent = ACTIVE.get()
        if self.commit_mode is None:
            self.commit_mode = self.parent.commit_mode if self.parent is not None else CommitMode.LAZY
        if self.isolation_level is None:
            self.isolation_level = (
                self.parent.isolation_level if self.parent is not None else IsolationLevel.READ_COMMITTED
            )
        self.state = TransactionState.ACTIVE
        if self.store is not None and self.path is not None:
            if self.isolation_level is IsolationLevel.SERIALIZABLE:
                self._lock = held_lock(self.path)
            if not self.overwrite:
                self.stored = self.store.read(self.path)
                if self.stored is not None:
                    self.state = TransactionState.COMMITTED
        self._token = ACTIVE.set(self)

    def end(self, error: BaseException | None = None) -> None:
        """Leave: with `error` roll back, this and those around it, otherwise commit, or leave that to the transaction around."""
        assert self._token is not None
        ACTIVE.reset(self._token)
        self._token = None
        if error is not None:
            self.rollback()
        elif self.commit_mode is CommitMode.EAGER:
            self.commit()
        if self.parent is not None:
            self.parent.children.append(self)
            if self.state is TransactionState.ROLLED_BACK:
                self.parent.rollback()
            return
        if error is None:
            if self.commit_mode is CommitMode.OFF:
                self.rollback()
            else:
                self.commit()

    def commit(self) -> bool:
        """Commit what was staged inside, run the commit hooks, keep the result; False when that is settled or fails.

        A hook or child that fails rolls the whole transaction back. A result that can not be written is lost with a warning and no more:
        the work is done.
        """
        if self.state in SETTLED:
            self._let_go()
            return False
        try:
            for child in self.children:
                child.commit()
            for hook in self.on_commit_hooks:
                self._run(hook, "commit")
        except Exception:
            engine_logger().exception("a commit hook failed, so the transaction is rolled back")
            self.rollback()
            return False
        self._keep()
        self.state = TransactionState.COMMITTED
        self._let_go()
        return True

    def leave(self) -> None:
        """Leave as if it had never been: for a try that failed and is made again."""
        assert self._token is not None
        ACTIVE.reset(self._token)
        self._token = None
        self._let_go()

    def rollback(self) -> bool:
        """Run the rollback hooks, last first, then those of the transactions staged inside, last first.

        A hook that fails is logged and stops no other.
        """
        if self.state in SETTLED:
            return False
        whole = True
        for hook in reversed(self.on_rollback_hooks):
            try:
                self._run(hook, "rollback")
            except Exception:
                engine_logger().exception("a rollback hook failed; the others are run")
                whole = False
        self.state = TransactionState.ROLLED_BACK
        for child in reversed(self.children):
            whole = child.rollback() and whole
        self._let_go()
        return whole

    def _run(self, hook: Hook, kind: str) -> None:
        run = current_run()
        logger: Any = self.logger or (logger_of(run) if run is not None else engine_logger())
        logger.debug("Running %s hook %r", kind, getattr(hook, "__name__", hook))
        value = hook(self)
        if hasattr(value, "__await__"):
            run_coroutine(value)

    def _keep(self) -> None:
        if self.store is None or self.path is None or not self.write_on_commit:
            return
        try:
            self.store.write(
                self.path, None if self.staged_value is MISSING else self.staged_value, expires=self.expires
            )
        except (SerializationError, OSError) as problem:
            engine_logger().warning("the result is not kept, the run goes on: %s", problem)

    def _let_go(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def __enter__(self) -> Transaction:
        self.begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.end(error)


def _one_of(values: type[Enum]) -> Kind:
    names = [str(one.value) for one in values]
    return Kind(f"one of {values.__name__}: {', '.join(names)}", lambda value: value in list(values) or value in names)


ACTIVE: ContextVar[Transaction | None] = ContextVar("whenthen.transaction", default=None)


def get_transaction() -> Transaction | None:
    """The innermost transaction, if there is one."""
    return ACTIVE.get()


TRANSACTION = {
    "key": TEXT.or_none,
    "store": Kind("a ResultStore", lambda value: isinstance(value, ResultStore)).or_none,
    "commit_mode": _one_of(CommitMode).or_none,
    "isolation_level": _one_of(IsolationLevel).or_none,
    "overwrite": TRUTH,
    "write_on_commit": TRUTH,
}


@contextmanager
@checked_arguments(**TRANSACTION)
def transaction(
    key: str | None = None,
    store: ResultStore | None = None,
    commit_mode: CommitMode | None = None,
    isolation_level: IsolationLevel | None = None,
    overwrite: bool = False,
    write_on_commit: bool = True,
    logger: logging.Logger | None = None,
) -> Iterator[Transaction]:
    """What is done in this block is committed together when it ends, and rolled back when it raises.

    With a `key` the transaction is kept: the next one of this key is committed when it begins (`is_committed()`).
    """
    if key is not None and store is None:
        task, flow = TASK.get(), FLOW.get()
        storage = (task.task.result_storage if task is not None else None) or (
            flow.flow.result_storage if flow is not None else None
        )
        store = ResultStore(storage)
    with Transaction(
        key=key,
        store=store,
        path=store.path(key) if store is not None and key is not None else None,
        commit_mode=None if commit_mode is None else CommitMode(commit_mode),
        isolation_level=None if isolation_level is None else IsolationLevel(isolation_level),
        overwrite=overwrite,
        write_on_commit=write_on_commit,
        logger=logger,
    ) as made:
        yield made


@asynccontextmanager
@checked_arguments("transaction", **TRANSACTION)
async def atransaction(
    key: str | None = None,
    store: ResultStore | None = None,
    commit_mode: CommitMode | None = None,
    isolation_level: IsolationLevel | None = None,
    overwrite: bool = False,
    write_on_commit: bool = True,
    logger: logging.Logger | None = None,
) -> AsyncIterator[Transaction]:
    """As `transaction`, for `async with`."""
    with transaction(key, store, commit_mode, isolation_level, overwrite, write_on_commit, logger) as made:
        yield made
