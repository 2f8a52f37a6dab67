"""Type checkers see through the decorators."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import limit

ROOT = Path(__file__).parents[3]
PROGRAM = Path(__file__).with_name("typed_flows.py")


@pytest.mark.takes(20)
def test_mypy_sees_parameters_and_results_of_flows_and_tasks(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--no-warn-unused-ignores",
            "--cache-dir",
            tmp_path / "cache",
            "--config-file",
            "",
            PROGRAM,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=limit(120),
        check=False,
    )
    found = {int(line) for line in re.findall(r"typed_flows\.py:(\d+): error", done.stdout)}
    expected = {number for number, line in enumerate(PROGRAM.read_text().splitlines(), 1) if line.endswith("# error")}
    assert found == expected, done.stdout
    assert "whenthen/" not in done.stdout, done.stdout
