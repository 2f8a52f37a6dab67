"""A real PostgreSQL for tests: Debian's programs, a cluster in a temporary folder, reached over a socket in it.

PostgreSQL refuses to run as root, so that root starts it as `postgres`, who comes with Debian's package.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.patience import eventually

__all__ = ["Postgres", "find_programs", "postgres"]

_SETTINGS = ("fsync=off", "full_page_writes=off", "listen_addresses=", "max_connections=30")


def find_programs() -> Path | None:
    """Where `initdb` and `postgres` are; of several versions the newest."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parent.parent.name))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


class Postgres:
    """A cluster that a test may kill and start again."""

    def __init__(self, folder: Path) -> None:
        programs = find_programs()
        assert programs is not None
        self._programs = programs
        self._folder = folder
        self._user = "postgres" if os.geteuid() == 0 else None
        self._data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            os.chown(folder, account.pw_uid, account.pw_gid)
        subprocess.run(
            [programs / "initdb", "-D", self._data, "-U", "whenthen", "--no-sync", "-E", "UTF8", "--locale", "C.UTF-8"],
            check=True,
            capture_output=True,
            user=self._user,
            cwd=folder,
        )

    def start(self) -> None:
        words = [self._programs / "postgres", "-D", self._data, "-k", self._folder]
        for setting in _SETTINGS:
            words += ["-c", setting]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log, user=self._user, cwd=self._folder)
        process = self._process

        def answers() -> bool:
            assert process.poll() is None, (self._folder / "log").read_text()
            return not subprocess.run([self._programs / "pg_isready", "-q", "-h", self._folder], check=False).returncode

        eventually(answers, within_s=30)

    def stop(self) -> None:
        """At once, as after a crash."""
        if self._process is not None:
            self._process.send_signal(3)  # SIGQUIT: all its processes end, none is left behind
            self._process.wait()
            self._process = None

    def database(self, name: str) -> str:
        """Make an empty database; gives its URL."""
        words = [self._programs / "createdb", "-h", self._folder, "-U", "whenthen", name]
        subprocess.run(words, check=True, capture_output=True)
        return f"postgresql://whenthen@/{name}?host={self._folder}"


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A cluster that runs, and is gone afterwards."""
    with tempfile.TemporaryDirectory(
        prefix="pg", dir="/tmp", ignore_cleanup_errors=True
    ) as folder:  # sockets have short paths
        cluster = Postgres(Path(folder))
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()
