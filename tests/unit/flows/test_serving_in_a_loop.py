"""`aserve` in an event loop: the first cancellation drains, the second one ends at once."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tests.patience import eventually, until
from whenthen.flows.flow_errors import ServerError
from whenthen.flows.serving.served_script import ServedScript


class Busy(ServedScript):
    """One with runs that do not finish."""

    def __init__(self) -> None:
        super().__init__([])
        self.begun = False
        self.ended = threading.Event()

    @property
    def stops(self) -> int:
        return self._stops

    def _serve(self) -> None:
        self.begun = True
        eventually(lambda: self._stops > 1)
        self.ended.set()


class Broken(ServedScript):
    def _serve(self) -> None:
        raise ServerError("the worker has ended")


def test_the_second_cancellation_ends_what_the_first_one_lets_finish() -> None:
    async def main() -> None:
        script = Busy()
        serving = asyncio.create_task(script.run_in_loop())

        async def begun() -> bool:
            return script.begun

        async def told_once() -> bool:
            return script.stops == 1

        await until(begun)
        serving.cancel()
        await until(told_once)
        assert not serving.done()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:  # as `asyncio.run` does after a second Ctrl-C
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert script.stops == 2
        assert script.ended.is_set()

    asyncio.run(main())


def test_what_ends_the_serving_is_raised() -> None:
    with pytest.raises(ServerError, match="the worker has ended"):
        asyncio.run(Broken([]).run_in_loop())
