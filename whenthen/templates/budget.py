"""The budget of one rendering, counted in steps, characters and visited values and never in time: the result is the same on every
machine.

Used by `templates.text` and the modules that bound what templates do (`bounded_text`, `guards`, `own_filters`). A step is about
ten evaluated nodes of a template's syntax tree, one visited item of a structure, or 64 copied characters. Meaning:
docs/templates.md, "Budget".
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import Any

from jinja2.runtime import Undefined

from whenthen.schemas.errors import RenderError

__all__ = ["MAX_CHARS", "MAX_STEPS", "MAX_VISITS", "Budget"]

#: steps of one render
MAX_STEPS = 500_000
#: characters of one rendered text, and of any text made on the way
MAX_CHARS = 1_000_000
#: all text written by one render, macro bodies and set blocks included
MAX_WRITTEN = 4 * MAX_CHARS
#: values that the paths of one render may visit; a filter visits those that it compares, and 64 characters of a text count
#: as one
MAX_VISITS = 1_000_000
#: characters that are copied for one step
CHARS_PER_STEP = 64
#: characters that are searched for one step; in short texts Python may compare at every place
SEARCHED_PER_STEP = 32
#: items of a list that are copied for one step
ITEMS_PER_STEP = 8

_SIZED = (list, tuple, dict, set, frozenset, range, KeysView, ValuesView, ItemsView)


class Budget:
    """The remaining budget of one rendering; beyond it `RenderError` is raised."""

    __slots__ = ("steps", "visits", "written")

    def __init__(self) -> None:
        self.steps = MAX_STEPS
        self.written = MAX_WRITTEN
        self.visits = MAX_VISITS

    def spend(self, steps: int) -> None:
        """Charge `steps`.

        Raises:
            RenderError: the budget is spent.
        """
        self.steps -= steps
        if self.steps < 0:
            raise RenderError(
                f"the template needs more than {MAX_STEPS} steps; loop over less, or send the event with less data"
            )

    def write(self, text: str) -> None:
        """Charge text that is written to an output, at any depth."""
        self.written -= len(text)
        if self.written < 0:
            raise too_long(MAX_WRITTEN)

    def room(self, chars: int) -> None:
        """Charge a text or list of this length before it is created."""
        if chars > MAX_CHARS:
            raise too_long(chars)
        self.spend(chars // CHARS_PER_STEP)

    def make(self, items: int) -> None:
        """Charge a list of this length before it is created."""
        if items > MAX_CHARS:
            raise RenderError(f"a list would have {items} items; at most {MAX_CHARS} are allowed")
        self.spend(items // ITEMS_PER_STEP)

    def search(self, chars: int, part: int) -> None:
        """Charge a search for `part` characters in `chars`."""
        if part <= chars:
            self.spend((chars + part) // SEARCHED_PER_STEP)

    def glance(self, value: Any) -> None:
        """Charge work that is proportional to the length of `value`, not to the contents of its items."""
        if isinstance(value, str):
            self.spend(len(value) // CHARS_PER_STEP)
        elif isinstance(value, _SIZED):
            self.spend(len(value) // 16)

    def walk(self, value: Any) -> None:
        """Charge everything inside `value`, shared parts once for each occurrence.

        Raises:
            RenderError: it is larger than the budget.
            UndefinedError: a missing value is part of it.
        """
        chars = 0
        stack = [value]
        while stack:
            item = stack.pop()
            if isinstance(item, str):
                chars += len(item)
                if chars > MAX_WRITTEN:
                    raise too_long(chars)
            elif isinstance(item, dict):
                self.spend(1 + len(item))
                stack.extend(item)
                stack.extend(item.values())
            elif isinstance(item, range):
                self.spend(1 + len(item))
            elif isinstance(item, _SIZED):
                self.spend(1 + len(item))
                stack.extend(item)
            elif isinstance(item, Undefined):
                bool(item)  # a strict undefined value raises with its own message
        self.spend(chars // CHARS_PER_STEP)

    def meter(self, value: Any, *, deep: bool = False) -> Any:
        """`value`, after charging it; an iterator is charged item by item as it is consumed."""
        if isinstance(value, Iterator):
            return self._count(value, deep)
        if isinstance(value, str) and len(value) > MAX_CHARS:
            raise too_long(len(value))
        if deep:
            self.walk(value)
        else:
            self.glance(value)
        return value

    def _count(self, items: Iterator[Any], deep: bool) -> Iterator[Any]:
        for item in items:
            self.spend(1)
            if deep:
                self.walk(item)
            else:
                self.glance(item)
            yield item


def too_long(chars: int) -> RenderError:
    return RenderError(f"the text would have {chars} characters or more; at most {MAX_CHARS} are allowed")
