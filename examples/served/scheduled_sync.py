"""A folder that is copied into another one every five minutes: one program with a cron line is the whole system.

    python scheduled_sync.py

It starts a server of its own, whose data are in .whenthen; Ctrl-C lets a run finish and ends. Started again, it goes on.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from whenthen import flow, task


@task
def new_files(source: Path, target: Path) -> list[Path]:
    """What is there, and not in the target as it is now."""
    found = sorted(path for path in source.iterdir() if path.is_file())
    return [path for path in found if _is_newer(path, target / path.name)]


@task(retries=3, retry_delay_seconds=1)
def copy(path: Path, target: Path) -> int:
    """A reader sees a file whole or not at all."""
    draft = target / f".{path.name}.draft"
    shutil.copy2(path, draft)
    draft.replace(target / path.name)
    return path.stat().st_size


@flow(log_prints=True)
def sync(source: Path = Path("inbox"), target: Path = Path("archive")) -> dict[str, int]:
    """Copy what is new."""
    source.mkdir(exist_ok=True)
    target.mkdir(exist_ok=True)
    files = new_files(source, target)
    sizes = [copy.submit(path, target) for path in files]
    total = sum(size.result() for size in sizes)
    print(f"{len(files)} files, {total} bytes")
    return {"files": len(files), "bytes": total}


def _is_newer(path: Path, copied: Path) -> bool:
    return not copied.exists() or copied.stat().st_mtime < path.stat().st_mtime


if __name__ == "__main__":
    sync.serve(name="every-five-minutes", cron="*/5 * * * *", tags=["files"], limit=1)
