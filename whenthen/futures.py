"""Prefect's `futures`: runs that were submitted, and waiting for several of them."""

from whenthen.flows.futures.future import PrefectFuture, PrefectFutureList
from whenthen.flows.futures.waiting import (
    DoneAndNotDoneFutures,
    as_completed,
    resolve_futures_to_results,
    resolve_futures_to_states,
    wait,
)

#: the one class of futures of tasks
PrefectConcurrentFuture = PrefectFuture

__all__ = [
    "DoneAndNotDoneFutures",
    "PrefectConcurrentFuture",
    "PrefectFuture",
    "PrefectFutureList",
    "as_completed",
    "resolve_futures_to_results",
    "resolve_futures_to_states",
    "wait",
]
