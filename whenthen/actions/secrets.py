"""Secrets: references become values when they are used, and values become `***` wherever text leaves the process.

`Secrets` resolves `env:NAME` and `file:/path`, anew each time, so that a rotated secret counts at once, and tells the
`Redactor` every value it gave. `engine` puts `RedactingFilter` on its log handlers; `perform` and `outcome_events` pass
messages through the redactor. Nothing here ever puts a value into an error.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, unquote, urlsplit

from whenthen.schemas.errors import NotFound

__all__ = ["MASK", "RedactingFilter", "Redactor", "Secrets", "is_reference"]

MASK = "***"
#: values shorter than this are replaced only where they stand alone: `abc` must not eat the middle of `fabcde`
WHOLE_WORD_BELOW = 4
#: values of one source that are masked: the one in use, and those that were before it
KEPT_OF_A_SOURCE = 8
#: lines of a secret are secret themselves from this length on
LINE_CHARS = 6
#: a part of a URL is taken for a token from this length on, and from 8 characters when it has digits or mixed case
TOKEN_CHARS = 16
MAX_FILE_BYTES = 64 * 1024
#: of a reference to what is no secret, such as a bundle of certificate authorities
MAX_PUBLIC_FILE_BYTES = 4 * 1024 * 1024

_REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:.+")
#: query parameters whose value is a secret whatever it looks like
_TELLING = re.compile(r"key|token|secret|pass|sig|auth|code", re.IGNORECASE)
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def is_reference(text: str) -> bool:
    """Whether `text` names a secret (`env:NAME`, `file:/path`) instead of being a value."""
    if text.startswith("env:") and text.isascii() and text[4:].isidentifier():
        return True  # the same words as the expression's, without a search: it is asked for every webhook request
    return _REFERENCE.fullmatch(text) is not None


class Redactor:
    """Replaces known secret values in text. Thread-safe.

    Of each source (a reference, a place in the rules) the newest `KEPT_OF_A_SOURCE` values are known: a secret that is rotated each
    minute does not grow the search for ever, and what was sent with the value before is still masked when it comes back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: dict[str, str] = {}  #: by source
        self._sources: dict[str, dict[str, None]] = {}  #: the values of each, the newest at the end
        self._forms: dict[str, frozenset[str]] = {}  #: by value
        self._pattern: re.Pattern[str] | None = None

    def add(self, value: str, *, source: str | None = None) -> None:
        """From now on replace `value`, its usual encodings, and, when it is a URL or has lines, its telling parts.

        Without a `source` it is known for good.
        """
        source = f"={value}" if source is None else source
        if self._latest.get(source) == value or not value.strip():
            return
        with self._lock:
            values = self._sources.setdefault(source, {})
            values.pop(value, None)
            values[value] = None
            forms = dict(self._forms)
            if value not in forms:
                forms[value] = frozenset(form for part in _parts(value) for form in _forms(part)) | {value}
            for old in list(values)[:-KEPT_OF_A_SOURCE]:
                del values[old]
                if not any(old in others for others in self._sources.values()):
                    del forms[old]
            if forms.keys() != self._forms.keys():
                self._learn(forms)
            self._latest[source] = value

    def text(self, text: str) -> str:
        """`text` with every known secret replaced by `***`."""
        pattern = self._pattern
        return text if pattern is None else pattern.sub(MASK, text)

    def value(self, value: Any) -> Any:
        """A JSON-like value with every text in it redacted, mapping keys included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.value(key): self.value(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        return value

    def _learn(self, forms: dict[str, frozenset[str]]) -> None:
        # longest first: of a value and its own prefix the whole value must go
        ordered = sorted(frozenset().union(*forms.values()), key=lambda item: (-len(item), item))
        self._pattern = re.compile("|".join(map(_expression, ordered)))
        self._forms = forms


class RedactingFilter(logging.Filter):
    """Redacts the message, the arguments, the traceback and the extra fields of every record. Put it on handlers:
    a filter on a logger does not see the records of that logger's children."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        redactor = self._redactor
        record.msg = redactor.text(record.getMessage())
        record.args = None
        if record.exc_info and not record.exc_text:
            record.exc_text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        if record.exc_text:
            record.exc_text = redactor.text(record.exc_text)
            record.exc_info = None  # handlers that format it themselves would undo this
        if record.stack_info:
            record.stack_info = redactor.text(record.stack_info)
        for name, value in vars(record).items():
            if name not in _STANDARD_FIELDS:
                setattr(record, name, redactor.value(value))
        return True


