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


def test_a_demo_that_stays_says_how_commands_reach_its_server(tmp_path: Path) -> None:
    demo, screen = started("--stay", folder=tmp_path)
    try:
        told = printed(r"export WHENTHEN_URL=(\S+) WHENTHEN_API_TOKEN=(\S+)\nCtrl-C", demo, screen)
        done = run_command("automations", env={"WHENTHEN_URL": told[1], "WHENTHEN_API_TOKEN": told[2]})
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        demo.terminate()
        demo.wait(limit(60))


def test_a_demo_that_is_told_to_stop_stops_its_server(tmp_path: Path) -> None:
    demo, screen = started("--keep", str(tmp_path / "kept"), folder=tmp_path)
    server = int(printed(r"process (\d+)", demo, screen)[1])
    assert Path(f"/proc/{server}").exists()
    os.kill(demo.pid, signal.SIGTERM)
    assert demo.wait(limit(60)) == 128 + signal.SIGTERM
    eventually(lambda: not Path(f"/proc/{server}").exists())


def started(*options: str, folder: Path) -> tuple[forks.Forked, Path]:
    """A demo, and the file of what it prints."""
    screen = folder / "screen"
    with screen.open("wb") as out:
        words = ["demo", *options]
        return forks.start(words, env=environment(), stdout=out, stderr=out, python=installed_python()), screen


def printed(pattern: str, demo: forks.Forked, screen: Path) -> re.Match[str]:
    """Where the demo, which goes on, prints it."""

    def look() -> re.Match[str] | None:
        ended = demo.poll() is not None
        found = re.search(pattern, screen.read_text())
        assert found is not None or not ended, screen.read_text()
        return found

    found = eventually(look, within_s=60)
    assert found is not None
    return found
