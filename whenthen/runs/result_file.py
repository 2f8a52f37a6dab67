"""What a run left in its result file, read as the work of a stranger: any file may lie there, with anything in it.

Called by `worker`, in a thread. The file holds a JSON object of `result`, `error` (why the run failed), `note` (what the runner has to
say of the result), and of a flow its final `state`, the `type` of that, and its `message`; `retry` is false where a further attempt would
fail alike. Meaning: docs/deployments.md.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Never

import orjson

from whenthen.schemas.base import MAX_DEPTH, is_deeper_than

__all__ = ["MAX_FILE_BYTES", "MAX_RESULT_BYTES", "MAX_TEXT_CHARS", "Report", "read_imported", "read_report"]

MAX_FILE_BYTES = 128 * 1024  #: of the whole file
MAX_RESULT_BYTES = 64 * 1024  #: of the result as JSON
MAX_TEXT_CHARS = 4_000  #: of an error, a note or a message; the rest is cut
MAX_NAME_CHARS = 200  #: of a state's name
_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class _Dropped(Exception):
    """The file, or the result in it, is left aside. The message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    result: Any = None
    error: str = ""  #: why the run failed, in its own words
    note: str = ""  #: why the result was dropped
    state: str = ""  #: the name of a flow's final state
    type: str = ""  #: its type, in capitals
    message: str = ""  #: of that state, when it completed
    retry: bool = True


def read_report(file: Path) -> Report:
    """The report in `file`; an empty one when there is none. Never waits and never raises: what can not be used is dropped,
    and the note says why."""
    try:
        report = _parse(_read(file))
    except FileNotFoundError:
        return Report()
    except _Dropped as why:
        return Report(note=f"the result file was not used: {why}")
    except OSError as error:
        return Report(note=f"the result file was not used: {error.strerror}")
    result, note = report.get("result"), _text(report.get("note"))
    try:
        _check_result(result)
    except _Dropped as why:
        result, note = None, f"the result was dropped: {why}"
    return Report(
        result=result,
        error=_text(report.get("error")),
        note=note,
        state=_text(report.get("state"))[:MAX_NAME_CHARS],
        type=_text(report.get("type"))[:MAX_NAME_CHARS],
        message=_text(report.get("message")),
        retry=report.get("retry") is not False,
    )


def read_imported(file: Path) -> list[str] | None:
    """The modules that a run has imported, as the runner names them in `file`; None when it does not say. Never waits and never raises."""
    try:
        found = _parse(_read(file)).get("modules")
    except (_Dropped, OSError):
        return None
    if not isinstance(found, list):
        return None
    names = [name for name in found if isinstance(name, str)]
    return [name for name in names if len(name) <= MAX_NAME_CHARS and name.replace(".", "_").isidentifier()]


def _read(file: Path) -> bytes:
    # The run may have put anything in the place of the file, and of its folder.
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
            opened = os.open(file.name, flags, dir_fd=folder)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO):
                raise
            raise _Dropped(_kind(os.stat(file.name, dir_fd=folder, follow_symlinks=False))) from None
    finally:
        os.close(folder)
    try:
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode):
            raise _Dropped(_kind(found))
        chunks: list[bytes] = []
        left = MAX_FILE_BYTES + 1  # a file may grow while it is read
        while left and (chunk := os.read(opened, left)):
            chunks.append(chunk)
            left -= len(chunk)
        if not left:
            raise _Dropped(f"it has more than {MAX_FILE_BYTES // 1024} KiB; write a reference to large data")
        return b"".join(chunks)
    finally:
        os.close(opened)


def _kind(found: os.stat_result) -> str:
    kind = next((name for test, name in _KINDS if test(found.st_mode)), "not a regular file")
    return f"it is {kind}; write a regular file"


def _parse(data: bytes) -> dict[str, Any]:
    if not data.strip():
        return {}
    try:
        report = json.loads(data.decode(), parse_int=_integer, parse_float=_float, parse_constant=_constant)
    except UnicodeDecodeError as error:
        raise _Dropped(f"it is not UTF-8, at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise _Dropped(f"it is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise _Dropped(f"it is nested more than {MAX_DEPTH} deep") from None
    if not isinstance(report, dict):
        raise _Dropped('it is not a JSON object; write {"result": ...}')
    return report


def _integer(text: str) -> int | str:
    """A whole number of 64 bits; a larger one as its decimal text, so that no digit is lost."""
    if len(text) > 20:
        return text
    number = int(text)
    return number if -(2**63) <= number < 2**64 else text


def _float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise _Dropped(f"{text[:40]} is too large for a number")
    return number


def _constant(word: str) -> Never:
    raise _Dropped(f"{word} is not a JSON value")


def _check_result(result: Any) -> None:
    if is_deeper_than(result, MAX_DEPTH):
        raise _Dropped(f"it is nested more than {MAX_DEPTH} deep; flatten it")
    try:
        size = len(orjson.dumps(result))
    except (TypeError, ValueError) as error:  # half of a surrogate pair
        raise _Dropped(f"it can not be written as JSON: {error}") from None
    if size > MAX_RESULT_BYTES:
        raise _Dropped(
            f"{size:,} bytes of JSON; at most {MAX_RESULT_BYTES // 1024} KiB are kept: return a reference to it"
        )


def _text(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:MAX_TEXT_CHARS].encode("utf-8", "replace").decode()
