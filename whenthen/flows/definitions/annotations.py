"""Marks around an argument that say how it is passed: `unmapped`, `allow_failure`, `quote`, `opaque`."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

T = TypeVar("T")

__all__ = ["Annotation", "allow_failure", "opaque", "quote", "unmapped"]


class Annotation(Generic[T]):
    """A value with a mark."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

    def unwrap(self) -> T:
        return self.value

    def rewrap(self, value: Any) -> Annotation[Any]:
        return type(self)(value)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.value == other.value

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value!r})"


class unmapped(Annotation[T]):
    """`.map` gives this value whole to each run instead of mapping over it."""

    __slots__ = ()


class allow_failure(Annotation[T]):
    """The run starts although this future failed; it then gets the exception as its argument."""

    __slots__ = ()


class quote(Annotation[T]):
    """The value is passed as it is: no future in it is looked for. Worth it for large collections; `unquote()` gives the value."""

    __slots__ = ()

    def unquote(self) -> T:
        return self.value


class opaque(Annotation[T]):
    """A future is resolved, but nothing is looked for in its result."""

    __slots__ = ()
