"""whenthen as its users have it: the wheel, installed into a virtual environment away from the checkout."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.patience import limit

__all__ = ["ROOT", "install"]

ROOT = Path(__file__).resolve().parents[2]


def install(folder: Path) -> Path:
    """Build the wheel and install it into `folder`, unless that was done; gives the environment's Python.

    The wheel's own code is installed, with what pip makes for it (commands, bytecode, metadata); the libraries that it needs are those
    of this environment, which is much faster than to install them again. Workers of pytest that ask at the same time share one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    python = folder / "venv" / "bin" / "python"
    done = folder / "installed"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder))
            (wheel,) = folder.glob("*.whl")
            _run(sys.executable, "-m", "venv", "--without-pip", str(folder / "venv"))
            _run(
                sys.executable,
                "-m",
                "pip",
                "--python",
                str(python),
                "install",
                "-q",
                "--no-index",
                "--no-deps",
                str(wheel),
            )
            # a folder that a .pth file names is searched last, and the .pth files in it (the checkout's own) do not count
            site_packages = folder / "venv" / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
            (site_packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
            done.touch()
    return python


def _run(*words: str) -> None:
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=limit(120), check=False)
    assert done.returncode == 0, f"{' '.join(words)}:\n{done.stdout}{done.stderr}"
