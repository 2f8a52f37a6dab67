"""Values drawn from bytes: what a fuzzer mutates becomes rules, events and JSON of bounded size.

The same bytes give the same values on every machine, and bytes that have run out are zeros, so that any input is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

__all__ = ["Draws"]

T = TypeVar("T")

NUMBERS: tuple[Any, ...] = (
    0, 1, -1, 2, 1.0, -0.0, 0.1, 1.5, 5, 100, 1e308, -1e308, 5e-324, 2**31, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1,
)  # fmt: skip
TEXTS = (
    "", "a", "b", "x", "y", "k", "id", "a.b", "*", "a*", "!x", "[1]", "$.payload.n", "{{ x }}", " ", "é", "\U0001f600", "\x7f",
    "\u2028", "0", "1", "true", "null", "2026-01-31T08:00:00Z", "%41", "a" * 200,
)  # fmt: skip


class Draws:
    """Reads values off the front of `data`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return len(self._data) - self._at

    def byte(self) -> int:
        if self._at >= len(self._data):
            return 0
        self._at += 1
        return self._data[self._at - 1]

    def bytes(self, count: int) -> bytes:
        """The next `count` bytes, fewer at the end."""
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        span = high - low
        drawn = self.byte()
        if span > 255:
            drawn = drawn << 8 | self.byte()
        return low + drawn % (span + 1)

    def one_in(self, count: int) -> bool:
        """True for one byte of `count`; false when the bytes have run out."""
        return self.byte() % count == count - 1

    def pick(self, options: Sequence[T]) -> T:
        return options[self.byte() % len(options)]

    def text(self) -> str:
        """A text: mostly a known one, else what the bytes say."""
        if self.one_in(4):
            return self.bytes(self.number(0, 24)).decode("utf-8", "replace")
        return self.pick(TEXTS)

    def json(self, depth: int = 3) -> Any:
        """A JSON value, at most `depth` levels of it and some dozens of items."""
        kind = self.byte() % (8 if depth else 6)
        if kind == 0:
            return None
        if kind == 1:
            return self.one_in(2)
        if kind in (2, 3):
            return self.pick(NUMBERS)
        if kind in (4, 5):
            return self.text()
        if kind == 6:
            return [self.json(depth - 1) for _ in range(self.number(0, 3))]
        return {self.text(): self.json(depth - 1) for _ in range(self.number(0, 3))}
