"""Waiting for several futures: `wait`, `as_completed`, and collections with futures in them made to states or results."""

from __future__ import annotations

import queue
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

from whenthen.flows.argument_kinds import FUTURES, SECONDS, checked_arguments
from whenthen.flows.clock import LONGEST_WAIT_S, steady
from whenthen.flows.execution.run_contexts import FLOW, place_given_away
from whenthen.flows.flow_errors import ArgumentError
from whenthen.flows.futures.future import PrefectFuture, wait_for_all
from whenthen.flows.futures.inputs import futures_in, resolved, states_for_futures

R = TypeVar("R")


class DoneAndNotDoneFutures(NamedTuple):
    done: set[PrefectFuture[Any]]
    not_done: set[PrefectFuture[Any]]


@checked_arguments(futures=FUTURES, timeout=SECONDS.or_none)
def wait(futures: Iterable[PrefectFuture[Any]], timeout: float | None = None) -> DoneAndNotDoneFutures:
    """Wait until all futures have ended, or `timeout` seconds; tell which have and which have not."""
    given = _futures(futures, "wait")
    wait_for_all(given, timeout)
    done = {future for future in given if future.done()}
    return DoneAndNotDoneFutures(done, set(given) - done)


@checked_arguments(futures=FUTURES, timeout=SECONDS.or_none)
def as_completed(futures: Iterable[PrefectFuture[R]], timeout: float | None = None) -> Iterator[PrefectFuture[R]]:
    """The futures in the order in which their runs end, each once. Whether one of them waits for this run is not looked for.

    Raises:
        TimeoutError: not all have ended after `timeout` seconds.
    """
    given = dict.fromkeys(_futures(futures, "as_completed"))
    limit = None if timeout is None else steady() + min(timeout, LONGEST_WAIT_S)
    ended: queue.SimpleQueue[PrefectFuture[R] | None] = queue.SimpleQueue()
    flow = FLOW.get()
    scope = flow.scope if flow is not None else None

    def wake() -> None:
        ended.put(None)

    if scope is not None:
        scope.add(wake)
    try:
        for future in given:
            future.add_done_callback(ended.put)
        for number in range(len(given)):
            try:
                next_one = _taken(ended, None if limit is None else max(0.0, limit - steady()))
            except queue.Empty:
                raise TimeoutError(
                    f"{len(given) - number} (of {len(given)}) futures unfinished after {timeout} seconds"
                ) from None
            if next_one is None:
                if scope is not None:
                    scope.check()
                continue
            yield next_one
    finally:
        if scope is not None:
            scope.remove(wake)
        for future in given:
            future.remove_done_callback(ended.put)


def _futures(given: Iterable[PrefectFuture[R]], where: str) -> list[PrefectFuture[R]]:
    listed = list(given)
    for one in listed:
        if not isinstance(one, PrefectFuture):
            raise ArgumentError(f"{where}: futures are what .submit(...) and .map(...) give; found {one!r:.80}")
    return listed


def _taken(ended: queue.SimpleQueue[R], seconds: float | None) -> R:
    """The next of `ended`; where it has to be waited for, another run may work in the place of this one meanwhile."""
    if not ended.empty():  # nobody else takes of it
        return ended.get()
    with place_given_away():
        return ended.get(timeout=seconds)


def resolve_futures_to_states(value: Any) -> Any:
    """`value` with final states in the place of its futures, which are waited for."""
    wait_for_all(futures_in(value))
    return states_for_futures(value)


def resolve_futures_to_results(value: Any) -> Any:
    """`value` with results in the place of its futures, which are waited for.

    Raises:
        UpstreamTaskError: one did not complete.
    """
    wait_for_all(futures_in(value))
    return resolved(value)