class Secrets:
    """Resolves references. `environ` is read at each use."""

    def __init__(self, redactor: Redactor, environ: Mapping[str, str] = os.environ) -> None:
        self._redactor = redactor
        self._environ = environ

    def resolve(self, reference: str, *, public: bool = False) -> str:
        """The value that `reference` names, without a trailing line break; the redactor knows it from now on, unless it
        is `public` (a certificate).

        Raises:
            NotFound: no such variable or file, or it is empty, too large or no text. Names the reference only.
        """
        kind, _, name = reference.partition(":")
        if not is_reference(reference):
            raise NotFound("a secret is not written as a reference; write env:NAME or file:/path")
        limit = MAX_PUBLIC_FILE_BYTES if public else MAX_FILE_BYTES
        value = self._variable(name) if kind == "env" else _file(name, limit)
        value = value.removesuffix("\n").removesuffix("\r")
        if not value:
            raise NotFound(f"{reference} is empty; give it a value")
        if not public:
            self._redactor.add(value, source=reference)
        return value

    def _variable(self, name: str) -> str:
        value = self._environ.get(name)
        if value is None:
            raise NotFound(f"env:{name}: the environment variable is not set where whenthen runs; set it and restart")
        return value


def _file(name: str, limit: int) -> str:
    try:
        with Path(name).open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a path"
        raise NotFound(f"file:{name}: can not be read: {why}; check the path and who may read it") from None
    if len(data) > limit:
        raise NotFound(f"file:{name}: larger than {limit} bytes; a secret file holds the secret alone")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise NotFound(f"file:{name}: not UTF-8 text; a secret file holds the secret as text") from None


def _parts(value: str) -> set[str]:
    parts = {value}
    parts.update(line.strip() for line in value.splitlines() if len(line.strip()) >= LINE_CHARS)
    if "://" in value:
        parts.update(_url_parts(value))
    return parts


def _url_parts(url: str) -> set[str]:
    """What in a URL is a credential: the password, and what looks like a token among the user, the path's segments, the
    query's values and, for Apprise's short forms (`slack://TokenA/TokenB`), the host. Plain words stay: a log in which
    every `services` is masked is of no use."""
    try:
        split = urlsplit(url)
    except ValueError:
        return set()
    userinfo, _, host = split.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    query = [pair.partition("=") for pair in split.query.split("&")]
    found = [user, "" if "." in host else host, *split.path.split("/"), *(value for _, _, value in query)]
    secret = [password, *(value for name, _, value in query if _TELLING.search(name))]
    secret += [part for part in found if _is_token(unquote(part))]
    return {form for part in secret if part for form in (part, unquote(part))}


def _is_token(text: str) -> bool:
    if len(text) >= TOKEN_CHARS:
        return True
    mixed = text != text.lower() and text[1:] != text[1:].lower()
    return len(text) >= 8 and (mixed or (any(map(str.isdigit, text)) and any(map(str.isalpha, text))))


def _forms(value: str) -> set[str]:
    """How `value` looks after the encodings that carry it: URL, JSON, repr, base64."""
    forms = {value, quote(value, safe=""), quote(value), quote_plus(value), json.dumps(value)[1:-1], repr(value)[1:-1]}
    if len(value) >= LINE_CHARS:
        forms.add(base64.b64encode(value.encode()).decode())
    return forms


def _expression(value: str) -> str:
    escaped = re.escape(value)
    return rf"(?<!\w){escaped}(?!\w)" if len(value) < WHOLE_WORD_BELOW else escaped
