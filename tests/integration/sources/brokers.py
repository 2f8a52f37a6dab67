"""Real brokers for tests, which may be killed and started again: Debian's programs, in a folder of the test."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.patience import eventually
from tests.ports import free_port

__all__ = ["Program", "mosquitto", "rabbitmq", "redis", "running_rabbitmq"]


class Program:
    """A server that listens at `port` when it is up."""

    def __init__(self, words: Sequence[object], port: int, log: Path, *, env: Mapping[str, str] | None = None) -> None:
        self._env = env
        self.port = port
        self._words = [str(word) for word in words]
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = process = subprocess.Popen(
                self._words, stdout=log, stderr=log, env=self._env, start_new_session=True
            )

        def listens() -> bool:
            assert process.poll() is None, self._log.read_text()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        eventually(listens, within_s=30)

    def reload(self) -> None:
        """Have it read its files again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def run(self, *words: object) -> str:
        """What a command of the server's prints that is run as the server is."""
        done = subprocess.run([str(word) for word in words], env=self._env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)  # with what a script of it started
            self._process.wait()
            self._process = None


def redis(folder: Path) -> Program:
    folder.mkdir()
    port = free_port()
    words = ["redis-server", "--port", port, "--dir", folder, "--appendonly", "yes", "--appendfsync", "always"]
    return Program([*words, "--bind", "127.0.0.1", "--save", ""], port, folder / "log")


def mosquitto(folder: Path, *, passwords: Path | None = None, much: bool = False) -> Program:
    """With a file of `passwords` nobody else is let in. One for `much` keeps any number of messages, and writes to its file now and then alone."""
    folder.mkdir()
    who = "allow_anonymous true" if passwords is None else f"allow_anonymous false\npassword_file {passwords}"
    port = free_port()
    program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    file = folder / "mosquitto.conf"
    kept = "autosave_interval 1\nautosave_on_changes true\n"
    file.write_text(
        f"listener {port} 127.0.0.1\n{who}\npersistence true\npersistence_location {folder}/\nuser root\n"
        + ("max_queued_messages 0\n" if much else kept)
    )
    return Program([program, "-c", file], port, folder / "log")


def rabbitmq(folder: Path) -> Program:
    folder.mkdir()
    port, distribution = free_port(), free_port()
    file = folder / "rabbitmq.conf"
    file.write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\n")
    env = {
        **os.environ,
        "HOME": str(folder),
        "RABBITMQ_CONFIG_FILE": str(file),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "logs"),
        "RABBITMQ_NODENAME": f"test{port}@localhost",
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }
    # the one in /usr/sbin becomes another user
    return Program(["/usr/lib/rabbitmq/bin/rabbitmq-server"], port, folder / "log", env=env)


@contextmanager
def running_rabbitmq(folder: Path) -> Iterator[Program]:
    """A RabbitMQ that takes logins, which it does later than it listens."""
    server = rabbitmq(folder)
    try:
        server.start()
        server.run("/usr/lib/rabbitmq/bin/rabbitmqctl", "-q", "await_startup")
        yield server
    finally:
        server.kill()
