"""Run every benchmark of this folder, each in a process of its own, and print one JSON document a line.

    python -m benchmarks [NAME ...]

A benchmark is a module here that prints one JSON document and ends with 0 when its answers are right and its
promises are kept. What it says on standard error is passed on. Called by `make bench`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def main() -> int:
    names = sys.argv[1:] or sorted(path.stem for path in FOLDER.glob("[!_]*.py"))
    worst = 0
    for name in names:
        command = [sys.executable, "-m", f"benchmarks.{name}"]
        done = subprocess.run(command, cwd=FOLDER.parent, stdout=subprocess.PIPE, text=True, check=False)
        worst = max(worst, abs(done.returncode))
        try:
            document = json.loads(done.stdout)
        except ValueError:
            document = {"output": done.stdout[-2000:]}
        print(json.dumps({"benchmark": name, "exit": done.returncode, **document}), flush=True)
    return worst


if __name__ == "__main__":
    sys.exit(main())
