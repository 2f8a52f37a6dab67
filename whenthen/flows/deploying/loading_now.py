"""Whether a file of flows is being loaded at the moment: a `serve(...)` in it that is not below `if __name__ == "__main__"` would wait for ever."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["is_loading", "loading"]

_LOADING: ContextVar[bool] = ContextVar("whenthen.loading", default=False)


@contextmanager
def loading() -> Iterator[None]:
    """In the block a file is loaded."""
    token = _LOADING.set(True)
    try:
        yield
    finally:
        _LOADING.reset(token)


def is_loading() -> bool:
    return _LOADING.get()
