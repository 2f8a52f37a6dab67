"""Removes the folder of an attempt, whatever the run has left in it: millions of files, or folders thousands deep.

What the worker itself puts there is removed at once. For anything else `rm` is started, so that the event loop does not stand still
meanwhile, and nothing recurses as deep as a run likes. Called by `worker`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from itertools import islice
from pathlib import Path

__all__ = ["remove_folder"]

log = logging.getLogger(__name__)

_FEW = 16  #: entries of a folder that are removed without a process of their own
_DEPTH = 1  #: folders below it that are, too: the worker itself makes one, for reports


async def remove_folder(folder: Path) -> None:
    """Remove a folder and all that is in it. What can not be removed is left, and logged."""
    if _removed_at_once(folder):
        return
    try:
        rm = await asyncio.create_subprocess_exec(
            "rm",
            "-rf",
            "--",
            str(folder),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await rm.wait()
    except OSError:  # there is no rm here, or no process to be had
        with contextlib.suppress(RecursionError):
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    if _is_there(folder):
        log.warning("folder %s of a run can not be removed; remove it by hand", folder)


def _removed_at_once(folder: Path, depth: int = _DEPTH) -> bool:
    """Remove a folder of a few files, and of a few folders of files; say whether it is gone."""
    try:
        if folder.is_symlink():
            folder.unlink()
            return True
        with os.scandir(folder) as entries:
            found = list(islice(entries, _FEW + 1))
        if len(found) > _FEW:
            return False
        for entry in found:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
            elif not depth or not _removed_at_once(Path(entry.path), depth - 1):
                return False
        folder.rmdir()
    except FileNotFoundError:
        return not _is_there(folder)
    except OSError:
        return False
    return True


def _is_there(folder: Path) -> bool:
    return os.path.lexists(folder)
