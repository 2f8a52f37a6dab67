"""A script that serves its deployments: registered with the server at hand, with a worker for them as a child process; or, where no server is at
hand, with a `whenthen serve` of its own as a child process, whose data are in `.whenthen` beside the script's working directory.

User code runs in this script and in the processes of runs alone. Called by `serve`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from whenthen.flows.clock import steady
from whenthen.flows.deploying.deployment_values import RunnerDeployment
from whenthen.flows.flow_errors import ConfigurationError, FlowError, ServerError
from whenthen.flows.services.server_requests import ServerAddress
from whenthen.flows.serving.child_command import ChildCommand
from whenthen.flows.serving.registering import DEFAULT_URL, Registering, server_at_hand
from whenthen.noted_tokens import TokenFileError, read_token_file
from whenthen.schemas.work_pools import served_pool

__all__ = ["ServedScript"]

START_S = 120.0  #: that a server or worker may take to be ready
LOOK_S = 0.3  #: above the time within which two signals are one to a server (`cli.server.run_server`)
OWN_RULES = (
    "# Rules of the server that the script starts, beside the deployments that it serves: automations, webhooks, limits.\n"
    "automations: []\n"
)
INTERRUPTED = 128 + signal.SIGINT  #: the exit code of a script that did not end in order
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class ServedScript:
    """Serves until it is stopped. `limit`: how many runs at once, of all deployments together."""

    def __init__(
        self,
        deployments: Sequence[RunnerDeployment],
        *,
        limit: int | None = None,
        pause_on_shutdown: bool = True,
        quiet: bool = False,
    ) -> None:
        self._deployments = deployments
        self._limit = limit
        self._pause_on_shutdown = pause_on_shutdown
        self._quiet = quiet
        self._child: ChildCommand | None = None
        self._stops = 0  #: how often it was asked to stop

    # -- how it is stopped

    def stop(self) -> None:
        """Let runs finish and end; called again, end at once. For any thread and for signal handlers."""
        self._stops += 1

    async def run_in_loop(self) -> None:
        """`run`, for async callers: cancelled, it drains; cancelled again, it ends at once."""
        # no task: at its end `asyncio.run` cancels all of them, and the child would be left to itself
        serving = asyncio.get_running_loop().run_in_executor(None, copy_context().run, self._serve)
        cancelled: asyncio.CancelledError | None = None
        while not serving.done():
            try:
                await asyncio.shield(serving)
            except asyncio.CancelledError as error:
                cancelled = error
                self.stop()
        serving.result()
        if cancelled is not None:
            raise cancelled

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM, when this is the main thread.

        Raises:
            ServerError: the server refuses, or it or the worker does not go on.
            SystemExit: it was ended at once.
        """
        with self._signals():
            self._serve()
        if self._stops > 1:
            raise SystemExit(INTERRUPTED)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def take(_number: int, _frame: Any) -> None:
            self.stop()

        before = {number: signal.signal(number, take) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # -- serving

    def _serve(self) -> None:
        server = server_at_hand()
        own = server is None
        try:
            nats = {} if server is None else _nats_of(server)
            if server is None and (server := self._own_server()) is None:
                return
            registering = Registering(server, quiet=self._quiet)
            names = registering.register(self._deployments, served=True)
            self._begin_schedules(registering)
            if not own:
                others = _workers(server)
                self._child = self._command(["worker", "--nats", nats.pop("WHENTHEN_NATS_URL"), *self._pools()], nats)
                self._wait_for_workers(server, set(others))
            if not self._stops:
                registering.say(
                    f"serving {', '.join(names)} at {server.url}; `whenthen open --url {server.url}` shows the pages. Ctrl-C lets runs "
                    "finish and ends; a second one ends at once"
                )
            self._wait()
            self._end(registering, names, own=own)
        finally:
            self._end_child()

    def _begin_schedules(self, registering: Registering) -> None:
        """Have schedules go on that were paused when this script ended the last time."""
        for one in self._deployments:
            if one.paused:
                registering.pause(one.full_name)
            else:
                schedules = one.as_mapping().get("schedules", ())
                active = {each["name"] for each in schedules if each.get("active", True)}
                registering.resume_schedules(one.full_name, active)

    def _wait(self) -> None:
        """Until it is asked to stop.

        Raises:
            ServerError: the child has ended.
        """
        assert self._child is not None
        while not self._stops:
            if self._child.wait(LOOK_S) is not None:
                raise self._ended_early()

    def _end(self, registering: Registering, names: Sequence[str], *, own: bool) -> None:
        """Stop the child, and pause the schedules of what nobody serves any more."""
        registering.say("stopping: runs may finish; Ctrl-C ends at once")
        if own and self._pause_on_shutdown:
            self._pause(registering, names)
        self._end_child()
        if not own and self._pause_on_shutdown:
            at_work = set(_workers(registering.server).values())
            self._pause(registering, [name for name in names if served_pool(name) not in at_work])

    def _end_child(self) -> None:
        """Have the child drain, which it does within its grace; end it at once when that is asked for."""
        child, told = self._child, 0
        while child is not None and child.exit_code is None:
            if told < max(self._stops, 1):
                told += 1
                child.interrupt()
            child.wait(LOOK_S)

    def _pause(self, registering: Registering, names: Sequence[str]) -> None:
        """Pause the schedules, whose runs nobody would take. What can not be paused keeps nothing from ending."""
        for name in names:
            try:
                registering.pause_schedules(name)
            except FlowError as error:
                registering.say(f"the schedules of {name} are not paused: {error}")

    # -- children

    def _command(self, words: Sequence[str], environment: dict[str, str]) -> ChildCommand:
        limits = {}
        if self._limit is not None:
            limits = {"WHENTHEN_RUNS_AT_ONCE": str(self._limit), "WHENTHEN_WORKER_CONCURRENCY": str(self._limit)}
        return ChildCommand(words, {**limits, **environment})

    def _own_server(self) -> ServerAddress | None:
        """Start a server, and wait until it is ready; None when this is to stop before that."""
        data_dir = Path(os.environ.get("WHENTHEN_DATA_DIR") or ".whenthen").absolute()
        rules = data_dir / "rules"
        try:
            rules.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not any(rules.iterdir()):
                (rules / "rules.yaml").write_text(OWN_RULES)
        except OSError as error:
            raise ConfigurationError(
                f"{rules} can not be made: {error.strerror}; set WHENTHEN_DATA_DIR to a folder for the data of the server"
            ) from None
        port = os.environ.get("WHENTHEN_PORT") or str(_free_port())
        words = ["serve", str(rules), "--data-dir", str(data_dir), "--port", port, "--pool", "default", *self._pools()]
        self._child = self._command(words, {})
        url = f"http://127.0.0.1:{port}"
        self._wait_until("the server", lambda: _is_ready(url))
        return None if self._stops else _server_of(url, data_dir)

    def _wait_for_workers(self, server: ServerAddress, others: Collection[str]) -> None:
        """Until each pool has a worker beside `others`."""
        wanted = {served_pool(one.full_name) for one in self._deployments}
        self._wait_until(
            "the worker",
            lambda: wanted <= {pool for name, pool in _workers(server).items() if name not in others},
        )

    def _wait_until(self, what: str, ready: Callable[[], bool]) -> None:
        """Until `ready()` is true, or it is asked to stop.

        Raises:
            ServerError: the child has ended, or it takes too long.
        """
        assert self._child is not None
        until = steady() + START_S
        while not self._stops and not ready():
            if self._child.wait(LOOK_S) is not None:
                raise self._ended_early()
            if steady() > until:
                raise ServerError(f"{what} is not ready after {START_S:g} s; its log is above")

    def _ended_early(self) -> ServerError:
        assert self._child is not None
        return ServerError(f"{self._child.name} has ended with exit code {self._child.exit_code}; its log is above")

    def _pools(self) -> list[str]:
        return [word for one in self._deployments for word in ("--pool", served_pool(one.full_name))]


def _free_port() -> int:
    """The port of `whenthen serve`, or a free one when that is taken."""
    for port in (urlsplit(DEFAULT_URL).port or 0, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ConfigurationError("there is no free port for a server; set WHENTHEN_URL to the address of one that runs")


def _is_ready(url: str) -> bool:
    try:
        ServerAddress(url, None).get("/readyz")
    except FlowError:
        return False
    return True


def _server_of(url: str, data_dir: Path) -> ServerAddress:
    """The server that this script has started, with its token."""
    found = ServerAddress.at(url)
    if found.has_token:
        return found
    try:  # a state folder that can not be written has no note
        return ServerAddress(url, read_token_file(data_dir / "api-token")[0])
    except (TokenFileError, OSError) as error:
        raise ConfigurationError(f"the token of the server that was started is not found: {error}") from None


def _nats_of(server: ServerAddress) -> dict[str, str]:
    """The variables by which a worker finds the NATS server of a server.

    Raises:
        ConfigurationError: it can not be reached from here.
    """
    if url := os.environ.get("WHENTHEN_NATS_URL"):
        return {"WHENTHEN_NATS_URL": url}
    status = server.get("/api/status")
    credentials = Path(status.get("data_dir") or "/nonexistent") / "nats" / "credentials"
    local = urlsplit(server.url).hostname in LOOPBACK
    if status["embedded"] and local and os.access(credentials, os.R_OK):
        return {"WHENTHEN_NATS_URL": status["nats"], "WHENTHEN_NATS_CREDENTIALS": str(credentials)}
    raise ConfigurationError(
        f"serve(...) starts a worker, which speaks to the NATS server of {server.url}, and that is not known here: set WHENTHEN_NATS_URL, and "
        "WHENTHEN_NATS_CREDENTIALS where it needs them; or register with deploy(...), and start `whenthen worker` where its NATS can be "
        "reached"
    )


def _workers(server: ServerAddress) -> dict[str, str]:
    """The workers that are at work, and the pool of each."""
    return {worker["name"]: worker["pool"] for worker in server.listed("/api/workers") if not worker["lost"]}
