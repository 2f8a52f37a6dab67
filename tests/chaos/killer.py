"""SIGKILL at random moments: seeded in whom, blind to what the victim does just then.

Most kills wait until events were taken since the last one, so that on a slow machine, too, there is something to lose; the
others come at once and hit what is just starting.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from tests.chaos.house import House

__all__ = ["kill_at_random"]

_BLACKOUT = 0.04  #: share of kills that take everything at once, as a machine that reboots
_CHANGED = 0.15  #: share of kills that other rules come just before, beside those at a third and at two thirds
_ROLLED_OUT = 0.04  #: share of kills beside which a rolling deploy begins, beside the first one, at a quarter
_AT_ONCE = 0.25  #: share of kills that do not wait for progress
_PATIENCE_S = 60.0  #: for progress


async def kill_at_random(
    house: House, seed: int, *, kills: int, every_s: float, progress: Callable[[], int], until_s: float
) -> int:
    """Kill `kills` processes of the house, one about each `every_s`, or as many as come before `until_s` is over.

    Gives how often everything went at once.
    """
    chance = random.Random(seed)
    began = time.monotonic()
    blackouts = done = 0
    rolling: asyncio.Task[None] | None = None
    while done < kills and time.monotonic() - began < until_s:
        before = progress()
        await asyncio.sleep(every_s * chance.uniform(0.3, 1.7))
        if chance.random() > _AT_ONCE:
            patient = time.monotonic() + _PATIENCE_S
            while progress() == before and time.monotonic() < patient:
                await asyncio.sleep(0.02)
            await asyncio.sleep(chance.uniform(0, 0.5))
        if chance.random() < _CHANGED or house.rule_changes < 3 * done // kills:
            house.change_rules()
            await asyncio.sleep(chance.uniform(0, 0.6))  # what is killed then sees, publishes or follows it
        if rolling is None or rolling.done():
            if rolling is not None:
                rolling.result()
            if chance.random() < _ROLLED_OUT or (rolling is None and 4 * done >= kills):
                rolling = asyncio.create_task(house.roll_out(random.Random(chance.random())), name="roll out")
        victims = house.victims()
        if chance.random() < _BLACKOUT:
            blackouts += 1
            done += sum(kill() for _, kill in victims.values())
            continue
        kinds = sorted(victims)
        kind = chance.choices(kinds, [victims[name][0] for name in kinds])[0]
        done += victims[kind][1]()
    if rolling is not None:
        await rolling
    return blackouts
