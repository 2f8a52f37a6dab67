"""The README's tour is true: every command in it is run, in order, and prints what is shown there.

Ids, times, process ids and ports are masked. A command that looks at what happens meanwhile is asked again until it prints
what is shown.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests import forks
from tests.patience import eventually, limit
from tests.plain_http import plain_client
from tests.ports import free_port

from .conftest import environment, installed_python, whenthen_command
from .wheel import ROOT

TOUR = (ROOT / "README.md").read_text(encoding="utf-8").partition("## A five-minute tour\n")[2].partition("\n## ")[0]
#: what looks and changes nothing may be asked again
LOOKS = ("whenthen firings", "whenthen runs", "whenthen automations", "whenthen events")
MASKS = (
    (r"(?:\d{4}-\d\d-\d\d )?\b\d\d:\d\d:\d\d\b", "<time>"),
    (r"\b(?:[0-9a-f]{32}|[0-9a-f]{8}(?=[-.…\s]))", "<id>"),
    (r"process \d+", "process <pid>"),
    (r"nats://127\.0\.0\.1:\d+", "nats://<address>"),
    (r"revision \d+ \([0-9a-f]+\)", "revision <revision>"),
    (r"\b\d+\.\ds\b", "<took>"),
    (r"[ ─]{2,}", "  "),
    (r" +\n", "\n"),
)


@dataclass(frozen=True)
class Command:
    text: str
    shown: str


def steps() -> list[tuple[str, str] | Command]:
    """The tour in order: files, as name and text, and commands with what they are shown to print."""
    found: list[tuple[str, str] | Command] = []
    for kind, block in re.findall(r"^```(\w+)\n(.*?)^```", TOUR, re.DOTALL | re.MULTILINE):
        if kind == "yaml":
            first = block.partition("\n")[0]
            found.append((first.removeprefix("# "), block))
        elif kind == "console":
            for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                text, _, shown = part.partition("\n")
                found.append(Command(text, shown))
    return found


def masked(text: str) -> str:
    text = "\n".join(line.rstrip() for line in text.strip().splitlines()) + "\n"
    for pattern, mask in MASKS:
        text = re.sub(pattern, mask, text)
    return text


@pytest.mark.takes(14)
def test_every_command_of_the_tour_prints_what_is_shown(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    shims = tmp_path / "bin"
    shims.mkdir()
    forks_of_the_wheel = forks.write_shim(shims, python=installed_python())
    path = f"{shims}{os.pathsep}{os.environ['PATH']}"
    env = environment({"PATH": path, "COLUMNS": "80", "WHENTHEN_PORT": str(port), "WHENTHEN_URL": url})
    folder = tmp_path / "tour"
    folder.mkdir()
    server: subprocess.Popen[str] | None = None
    screen = tmp_path / "screen"

    def run(text: str) -> str:
        done = subprocess.run(
            ["bash", "-c", text],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=limit(60),
            check=False,
            pass_fds=[forks_of_the_wheel],
        )
        return (done.stdout + done.stderr).replace(url, "http://127.0.0.1:4280")

    try:
        for step in steps():
            if isinstance(step, tuple):
                target = folder / step[0]
                target.parent.mkdir(exist_ok=True)
                target.write_text(step[1], encoding="utf-8")
            elif step.text.startswith("whenthen serve"):
                with screen.open("w") as out, (tmp_path / "log").open("w") as log:
                    words = [*whenthen_command(), *step.text.split()[1:]]  # as a user starts it
                    server = subprocess.Popen(words, cwd=folder, env=env, stdout=out, stderr=log, text=True)
                eventually(lambda: _ready(url), within_s=30)
                shown = masked(step.shown)
                eventually(
                    lambda shown=shown: masked(screen.read_text().replace(url, "http://127.0.0.1:4280")) == shown
                )
            else:
                printed = run(step.text)
                until = time.monotonic() + limit(20)
                while (
                    masked(printed) != masked(step.shown) and step.text.startswith(LOOKS) and time.monotonic() < until
                ):
                    printed = run(step.text)
                assert masked(printed) == masked(step.shown), f"$ {step.text}\n{printed}"
        assert server is not None
        server.send_signal(signal.SIGINT)
        assert server.wait(limit(60)) == 0
    finally:
        if server is not None and server.poll() is None:
            server.terminate()
            server.wait(limit(60))


def test_the_two_commands_are_targets_of_make() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = subprocess.run(
        ["make", "-C", str(ROOT), "--no-print-directory"], capture_output=True, text=True, check=True
    )
    for target in ("demo", "test"):
        assert f"make {target} " in text
        assert f"make {target} " in listed.stdout


def test_every_page_and_folder_that_is_named_exists() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "examples" / "README.md"]:
        for link in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def _ready(url: str) -> bool:
    try:
        with plain_client(base_url=url) as client:
            return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False
