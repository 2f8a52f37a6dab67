"""The last good set of rules, kept in the data directory, so that a process starts although the files are broken or missing.

One JSON file with the text of each rules file as it was when the set came into force, replaced atomically. It counts for the path
that it was read from, so that a mistyped path is an error and not another project's rules. Only with the embedded NATS server:
the data directory belongs to one process then.

Called by `engine.process.server`.
"""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path

from whenthen.rules import Rules, SourceFile, compile_files
from whenthen.schemas import InvalidRules, format_time

__all__ = ["LastGoodRules"]

log = logging.getLogger(__name__)

FILE_NAME = "rules.last-good.json"
_FORMAT = 1


class LastGoodRules:
    """The kept set of the rules at `path`, in the data directory `folder`."""

    def __init__(self, folder: Path, path: Path) -> None:
        self.file = folder / FILE_NAME
        self._path = path

    def keep(self, rules: Rules) -> None:
        """Keep a set that is in force. What can not be written is logged: the process goes on without."""
        record = {
            "format": _FORMAT,
            "path": os.path.abspath(self._path),
            "base": str(rules.base),
            "taken": format_time(datetime.now(UTC)),
            "revision": rules.revision,
            "files": {file.name: file.raw.decode("utf-8", "surrogateescape") for file in rules.sources},
        }
        written = self.file.with_suffix(".new")
        try:
            # readable by its owner alone: rules may name what is not for all
            with open(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as stream:
                json.dump(record, stream)
                stream.flush()
                os.fsync(stream.fileno())
            written.replace(self.file)
        except OSError as error:
            log.warning("the rules in force are not kept in %s for a start with broken files: %s", self.file, error)

    def load(self) -> tuple[Rules, str] | None:
        """The kept set and when it came into force; None when none was kept for this path, or it is of no use."""
        try:
            record = json.loads(self.file.read_text(encoding="ascii"))
            if record["format"] != _FORMAT:
                log.warning(
                    "%s has format %r, which this version does not know; it is not used", self.file, record["format"]
                )
                return None
            if record["path"] != os.path.abspath(self._path):
                return None
            files = [
                SourceFile(name=name, raw=text.encode("utf-8", "surrogateescape"))
                for name, text in record["files"].items()
            ]
            base, taken = Path(record["base"]), str(record["taken"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("the last good rules in %s can not be read: %s: %s", self.file, type(error).__name__, error)
            return None
        try:
            return compile_files(base, files), taken
        except InvalidRules as error:
            log.warning("the last good rules of %s are refused by this version: %s", taken, error)
            return None
