"""The events of a metric window by slices of time: what is kept of those beyond the newest 1,000.

A slice keeps a few numbers and not its events, and their totals are kept as well, so neither an event nor a comparison costs more
with a million events in the window than with ten; a slice that leaves is subtracted.

- `count`: how many events.
- `sum`, `avg`: the exact sum (`metric_exact.scaled`).
- `min`, `max`, percentiles: how many values lie below and at the threshold. The value of rank k lies below the threshold exactly
  when at least k values do, so comparisons are exact, which no sketch of the values would be.
- `distinct`: the values that were seen last, as digests of 48 bits, each with the slice in which it was last seen. More than T values
  are in the window exactly when T + 1 of them are, so the T + 1 that were seen last suffice. Beyond 65,536 of them, a fixed
  share of the values, chosen by digest, is counted (Flajolet 1990, "On adaptive sampling", with a fixed depth): the standard error
  is below 1 / sqrt(65,536) = 0.4 %.

Which of several values that were last seen in the same slice is forgotten does not matter: they leave together.

Stored as [newest time that is in slices alone, [slice, events, number or text, ...], ...]; a sum is hexadecimal with a binary exponent,
digests are Base64. At most 258 slices: 4 KiB for `count`, 8 KiB for ranks, 150 KiB for sums of the wildest floats
(10 KiB for ordinary ones), 8 bytes for each remembered value of `distinct`, 512 KiB at most.

Called by `triggers.windows.metric`. Meaning: docs/rules.md, "Metrics".
"""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from math import floor
from typing import Any

from whenthen.triggers.windows.metric_exact import Reading, rank, read, scaled, unscaled

__all__ = ["Slices"]

_DIGEST_BYTES = 6
_DIGESTS = 1 << (8 * _DIGEST_BYTES)
_MAX_REMEMBERED = 65_536


