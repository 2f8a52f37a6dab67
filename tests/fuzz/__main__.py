"""Fuzz every target, or those that are named, for a bounded time each: `python -m fuzz [--seconds N] [TARGET ...]`.

Called by `make fuzz`. New inputs that reach new code stay in the working folder; what fails is written there too, with how to
look at it again. Exits 1 when something was found.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from fuzz.targets import CORPUS, TARGETS

__all__ = ["main"]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
API = "api"  #: not a target of bytes: the HTTP API by its OpenAPI document
HANG_S = 30  #: of one input, under instrumentation; what takes longer is a finding
MEMORY_MB = 2048


def main() -> int:
    """Give how many targets found something."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "fuzz", help="for found inputs and failures")
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS, API], help="all when none is named")
    asked = parser.parse_args()
    failed = [name for name in asked.targets or [*TARGETS, API] if not _run(name, asked.seconds, asked.work)]
    print(f"fuzz: {len(failed)} with findings{': ' + ', '.join(failed) if failed else ''}", flush=True)
    return 1 if failed else 0


def _run(name: str, seconds: int, work: Path) -> bool:
    print(f"fuzz: {name} for {seconds} s", flush=True)
    work.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(HERE.parent), str(ROOT)))}
    if name == API:
        return (
            subprocess.run([sys.executable, "-m", "fuzz.api", str(seconds)], env=environment, cwd=work).returncode == 0
        )
    found, failures = work / name, work / f"{name}-"
    found.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "fuzz.driver", name]
    command += [f"-max_total_time={seconds}", f"-timeout={HANG_S}", f"-rss_limit_mb={MEMORY_MB}", "-max_len=8192"]
    command += [f"-artifact_prefix={failures}", "-print_final_stats=1", "-verbosity=0", "-use_value_profile=1"]
    words = HERE / "words" / f"{name}.dict"
    if words.exists():
        command.append(f"-dict={words}")
    ended = subprocess.run([*command, str(found), str(CORPUS / name)], env=environment, cwd=work)
    if ended.returncode:
        print(
            f"fuzz: {name} failed; the input is the newest {failures}*; make it small, fix the fault, store it in {CORPUS / name}"
        )
    return ended.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
