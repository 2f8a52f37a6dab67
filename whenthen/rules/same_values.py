"""Whether two values are the same JSON: to `==` alone 1, 1.0 and true are one value."""

from __future__ import annotations

from typing import Any

import orjson
from pydantic import BaseModel

__all__ = ["same_json"]


def same_json(one: Any, other: Any) -> bool:
    """Of two models, or of two values of JSON; in whatever order the keys of mappings are."""
    return bool(one == other) and _sorted_json(one) == _sorted_json(other)


def _sorted_json(value: Any) -> bytes:
    data = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return orjson.dumps(data, option=orjson.OPT_SORT_KEYS)
