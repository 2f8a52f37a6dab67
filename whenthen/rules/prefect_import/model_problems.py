"""Whether what an import writes is valid: the first thing that is not. Called by the other modules of this package."""

from __future__ import annotations

import math
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError

__all__ = ["field_at_fault", "problem_of"]


def problem_of(model: type[BaseModel], data: dict[str, Any]) -> str | None:
    """What is wrong with `data` as a `model`; None when nothing is."""
    found = field_at_fault(model, data)
    return None if found is None else found[1]


def field_at_fault(model: type[BaseModel], data: dict[str, Any]) -> tuple[str, str] | None:
    """The first field of `data` that is wrong, or nothing for the whole, and what is wrong with it."""
    try:
        model.model_validate(data)
        orjson.dumps(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        said = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            return "", said
        return str(first["loc"][0]), f"{'.'.join(map(str, first['loc']))}: {said}"
    except (TypeError, orjson.JSONEncodeError) as error:
        return "", str(error)
    for name, value in data.items():
        if (where := _not_finite(value, name)) is not None:  # which orjson writes as null
            return name, f"{where}: infinity and NaN are no numbers of JSON; give a number, or put it in quotes"
    return None


def _not_finite(value: Any, where: str) -> str | None:
    """Where in a value there is infinity or NaN."""
    if isinstance(value, float):
        return None if math.isfinite(value) else where
    if isinstance(value, dict):
        inside = ((f"{where}.{key}", one) for key, one in value.items())
    elif isinstance(value, list):
        inside = ((f"{where}[{number}]", one) for number, one in enumerate(value))
    else:
        return None
    return next((found for place, one in inside if (found := _not_finite(one, place)) is not None), None)
