"""The rules files of a folder, with their bytes; not looked into. Which files there are, which are tests, and which have gone.

Called by `rules.folder`, which checks what they say, by `rules.watcher` and by `rules.test_runner`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from whenthen.rules.registering.registered_names import is_registered

__all__ = [
    "SourceFile",
    "absent_files",
    "find_files",
    "find_tests",
    "is_empty",
    "is_rules_file",
    "read_files",
    "rules_files",
]

MAX_FILES = 100_000
_TESTS = (".test.yaml", ".test.yml")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One file as it was read. `trouble` says why it could not be. A `held` file is away, and stands as it was read before: of it only
    that counts which no other file has."""

    name: str
    raw: bytes = field(default=b"", repr=False)
    trouble: str = ""
    held: bool = False


def find_files(path: str | os.PathLike[str]) -> Iterator[Path]:
    """The rules files at `path`: itself, or every `*.yaml` and `*.yml` below it but hidden ones and `*.test.yaml`."""
    return _files_below(Path(path), is_rules_file)


def find_tests(path: str | os.PathLike[str]) -> Iterator[Path]:
    """The files of tests at `path`: itself, or every `*.test.yaml` and `*.test.yml` below it but hidden ones."""
    return _files_below(Path(path), lambda name: name.endswith(_TESTS) and not name.startswith("."))


def _files_below(root: Path, wanted: Callable[[str], bool]) -> Iterator[Path]:
    if not root.is_dir():
        yield root
        return
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if wanted(name):
                yield Path(folder) / name


def is_rules_file(name: str) -> bool:
    """Whether a file of this name in a rules folder holds rules."""
    return name.endswith((".yaml", ".yml")) and not name.startswith(".") and not name.endswith(_TESTS)


def read_files(path: str | os.PathLike[str]) -> tuple[Path, list[SourceFile]]:
    """The folder that paths in rules are relative to, and the files with their bytes, in the order of their names."""
    root = Path(path)
    base = root if root.is_dir() else root.parent
    if (readable := _readable(str(root))) != str(root):
        return base, [SourceFile(name=readable, trouble="the path is not UTF-8; rename the folder or file")]
    files: list[SourceFile] = []
    for found in find_files(root):
        name = str(found.relative_to(base)) if found.is_relative_to(base) else str(found)
        if (readable := _readable(name)) != name:
            files.append(SourceFile(name=readable, trouble="the name is not UTF-8; rename the file"))
            continue
        try:
            files.append(SourceFile(name=name, raw=found.read_bytes()))
        except FileNotFoundError:
            given = str(root) if found == root else name
            files.append(
                SourceFile(name=given, trouble="there is no such file or folder; give the path of a rules folder")
            )
        except OSError as error:
            files.append(SourceFile(name=name, trouble=f"can not be read: {error.strerror or error}"))
        if len(files) > MAX_FILES:
            trouble = f"more than {MAX_FILES} rules files; is this the folder meant?"
            return base, [SourceFile(name=str(root), trouble=trouble)]
    return base, sorted(files, key=lambda file: file.name)


def _readable(path: str) -> str:
    """A path as text that can be stored and sent: bytes in it that are not UTF-8 as escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def rules_files(path: str | os.PathLike[str]) -> list[SourceFile]:
    """The files at `path` with their bytes, in the order of their names; not checked."""
    return read_files(path)[1]


def absent_files(files: Sequence[SourceFile], before: Sequence[SourceFile]) -> list[SourceFile]:
    """The files of `before` that are not among `files`, or have nothing in them any more. Empty when a file can not be read."""
    if any(file.trouble for file in files):
        return []
    there = {file.name for file in files if not is_empty(file.raw)}
    return [
        source
        for source in before
        if source.name not in there and not is_registered(source.name) and not is_empty(source.raw)
    ]


def is_empty(raw: bytes) -> bool:
    """Whether a file is blank but for comments."""
    return all(
        line in (b"", b"---") or line.startswith(b"#")
        for line in map(bytes.strip, raw.removeprefix(b"\xef\xbb\xbf").splitlines())
    )
