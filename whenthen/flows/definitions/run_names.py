"""The name of a run: from a template with the parameters, or from a function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["named"]


def named(template: str | Callable[..., str], parameters: dict[str, Any], *, option: str) -> str:
    """The name that `template` gives.

    A text is formatted with the parameters: `"load-{region}"`. A function is called with nothing, or with `parameters` where it has a
    parameter of that name.

    Raises:
        KeyError: the text names a parameter that the function does not have.
        TypeError: the function gives no text.
    """
    if isinstance(template, str):
        try:
            return template.format(**parameters)
        except KeyError as missing:
            raise KeyError(
                f"{option}={template!r}: there is no parameter {missing}; there are {', '.join(parameters) or 'none'}"
            ) from None
    if "parameters" in inspect.signature(template).parameters:
        name = template(parameters=parameters)
    else:
        name = template()
    if not isinstance(name, str):
        raise TypeError(
            f"{option}: the function {getattr(template, '__name__', template)!r} gave {name!r:.80}; it must give a text"
        )
    return name
