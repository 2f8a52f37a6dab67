"""`whenthen serve` and `whenthen worker`: run a process until it gets SIGTERM or SIGINT.

The engine is imported when one of them runs: their help needs none of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from whenthen import __version__
from whenthen.cli.output import errors, escape, fail, stdout

if TYPE_CHECKING:
    from whenthen.actions import Redactor
    from whenthen.engine.process import Role, Server, Settings

__all__ = ["add_commands"]

log = logging.getLogger(__name__)

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where the embedded NATS server keeps its streams.")]
NatsUrl = Annotated[str | None, typer.Option("--nats", help="An existing NATS server, several with commas.")]
Config = Annotated[Path | None, typer.Option("--config", help="A file of settings (TOML or YAML).")]
LogFormat = Annotated[str | None, typer.Option("--log-format", help="console or json.")]
LogLevel = Annotated[str | None, typer.Option("--log-level", help="debug, info, warning or error.")]


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(serve)
    app.command()(worker)


@errors
def serve(
    rules: Annotated[Path, typer.Argument(help="A folder of YAML files, or one file.", show_default=False)],
    host: Annotated[str | None, typer.Option(help="The address to listen on; 127.0.0.1 by default.")] = None,
    port: Annotated[int | None, typer.Option(help="The port to listen on; 0 takes a free one. Default: 4280.")] = None,
    data_dir: DataDir = None,
    nats: NatsUrl = None,
    role: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE",
            help="Do only this: api, evaluator, executor, worker or scheduler; may be given several times. "
            "Default: everything.",
        ),
    ] = None,
    pool: Annotated[list[str] | None, typer.Option(help="Work pools to take runs of. Default: all.")] = None,
    shards: Annotated[int | None, typer.Option(help="Into how many parts the automations are divided.")] = None,
    replicas: Annotated[int | None, typer.Option(help="Copies of each stream in a NATS cluster.")] = None,
    config: Config = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
) -> None:
    """Run everything on this machine, or a part of a cluster. Ctrl-C drains and stops."""
    from whenthen.engine.process import Role, load_settings

    names = [item.value for item in Role]
    for name in role or ():
        if name not in names:
            fail(f"--role {name[:80]!r} is none of {', '.join(names)}", 2)
    roles = frozenset(map(Role, role)) if role else Role.all()
    settings = load_settings(
        {
            "host": host,
            "port": port,
            "data_dir": data_dir,
            "nats_url": nats,
            "shards": shards,
            "replicas": replicas,
            "config": config,
            "log_format": log_format,
            "log_level": log_level,
        }
    )
    _run(settings, rules, roles, tuple(pool or ()))


@errors
def worker(
    rules: Annotated[Path, typer.Argument(help="A folder of YAML files, or one file.", show_default=False)],
    nats: NatsUrl = None,
    pool: Annotated[list[str] | None, typer.Option(help="Work pools to take runs of. Default: all.")] = None,
    data_dir: DataDir = None,
    config: Config = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
) -> None:
    """Take flow runs and nothing else; needs --nats."""
    from whenthen.engine.process import Role, load_settings

    settings = load_settings(
        {"data_dir": data_dir, "nats_url": nats, "config": config, "log_format": log_format, "log_level": log_level}
    )
    _run(settings, rules, frozenset({Role.WORKER}), tuple(pool or ()))


def _run(settings: Settings, rules: Path, roles: frozenset[Role], pools: tuple[str, ...]) -> None:
    from whenthen.actions import Redactor
    from whenthen.engine.process import configure_logs

    redactor = Redactor()
    configure_logs(form=settings.log_format, level=settings.log_level, redact=redactor.text)
    with asyncio.Runner(loop_factory=_event_loop) as runner:
        runner.run(_serve(settings, rules, roles, pools, redactor))


def _event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it exists (uvicorn brings it, but not on Windows): the server spends most of its time in the loop."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def _serve(
    settings: Settings, rules: Path, roles: frozenset[Role], pools: tuple[str, ...], redactor: Redactor
) -> None:
    from whenthen.engine.process import Server

    loop = asyncio.get_running_loop()
    starting = asyncio.current_task()
    assert starting is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, starting.cancel)
    settings, made = _with_token(settings, roles)
    server = Server(settings, rules, roles=roles, pools=pools, redactor=redactor)
    with contextlib.suppress(asyncio.CancelledError):
        async with server:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, server.stop)
            with _noted(server.address, made):
                _say(server, made)
                await server.stopped()
        return
    # cancelled while starting: what had started was stopped
    starting.uncancel()


def _with_token(settings: Settings, roles: frozenset[Role]) -> tuple[Settings, str | None]:
    """The settings with a token for `/api`; and the token, if it is one that was made here."""
    from pydantic import SecretStr

    from whenthen.cli.token_files import token_of
    from whenthen.engine.process import Role

    if Role.API not in roles or settings.open_loopback or settings.token() is not None:
        return settings, None
    token = token_of(settings.data_dir)
    return settings.model_copy(update={"api_token": SecretStr(token)}), token


@contextlib.contextmanager
def _noted(url: str, token: str | None) -> Iterator[None]:
    """Have commands of this user find the token while the server runs. An old note for its address is dropped."""
    from whenthen.cli.token_files import forget_token, note_token

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


def _say(server: Server, made: str | None) -> None:
    """The one screen that says what listens and what was loaded."""
    from whenthen.cli.token_files import FILE_NAME
    from whenthen.engine.process import Role

    status = server.describe().model_dump()
    rules = status["rules"]
    out = stdout()
    out.print(f"[bold]whenthen {__version__}[/] is running (process {status['pid']})")
    if server.address:
        out.print(f"  HTTP      {server.address}  (/api, /hooks/<name>, /metrics, /healthz)")
    if made is not None:
        out.print(f"  token     in {escape(str(server.settings.data_dir / FILE_NAME))}  (your commands find it)")
    kind = "embedded, " if status["embedded"] else ""
    out.print(f"  NATS      {status['nats']}  ({kind}data in {escape(str(server.settings.data_dir))})")
    out.print(f"  rules     {escape(rules['path'])}, revision {rules['revision']}")
    if rules["kept_since"]:
        out.print(
            f"            [bold red]the files are refused; these are the last good rules, of {rules['kept_since']}[/]"
        )
        out.print("            whenthen status says why; mended files are taken at once")
    counts = ", ".join(f"{rules[name]} {name}" for name in ("automations", "webhooks", "deployments", "notifiers"))
    out.print(f"            {counts}")
    for name in server.rule_registry.now.webhooks:
        out.print(f"  webhook   {server.address}/hooks/{escape(name)}")
    if server.roles != Role.all():
        out.print(f"  roles     {', '.join(status['roles'])}")
    if status["pools"]:
        out.print(f"  worker    pools {', '.join(status['pools'])}")
    out.print("  Ctrl-C drains and stops.")
