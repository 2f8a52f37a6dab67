"""What a machine lacks is named at the end of a run, with what did not run; with `--nothing-missing` the run fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import limit

ROOT = Path(__file__).parents[3]
NEEDY = """
import pytest

@pytest.mark.requires("promtool")
@pytest.mark.parametrize("number", range(3))
def test_needy(number): ...

def test_modest(): ...
"""


def run(folder: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run pytest over a test file where the machine has no programs at all."""
    (folder / "test_it.py").write_text(text)
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.conftest",
        "--rootdir",
        str(folder),
        "-c",
        "/dev/null",
        *options,
    ]
    env = {"PATH": str(folder), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*words, str(folder)], cwd=folder, env=env, capture_output=True, text=True, timeout=limit(60), check=False
    )


def test_what_did_not_run_is_named_with_the_remedy_and_the_run_succeeds(tmp_path: Path) -> None:
    done = run(tmp_path, NEEDY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not run here: 3 tests, promtool is missing (apt-get install prometheus)" in done.stdout
    assert "1 passed, 3 skipped" in done.stdout


def test_where_nothing_may_be_missing_that_is_a_failure_with_workers_too(tmp_path: Path) -> None:
    done = run(tmp_path, NEEDY, "--nothing-missing", "-n", "1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "not run here: 3 tests, promtool is missing" in done.stdout
    assert "with --nothing-missing that is a failure" in done.stdout


def test_an_unknown_requirement_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    done = run(tmp_path, NEEDY.replace("promtool", "promtol"))
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "promtol" in done.stderr
    assert "'promtool'" in done.stderr
