"""Git repositories of tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

__all__ = ["git", "git_repository"]


def git(folder: Path, *words: str) -> str:
    """What git says, in a folder; as nobody in particular, without the settings of the machine."""
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    who = ("-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "init.defaultBranch=main")
    return subprocess.run(["git", *who, *words], cwd=folder, env=env, check=True, capture_output=True, text=True).stdout


def git_repository(folder: Path, files: Mapping[str, str]) -> str:
    """Commit these files in a repository, which is made if it is not there; gives the id of the commit."""
    if not folder.exists():
        folder.mkdir(parents=True)
        git(folder, "init", "-q")
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "x")
    return git(folder, "rev-parse", "HEAD").strip()
