"""Named values from the environment: `WHENTHEN_VARIABLE_REGION` is the variable `region`. Read anew each time.

`-`, `.` and `_` of a name are `_` in the environment, and letters are capitals there: `api-key` and `api_key` are one value.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from whenthen.flows.flow_errors import ConfigurationError, InvalidNameError

__all__ = ["checked_name", "from_environment", "read_json", "secret_of", "variable_of"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
MAX_NAME_CHARS = 255
MAX_FILE_BYTES = 64 * 1024


def variable_of(kind: str, name: str) -> str:
    """The environment variable of a named value."""
    return f"WHENTHEN_{kind}_{re.sub('[^A-Za-z0-9]', '_', name).upper()}"


def checked_name(name: Any, what: str) -> str:
    if not isinstance(name, str) or len(name) > MAX_NAME_CHARS or NAME.fullmatch(name) is None:
        raise InvalidNameError(
            f"the name of a {what} has letters, digits, dashes, dots and underscores, at most {MAX_NAME_CHARS}; found {name!r:.80}"
        )
    return name


def from_environment(kind: str, name: str, what: str) -> str | None:
    """The text of a named value; None when it is not set. `file:/path` and `env:NAME` are followed, as in rules.

    Raises:
        ConfigurationError: a reference leads nowhere. Shows the reference only.
    """
    variable = variable_of(kind, checked_name(name, what))
    written = os.environ.get(variable)
    if written is None:
        return None
    if written.startswith("file:") or (written.startswith("env:") and written[4:].isidentifier()):
        return secret_of(written, variable)
    return written


def secret_of(reference: str, what: str) -> str:
    """The value of `file:/path` or `env:NAME`; `what` has it.

    Raises:
        ConfigurationError: it leads nowhere. Shows the reference only.
    """
    if reference.startswith("file:"):
        return _text_of_file(reference[5:], what)
    found = os.environ.get(reference.removeprefix("env:"))
    if not found:
        raise ConfigurationError(f"{what}: {reference} is empty or not set")
    return found


def read_json(text: str) -> Any:
    """The value of a text that is JSON; the text itself otherwise."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _text_of_file(path: str, variable: str) -> str:
    """What a value `file:/path` of `variable` means, without the end of its last line.

    Raises:
        ConfigurationError: there is no such file, or it is no text, or too large.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ConfigurationError(f"{variable}: file:{path} is larger than {MAX_FILE_BYTES} bytes")
        return data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{variable}: file:{path} is no UTF-8 text") from None
    except OSError as error:
        raise ConfigurationError(f"{variable}: file:{path} can not be read: {error.strerror}; check the path") from None
