"""The memory that all interpreters of a process may take that wait for runs, whichever of its workers they belong to.

Where there is none left, one of a deployment that ran longer ago makes room. Few load at once, so that a process with many pools does not
start with all of them. Shared by the `warm_pool` of each worker. Meaning: docs/deployments.md, "Warm interpreters".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

__all__ = ["MOST_BYTES", "Waiting", "WarmRoom"]

MOST_BYTES: Final = 256 << 20  #: by default
GUESSED_BYTES: Final = 24 << 20  #: of one whose deployment had none yet: a Python with the imports of a flow
LOADING_AT_ONCE: Final = 2


@dataclass(slots=True, eq=False)
class Waiting:
    """One interpreter."""

    used: Callable[[], float]  #: when its deployment ran last, by the loop's clock; 0: never
    end: Callable[[], object]  #: have it end soon
    bytes: int  #: of memory; a guess until it is loaded
    ready: bool = False
    ending: bool = False


@dataclass(slots=True)
class WarmRoom:
    """Of one process."""

    most_bytes: int = MOST_BYTES
    loading: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LOADING_AT_ONCE))
    _waiting: set[Waiting] = field(default_factory=set)

    def guess(self, known: int) -> int:
        """What one takes, of whose deployment that is known; 0: not yet."""
        return known or min(GUESSED_BYTES, self.most_bytes)

    def has(self, wanted: int, *, used: float) -> bool:
        """Whether there are `wanted` bytes for one of a deployment that ran last when `used` says: as they are, or with others ended that ran
        longer ago, which this does."""
        taken = sum(one.bytes for one in self._waiting if not one.ending)
        older = sorted((one for one in self._waiting if one.ready and not one.ending), key=lambda one: one.used())
        ended: list[Waiting] = []
        for one in older:
            if taken + wanted <= self.most_bytes or one.used() >= used:
                break
            taken -= one.bytes
            ended.append(one)
        if taken + wanted > self.most_bytes:
            return False
        for one in ended:
            one.ending = True
            one.end()
        return True

    def enter(self, one: Waiting) -> None:
        self._waiting.add(one)

    def leave(self, one: Waiting) -> None:
        self._waiting.discard(one)
