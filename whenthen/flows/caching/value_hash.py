"""A stable hash of values: the same in every process, for equal values of the usual classes.

Containers, numbers, texts, dates, enums, dataclasses and pydantic models are hashed by what they hold; everything else by its pickle.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import pickle
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from whenthen.flows.flow_errors import HashError

__all__ = ["hash_objects", "stable_hash"]

#: classes whose repr says all, and is the same everywhere
BY_REPR = frozenset([int, float, bool, complex, type(None), range])


def stable_hash(*values: Any) -> str:
    """The hash of `values`, as 32 hexadecimal digits.

    Raises:
        HashError: a value can not be hashed by content: a lock, an open file, a connection.
    """
    return _digest(part for value in values for part in _parts(value, set())).hex()


def hash_objects(*args: Any, hash_algo: Any = None, raise_on_failure: bool = False, **kwargs: Any) -> str | None:
    """Prefect's name for `stable_hash`; None for what can not be hashed, unless `raise_on_failure`."""
    try:
        return stable_hash(args, kwargs)
    except HashError:
        if raise_on_failure:
            raise
        return None


def _digest(parts: Iterable[bytes]) -> bytes:
    """The hash of `parts`, each with its length, so that no two lists of parts read the same."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def _parts(value: Any, above: set[int]) -> Iterator[bytes]:
    kind = value.__class__
    yield f"{kind.__module__}.{kind.__qualname__}".encode()
    if kind in BY_REPR:
        yield repr(value).encode()
        return
    if kind is str:
        yield value.encode("utf-8", "surrogatepass")
        return
    if kind in (bytes, bytearray):
        yield value
        return
    if isinstance(value, enum.Enum):
        yield value.name.encode() if value.name is not None else repr(value.value).encode()
        return
    inner = _members(value)
    if inner is None:
        yield _pickled(value)
        return
    if id(value) in above:
        raise HashError(f"a {kind.__name__} that holds itself can not be part of a cache key")
    above.add(id(value))
    ordered, members = inner
    hashes = []
    for member in members:
        if ordered:
            yield from _parts(member, above)
        else:
            hashes.append(_digest(_parts(member, above)))
    yield from sorted(hashes)
    yield b"end"
    above.discard(id(value))


def _members(value: Any) -> tuple[bool, Any] | None:
    """What a container holds, and whether its order counts; None for what is no container."""
    if isinstance(value, (list, tuple)):
        return True, value
    if isinstance(value, (set, frozenset)):
        return False, value
    if isinstance(value, Mapping):
        return False, value.items()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return True, [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    models = sys.modules.get("pydantic.main")
    if models is not None and isinstance(value, models.BaseModel):
        return False, value.__dict__.items()
    return None


def _pickled(value: Any) -> bytes:
    try:
        return pickle.dumps(value, protocol=5)
    except Exception as problem:
        raise HashError(
            f"a value of class {type(value).__name__} can not be part of a cache key: {problem}; leave it out (INPUTS - 'name'), give a "
            "cache_key_fn, or use cache_policy=NO_CACHE"
        ) from None
