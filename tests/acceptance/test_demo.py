"""`whenthen demo` shows every step and leaves nothing behind; told to stop, it stops its server."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from tests import forks
from tests.patience import eventually, limit
from whenthen.cli.demo.story import CHAPTERS

from .conftest import environment, installed_python, run_command


def test_the_demo_observes_every_step_and_tells_it() -> None:
    done = run_command("demo")
    assert done.returncode == 0, done.stdout + done.stderr
    for number, chapter in enumerate(CHAPTERS, 1):
        assert f"{number}  {chapter.title}" in done.stdout
    assert "Every step was observed" in done.stdout
    process = re.search(r"process (\d+)", done.stdout)
    assert process is not None
    assert not Path(f"/proc/{process[1]}").exists()
    folder = re.search(r"rules in (\S+)", done.stdout)
    assert folder is not None
    assert not Path(folder[1]).exists()


def test_a_kept_demo_is_a_project_that_passes_its_own_tests(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    done = run_command("demo", "--keep", kept)
    assert done.returncode == 0, done.stdout + done.stderr
    assert run_command("test", kept / "project").returncode == 0
    assert (kept / "project" / "rules.schema.json").is_file()
    assert "whenthen" in (kept / "server.log").read_text()


def test_a_demo_that_is_told_to_stop_stops_its_server(tmp_path: Path) -> None:
    screen = tmp_path / "screen"
    with screen.open("wb") as out:
        words = ["demo", "--keep", str(tmp_path / "kept")]
        demo = forks.start(words, env=environment(), stdout=out, stderr=out, python=installed_python())
    server = int(eventually(lambda: re.search(r"process (\d+)", screen.read_text()), within_s=60)[1])
    assert Path(f"/proc/{server}").exists()
    os.kill(demo.pid, signal.SIGTERM)
    assert demo.wait(limit(60)) == 128 + signal.SIGTERM
    eventually(lambda: not Path(f"/proc/{server}").exists())
