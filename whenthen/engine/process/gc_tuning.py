"""What Python's garbage collector looks at while a process takes its rules, and afterwards.

Thousands of rules are millions of objects that stay. As the collector looks at everything again whenever a quarter was added, it
would look at them several times while they are made, and stop the event loop for it later. Called by `server` at the
start and the end, and by `reloading` when rules are replaced.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

__all__ = ["loading", "unfreeze"]

#: new objects before the young ones are looked at, and how many of those looks before a look at the next older ones; templates
#: leave cycles behind, so young objects are collected also while rules are made
_YOUNG = (10_000, 10)
_NEVER = 1_000_000


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Inside, only young objects are collected; what is there at the end is left out of collections until `unfreeze`."""
    before = gc.get_threshold()
    gc.set_threshold(*_YOUNG, _NEVER)
    try:
        yield
        gc.freeze()
    finally:
        gc.set_threshold(*before)


def unfreeze() -> None:
    """Let everything be collected again: what was left out is no longer sure to stay."""
    gc.unfreeze()
