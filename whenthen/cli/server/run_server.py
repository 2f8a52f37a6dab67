"""Runs a server in this process until it is told to stop: event loop, signals, token, and the screen that says what runs.

Called by `whenthen serve` and `whenthen worker`, in the process that does the work.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import SecretStr

from whenthen import __version__
from whenthen.actions.secrets import Redactor
from whenthen.cli.output import escape, stdout
from whenthen.cli.token_files import FILE_NAME, forget_token, note_token, token_of
from whenthen.engine.process import HistoryProcess, Role, Server, Settings, configure_logs
from whenthen.schemas.errors import BusUnavailable, Conflict
from whenthen.supervision import SharedPage

__all__ = ["run_server"]

log = logging.getLogger(__name__)

SAME_S = 0.2  #: within which SIGINT again is the same one: who sends it to the group of processes often sends it to this one, too
CUT_OFF_S = 2.0  #: after the second SIGINT, until the process ends as it is
INTERRUPTED = 128 + signal.SIGINT  #: the exit code of a process that did not end in order


def run_server(
    settings: Settings, rules: Path | None, *, roles: frozenset[Role], pools: tuple[str, ...], page: SharedPage
) -> None:
    """Run a process until it gets SIGTERM or SIGINT; a SIGINT while it drains ends it at once.

    Raises:
        SystemExit: it was ended at once.
        SetupError: it can not start, or a part of it can not go on.
    """
    if page.supervised and not settings.watchdog:
        page.decline()
        os._exit(0)  # nothing was begun; the parent goes on in the place of this process
    redactor = Redactor()
    configure_logs(form=settings.log_format, level=settings.log_level, redact=redactor.text)
    if page.why_not and settings.watchdog:
        log.warning("%s", page.why_not)
    # whoever knows the address finds it there again
    which = "port" if Role.API in roles else "monitoring_port"
    if getattr(settings, which) == 0 and page.port:
        settings = settings.model_copy(update={which: page.port})
    apart = Role.HISTORY in roles and len(roles) > 1
    history = HistoryProcess.fork(settings) if apart else None
    try:
        with asyncio.Runner(loop_factory=_event_loop) as runner:
            runner.run(_serve(settings, rules, roles, pools, redactor, page, history))
    finally:
        if history is not None:
            history.close()


def _event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it exists (uvicorn brings it, but not on Windows): the server spends most of its time in the loop."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def _serve(
    settings: Settings,
    rules: Path | None,
    roles: frozenset[Role],
    pools: tuple[str, ...],
    redactor: Redactor,
    page: SharedPage,
    history: HistoryProcess | None,
) -> None:
    loop = asyncio.get_running_loop()
    starting = asyncio.current_task()
    assert starting is not None

    settings, made = _with_token(settings, roles)
    server = Server(settings, rules, roles=roles, pools=pools, redactor=redactor, page=page, history=history)
    signals = _Signals(server, starting)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, signals.take, number)
    with contextlib.suppress(asyncio.CancelledError):
        async with server:
            page.mark_ready(server.port or server.monitoring_port)
            signals.starting = None
            with _noted(server.address, made):
                _say(server, made, await _login_address(server))
                await server.stopped()
    while starting.cancelling():  # while starting: what had started was stopped
        starting.uncancel()
    if signals.hurried:
        raise SystemExit(INTERRUPTED)


class _Signals:
    """What SIGTERM and SIGINT mean for a server: the first drains it, and a SIGINT after it ends it at once."""

    def __init__(self, server: Server, starting: asyncio.Task[None]) -> None:
        self.starting: asyncio.Task[None] | None = starting  #: what is cancelled while the server is not there yet
        self.hurried = False
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._first_at: float | None = None

    def take(self, number: int) -> None:
        """A signal came."""
        now = self._loop.time()
        if self._first_at is None:
            self._first_at = now
            grace_s = self._server.settings.drain_grace.total_seconds()
            log.info("stopping: what is at hand may go on for %g s; SIGINT (Ctrl-C) ends it at once", grace_s)
            if self.starting is not None:
                self.starting.cancel()
            else:
                self._server.stop()
        elif number == signal.SIGINT and not self.hurried and now - self._first_at > SAME_S:
            self.hurried = True
            log.warning("ending at once: what is at hand is handed back")
            self._server.hurry()
            self._loop.call_later(CUT_OFF_S, os._exit, INTERRUPTED)


def _with_token(settings: Settings, roles: frozenset[Role]) -> tuple[Settings, str | None]:
    """The settings with a token for `/api`; and the token, if it is one that was made here."""
    if Role.API not in roles or settings.open_loopback or settings.token() is not None:
        return settings, None
    token = token_of(settings.data_dir)
    return settings.model_copy(update={"api_token": SecretStr(token)}), token


@contextlib.contextmanager
def _noted(url: str, token: str | None) -> Iterator[None]:
    """Have commands of this user find the token while the server runs. An old note for its address is dropped."""
    if not url:
        yield
        return
    if token is None:
        forget_token(url)
        yield
        return
    try:
        note_token(url, token)
    except OSError as error:
        log.warning(
            "the API token can not be noted for commands of this user: %s: %s; set WHENTHEN_API_TOKEN for them",
            error.filename,
            error.strerror,
        )
    try:
        yield
    finally:
        forget_token(url, token)


async def _login_address(server: Server) -> str:
    """Where a browser logs in once. Only for people at a terminal: what a service prints is kept, and read by others."""
    if not sys.stdout.isatty():
        return ""
    try:
        return await server.login_address()
    except (BusUnavailable, Conflict) as error:
        log.warning("there is no address to log in at: %s", error)
        return ""


def _say(server: Server, made: str | None, login: str) -> None:
    """The one screen that says what listens and what was loaded."""
    status = server.describe().model_dump()
    rules = status["rules"]
    out = stdout()
    out.print(f"[bold]whenthen {__version__}[/] is running (process {status['pid']})")
    if server.address:
        out.print(f"  HTTP      {server.address}  (/api, /hooks/<name>, /metrics, /healthz)")
    if login:
        out.print(f"  log in    {escape(login)}  (once, within ten minutes; whenthen open makes another)")
    if server.monitoring_address:
        out.print(f"  monitor   {server.monitoring_address}  (/metrics, /healthz, /readyz)")
    if made is not None:
        out.print(f"  token     in {escape(str(server.settings.data_dir / FILE_NAME))}  (your commands find it)")
    kind = "embedded, " if status["embedded"] else ""
    out.print(f"  NATS      {status['nats']}  ({kind}data in {escape(str(server.settings.data_dir))})")
    where = f"{escape(rules['path'])}, " if rules["path"] else ""
    out.print(f"  rules     {where}revision {rules['number']} ({rules['revision']})")
    if rules["kept_since"]:
        out.print(
            f"            [bold red]the files are refused; these are the last good rules, of {rules['kept_since']}[/]"
        )
        out.print("            whenthen status says why; mended files are taken at once")
    for note in status["notes"]:
        out.print(f"            [bold yellow]{escape(note)}[/]")
    counts = ", ".join(f"{rules[name]} {name}" for name in ("automations", "webhooks", "deployments", "notifiers"))
    out.print(f"            {counts}")
    for name in server.rule_registry.now.webhooks:
        out.print(f"  webhook   {server.address}/hooks/{escape(name)}")
        for reason in status["secrets_missing"].get(name, ()):
            out.print(f"            [bold yellow]{escape(reason)}[/]")
    if server.roles != Role.all():
        out.print(f"  roles     {', '.join(status['roles'])}")
    if status["pools"]:
        out.print(f"  worker    pools {', '.join(status['pools'])}")
    out.print("  Ctrl-C drains and stops; a second one ends at once.")