class Slices:
    """The slices of one window with their totals. `threshold` is that of the comparison."""

    __slots__ = (
        "_kind",
        "_last_seen",
        "_members",
        "_oldest",
        "_oldest_member",
        "_rows",
        "_threshold",
        "_totals",
        "evicted_us",
    )

    def __init__(self, kind: str, threshold: float) -> None:
        self._kind = kind
        self._threshold = threshold
        self._rows: dict[int, list[int]] = {}
        self._oldest = 0  #: the smallest number of a slice, when there is one
        self._totals = [0] * _width(kind)
        self._last_seen: dict[bytes, int] = {}  #: of `distinct`: digest of a value to slice
        self._members: dict[int, dict[bytes, None]] = {}  #: the inverse of `_last_seen`
        self._oldest_member = 0  #: the smallest key of `_members`, when there is one
        self.evicted_us = 0  #: time of the newest event that is in slices alone

    @property
    def events(self) -> int:
        return self._totals[0]

    @property
    def oldest(self) -> int | None:
        """The number of the oldest slice."""
        return self._oldest if self._rows else None

    def add(self, number: int, value: Any) -> None:
        """Add the value of one event to the slice `number`."""
        row = self._rows.get(number)
        if row is None:
            self._oldest = min(number, self._oldest) if self._rows else number
            row = self._rows[number] = [0] * len(self._totals)
        totals = self._totals
        row[0] += 1
        totals[0] += 1
        kind = self._kind
        if kind == "count":
            return
        if kind == "distinct":
            self._see(number, hashlib.blake2b(value.encode(), digest_size=_DIGEST_BYTES).digest())
        elif kind in ("sum", "avg"):
            exact = scaled(value)
            row[1] += exact
            totals[1] += exact
        elif value <= self._threshold:
            at = 1 if value < self._threshold else 2
            row[at] += 1
            totals[at] += 1

    def drop_before(self, number: int) -> None:
        """Subtract the slices before `number`."""
        if not self._rows or self._oldest >= number:
            return
        for old in [each for each in self._rows if each < number]:
            for at, part in enumerate(self._rows.pop(old)):
                self._totals[at] -= part
            for digest in self._members.pop(old, ()):
                del self._last_seen[digest]
        self._oldest = min(self._rows, default=0)
        self._oldest_member = min(self._members, default=0)

    def reading(self) -> Reading:
        """The aggregate over all slices."""
        kind, threshold, totals = self._kind, self._threshold, self._totals
        number = totals[0]
        if kind == "count":
            return read(number, threshold)
        if kind == "sum":
            return read(unscaled(totals[1]), threshold)
        if kind == "distinct":
            return self._distinct()
        if not number:
            return read(None, threshold)
        if kind == "avg":
            return read(unscaled(totals[1]) / number, threshold)
        position = rank(kind, number)
        _, below, equal = totals
        if position <= below:
            return Reading(-1, f"below {threshold:g}, as {below} of {number} values are")
        if position <= below + equal:
            return Reading(0, f"{threshold:g}")
        return Reading(1, f"above {threshold:g}, as {number - below - equal} of {number} values are")

    # -- distinct

    def _distinct(self) -> Reading:
        found, wanted = len(self._last_seen), self._wanted()
        if wanted <= _MAX_REMEMBERED:
            reading = read(found, self._threshold)
            if found >= wanted:
                reading.shown = f"at least {found}"
            return reading
        estimate = found * self._threshold / _MAX_REMEMBERED
        return Reading((found > _MAX_REMEMBERED) - (found < _MAX_REMEMBERED), f"about {estimate:g}")

    def _wanted(self) -> int:
        """How many values decide the comparison."""
        return max(1, floor(self._threshold) + 1)

    def _see(self, number: int, digest: bytes) -> None:
        known = self._last_seen.get(digest)
        if known is not None and known >= number:
            return
        wanted = self._wanted()
        if wanted > _MAX_REMEMBERED:
            if int.from_bytes(digest, "big") * self._threshold >= _MAX_REMEMBERED * _DIGESTS:
                return
            wanted = _MAX_REMEMBERED + 1
        if known is not None:
            self._forget(known, digest)
        self._remember(number, digest)
        if len(self._last_seen) > wanted:
            self._forget(self._oldest_member, next(reversed(self._members[self._oldest_member])))

    def _remember(self, number: int, digest: bytes) -> None:
        self._last_seen[digest] = number
        members = self._members.get(number)
        if members is None:
            self._oldest_member = min(number, self._oldest_member) if self._members else number
            members = self._members[number] = {}
        members[digest] = None

    def _forget(self, number: int, digest: bytes) -> None:
        del self._last_seen[digest]
        members = self._members[number]
        del members[digest]
        if not members:
            del self._members[number]
            if number == self._oldest_member:
                self._oldest_member = min(self._members, default=0)

    # -- storing

    def stored(self) -> list[Any]:
        """As JSON values."""
        rows: list[Any] = []
        for number, row in self._rows.items():
            if self._kind == "distinct":
                rows.append([number, row[0], b64encode(b"".join(self._members.get(number, ()))).decode()])
            elif self._kind in ("sum", "avg"):
                rows.append([number, row[0], _text(row[1])])
            else:
                rows.append([number, *row])
        return [self.evicted_us, *rows]

    @classmethod
    def load(cls, kind: str, threshold: float, stored: list[Any]) -> Slices:
        """What `stored` returned."""
        slices = cls(kind, threshold)
        slices.evicted_us = stored[0]
        for number, *row in stored[1:]:
            if kind == "distinct":
                digests = b64decode(row.pop())
                for at in range(0, len(digests), _DIGEST_BYTES):
                    slices._remember(number, digests[at : at + _DIGEST_BYTES])
            elif kind in ("sum", "avg"):
                row[1] = _number(row[1])
            slices._rows[number] = row
            for at, part in enumerate(row):
                slices._totals[at] += part
        slices._oldest = min(slices._rows, default=0)
        return slices


def _width(kind: str) -> int:
    """How many numbers a slice has."""
    if kind in ("count", "distinct"):
        return 1
    return 2 if kind in ("sum", "avg") else 3


def _text(total: int) -> str:
    """A scaled sum: hexadecimal digits and how many binary zeros follow."""
    zeros = (total & -total).bit_length() - 1 if total else 0
    return f"{total >> zeros:x}p{zeros}"


def _number(text: str) -> int:
    digits, _, zeros = text.partition("p")
    return int(digits, 16) << int(zeros)
