"""Starts an attempt of a run: its folder, its files, its process group.

What is wrong with the run or its deployment is told apart from what the machine lacks at the moment (files, processes, memory, room on
the disk): the first fails the run, the second is no fault of it, and another worker or a later moment may have it.

Called by `worker`.
"""

from __future__ import annotations

import contextlib
import errno
import tempfile
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

from whenthen.runs.attempts.containers import Container
from whenthen.runs.commands import launch_of
from whenthen.runs.processes import ProcessGroup
from whenthen.runs.reports.left_reports import FOLDER_PREFIX
from whenthen.runs.reports.run_reports import RunReports
from whenthen.runs.warm.warm_pool import WarmPool
from whenthen.schemas.deployments import Deployment, FlowRun
from whenthen.schemas.errors import SetupError, WhenthenError

__all__ = ["Shortage", "make_folder", "open_reports", "pause_file", "start_attempt"]

_SHORT = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.ENOBUFS, errno.EIO}
)


class Shortage(WhenthenError):
    """The machine lacks what a start needs, such as open files or room on the disk. Nothing runs."""

    reason = "worker_shortage"


def make_folder() -> Path:
    """A folder for one attempt, for nobody else to read.

    Raises:
        Shortage: it can not be made.
    """
    try:
        return Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
    except OSError as error:
        raise Shortage(f"no folder can be made for it: {error}") from error


def pause_file(folder: Path) -> Callable[[bool], None]:
    """Puts a file beside the socket of an attempt while its run is to pause; its process looks for it."""
    file = folder / "paused"

    def put(is_paused: bool) -> None:
        with contextlib.suppress(OSError):  # the process may have removed its folder
            if is_paused:
                file.touch()
            else:
                file.unlink(missing_ok=True)

    return put


async def open_reports(reports: RunReports) -> None:
    """Listen to what the run will tell.

    Raises:
        Shortage: the system refuses.
    """
    try:
        await reports.open()
    except OSError as error:
        raise Shortage(f"no socket can be made for it: {error}") from error


async def start_attempt(
    deployment: Deployment,
    run: FlowRun,
    *,
    root: Path,
    scratch: Path,
    inherited: Mapping[str, str],
    resolve: Callable[[str], str],
    grace: timedelta,
    reports: RunReports,
    warm: WarmPool,
    container: Container | None = None,
) -> tuple[ProcessGroup, tuple[str, ...]]:
    """The running process group, and the secrets that its output may show: in an interpreter of `warm`, if one waits for it. See
    `commands.launch_of`.

    Raises:
        Shortage: see there.
        RenderError: a parameter is missing or can not be passed.
        NotFound: the program, the folder, the file or a secret does not exist.
        SetupError: the system refuses the command.
    """
    try:
        launch = launch_of(
            deployment,
            run,
            root=root,
            scratch=scratch,
            inherited=inherited,
            resolve=resolve,
            reporting=reports.environment,
            contained=container is not None,
        )
        if container is not None:
            launch = container.launch(launch, deployment, root=root, scratch=scratch, inherited=inherited)
    except OSError as error:
        raise Shortage(f"its files can not be written: {error}") from error
    if container is None:
        taken = await warm.take(deployment, launch, guard_keeps=reports.held)
        if taken is not None:
            return taken, launch.secrets
    try:
        group = await ProcessGroup.start(
            launch.words, cwd=launch.cwd, env=launch.env, grace=grace, guard_keeps=reports.held
        )
    except SetupError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in _SHORT:
            raise Shortage(str(error)) from error
        raise
    return group, launch.secrets
