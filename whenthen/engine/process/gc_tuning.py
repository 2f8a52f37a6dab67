"""Garbage collector settings while rules are loaded, and afterwards.

Thousands of rules are millions of long-lived objects. A full collection runs whenever their number has grown by a quarter, so
it would traverse them several times during loading, and later block the event loop. Called by the wiring at
start and stop, and by `rule_reloading` when rules are replaced.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

__all__ = ["loading", "unfreeze"]

#: thresholds of generations 0 and 1 during loading; compiling templates leaves reference cycles, so young objects are collected
_YOUNG = (10_000, 10)
_NEVER = 1_000_000


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Inside, only young generations are collected; the objects that exist at the end are frozen until `unfreeze`.

    Of several that overlap the first sets the thresholds of the process, and sets them back.
    """
    before = gc.get_threshold()
    first = before != (*_YOUNG, _NEVER)
    if first:
        gc.set_threshold(*_YOUNG, _NEVER)
    try:
        yield
        gc.freeze()
    finally:
        if first:
            gc.set_threshold(*before)


def unfreeze() -> None:
    """Include frozen objects in collections again, since the rules among them may be garbage now."""
    gc.unfreeze()
