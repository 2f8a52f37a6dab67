"""Programs of a user, run by a Python of their own, in a folder of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.patience import limit

__all__ = ["ROOT", "run_program"]

ROOT = Path(__file__).parents[3]


def run_program(*words: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """`python WORDS` in `cwd`, to its end; it finds this `whenthen`."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=limit(60),
        check=False,
    )
