"""What the processes of a run left in files when their worker died, read by the next worker on the machine.

The folder of an attempt is locked for as long as its worker lives, or the guard that ends its processes (`runs.guard`). One that nobody
locks is nobody's: its reports are stored as those of that attempt, and it is removed. Called by `worker`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import orjson

from whenthen.runs.attempts.folder_removal import remove_folder
from whenthen.runs.commands import secrets_of
from whenthen.runs.reports.run_reports import LOCK_NAME, OWNER_NAME, REPORTS_NAME, ReportSink
from whenthen.runs.reports.shared_requests import may_read
from whenthen.runs.reports.unread_files import UnreadFiles
from whenthen.runs.run_output import LogLimits, RunLog
from whenthen.runs.stores import Deployments, Stores
from whenthen.schemas.deployments import Deployment, is_run_id
from whenthen.schemas.errors import BusUnavailable, NotFound, WhenthenError

__all__ = ["FOLDER_PREFIX", "LeftReports"]

log = logging.getLogger(__name__)

FOLDER_PREFIX: Final = "whenthen-run-"  #: of the folder of an attempt
MOST_FOLDERS: Final = 1_000  #: looked at in one go
FORGOTTEN_AFTER: Final = timedelta(
    days=7
)  #: from the last change to when the folder of a run that is not known is removed
EVENTS_KNOWN: Final = timedelta(
    seconds=60
)  #: in which an event that comes again is known to be the same, with a margin
_OWNER_BYTES: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftReports:
    """Looks for such folders in `parent`."""

    parent: Path
    stores: Stores
    deployments: Deployments
    resolve: Callable[[str], str]
    clock: Callable[[], datetime]
    limits: LogLimits

    async def run(self, *, every: timedelta) -> None:
        """Take what is left again and again, until cancelled. Errors are logged, and it is tried again."""
        while True:
            try:
                await self.take()
            except BusUnavailable as error:
                log.info("what is left of runs of dead workers can not be stored yet: %s", error)
            except Exception:
                log.exception("what is left of runs of dead workers can not be read")
            await asyncio.sleep(every.total_seconds())

    async def take(self) -> int:
        """Store what is left, and remove it. Gives from how many attempts.

        Raises:
            BusUnavailable: no answer.
        """
        taken = 0
        for folder in self._folders():
            with _locked(folder) as ours:
                if ours and await self._take_from(folder):
                    await remove_folder(folder)
                    taken += 1
        return taken

    def _secrets(self, deployment: Deployment) -> tuple[str, ...]:
        """Those of the deployment, and those of the rules that its code may have read.

        Raises:
            NotFound: one of the deployment does not exist.
        """
        found = list(secrets_of(deployment, self.resolve))
        for secret in self.deployments.named_secrets().values():
            if may_read(secret, deployment.name):
                with contextlib.suppress(NotFound):  # then the code could not read it either
                    found.append(self.resolve(secret.value))
        return tuple(found)

    def _is_old(self, file: Path) -> bool:
        try:
            return self.clock().timestamp() - file.stat().st_mtime > EVENTS_KNOWN.total_seconds()
        except OSError:
            return True

    def _folders(self) -> list[Path]:
        """Those of this user that nobody else may enter."""
        found: list[Path] = []
        with contextlib.suppress(OSError), os.scandir(self.parent) as entries:
            for entry in entries:
                if entry.name.startswith(FOLDER_PREFIX) and len(found) < MOST_FOLDERS:
                    with contextlib.suppress(OSError):
                        about = entry.stat(follow_symlinks=False)
                        if stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid() and not about.st_mode & 0o077:
                            found.append(Path(entry.path))
        return found

    async def _take_from(self, folder: Path) -> bool:
        """Whether there is nothing more to be taken. The folder of a run that is not known may be another installation's."""
        reports = folder / REPORTS_NAME
        owner = _owner(reports / OWNER_NAME)
        files = UnreadFiles(reports)
        names = files.names(sent=True)
        if owner is None:
            return False
        run_id, attempt = owner
        stored = await self.stores.runs.get(run_id)
        if stored is None:
            return self.clock().timestamp() - reports.stat().st_mtime > FORGOTTEN_AFTER.total_seconds()
        if not names:
            return True
        run = replace(stored.run, attempt=attempt)
        deployment = self.deployments.current().get(run.deployment)
        try:
            secrets = () if deployment is None else self._secrets(deployment)
        except WhenthenError:
            deployment = None
        if deployment is None:
            log.warning("flow run %s: what its attempt %d left is not read: its secrets are not known", run_id, attempt)
            return True
        output = RunLog(self.stores.logs, run_id, attempt, clock=self.clock, limits=self.limits, secrets=secrets)
        sink = ReportSink(
            run,
            self.stores,
            output,
            clock=self.clock,
            task_run_events=deployment.task_run_events,
        )
        for name in names:
            old = name.endswith(".sent") and self._is_old(reports / name)
            for lines in files.chunks(name, ended=True):
                # an event that its worker had stored is known by its id only for a while; states are known by their numbers
                await sink.hear([line for line in lines if b'"type":"state"' in line] if old else lines)
        await sink.close()
        await output.close()
        log.info("flow run %s: took what the processes of attempt %d left when their worker died", run_id, attempt)
        return True


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Whether the folder of a dead worker was locked. One that is being made is not."""
    try:
        opened = os.open(folder / REPORTS_NAME / LOCK_NAME, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield (folder / REPORTS_NAME / OWNER_NAME).exists()
    finally:
        os.close(opened)


def _owner(file: Path) -> tuple[str, int] | None:
    """Run and attempt; None where the file does not say it."""
    try:
        opened = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fields = orjson.loads(os.read(opened, _OWNER_BYTES))
        finally:
            os.close(opened)
        run_id, attempt = fields["run"], fields["attempt"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (run_id, attempt) if isinstance(attempt, int) and isinstance(run_id, str) and is_run_id(run_id) else None
