"""Work that is done side by side and ended together: nobody is left with a failure that nobody looked at."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from whenthen.cancellation import until_all_end, until_one_ends


async def waits() -> None:
    await asyncio.Event().wait()


async def fails() -> None:
    raise RuntimeError("closed")


def together_of_one(*work: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None]:
    return until_one_ends(*work)


def together_of_all(*work: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None]:
    return until_all_end(work)


@pytest.mark.parametrize("together", [together_of_one, together_of_all])
def test_a_failure_at_the_moment_of_a_cancellation_is_looked_at(
    together: Callable[..., Coroutine[Any, Any, None]],
) -> None:
    untold: list[dict[str, Any]] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: untold.append(context))
        task = asyncio.ensure_future(together(fails(), waits(), fails()))
        await asyncio.sleep(0)  # it waits, and its work has not begun
        await asyncio.sleep(0)  # which has failed now, of which it has not heard
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled() or task.exception() is not None
        del task
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(run())
    assert untold == []


@pytest.mark.parametrize("together", [together_of_one, together_of_all])
def test_the_first_failure_is_raised(together: Callable[..., Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        with pytest.raises(RuntimeError, match="closed"):
            await together(waits(), fails())

    asyncio.run(run())
