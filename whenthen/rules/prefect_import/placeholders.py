"""The `{{ ... }}` of a prefect.yaml outside of triggers: variables of the environment, of Prefect, blocks, and outputs of steps.

`prefect deploy` fills them in when it deploys. Here a value that is one of them alone becomes a reference that is read where a run starts;
inside of other text a variable of the environment or of Prefect is filled in, when the import is given it. Called by `prefect_deployments`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["Placeholders", "has_placeholder", "placeholders_in"]

_ANY = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
_WHOLE = re.compile(r"\s*\{\{\s*([^{}]*?)\s*\}\}\s*")
_ENVIRONMENT = re.compile(r"\$([A-Za-z_]\w*)", re.ASCII)
_VARIABLE = re.compile(r"prefect\.variables\.([\w-]+)", re.ASCII)
_SECRET = re.compile(r"prefect\.blocks\.secret\.([\w-]+)(?:\.value)?", re.ASCII)


class Placeholders:
    """Fills placeholders from `environment`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def reference(self, value: Any) -> str | None:
        """`env:NAME` for a text that is one placeholder alone, where a worker can have its value in the environment."""
        found = _WHOLE.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            return None
        if (variable := _ENVIRONMENT.fullmatch(found[1])) is not None:
            return f"env:{variable[1]}"
        for pattern, prefix in ((_SECRET, "WHENTHEN_SECRET_"), (_VARIABLE, "WHENTHEN_VARIABLE_")):
            if (named := pattern.fullmatch(found[1])) is not None:
                return f"env:{prefix}{re.sub('[^A-Za-z0-9]', '_', named[1]).upper()}"
        return None

    def filled(self, value: Any) -> Any:
        """The value with what the environment has filled in; other placeholders are left as they are."""
        if isinstance(value, str):
            return _ANY.sub(self._replaced, value) if "{{" in value else value
        if isinstance(value, list):
            return [self.filled(item) for item in value]
        if isinstance(value, dict):
            return {key: self.filled(item) for key, item in value.items()}
        return value

    def _replaced(self, found: re.Match[str]) -> str:
        reference = self.reference(found[0])
        if reference is None or _SECRET.fullmatch(found[1]):
            return found[0]  # a secret is not written into a file of rules
        return self._environment.get(reference.removeprefix("env:"), found[0])


def has_placeholder(value: Any) -> bool:
    """Whether a placeholder stands anywhere in a value."""
    return any(True for _ in placeholders_in(value))


def placeholders_in(value: Any) -> Iterator[str]:
    """What stands inside the braces of each placeholder in a value."""
    if isinstance(value, str):
        if "{{" in value:
            yield from (found[1] for found in _ANY.finditer(value))
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from placeholders_in(item)
