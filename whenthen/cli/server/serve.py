"""`whenthen serve` and `whenthen worker`: their options, and the settings made of them.

The engine is imported when one of them runs: their help needs none of it. By then `cli.main` has forked: these commands run in the
child of a parent that starts it again, and the page that the two share is the object of the command line's context.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from whenthen.cli.output import errors, fail

if TYPE_CHECKING:
    from whenthen.supervision import SharedPage

__all__ = ["add_commands"]

RulesArgument = Annotated[
    Path | None,
    typer.Argument(
        help="A folder of YAML files, or one file. Without it: the rules that another process published.",
        show_default=False,
    ),
]
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
    context: typer.Context,
    rules: RulesArgument = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on; 127.0.0.1 by default.")] = None,
    port: Annotated[int | None, typer.Option(help="The port to listen on; 0 takes a free one. Default: 4280.")] = None,
    data_dir: DataDir = None,
    nats: NatsUrl = None,
    role: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE",
            help="Do only this: api, evaluator, executor, worker, scheduler, source or history; may be given several times. "
            "Default: everything.",
        ),
    ] = None,
    pool: Annotated[list[str] | None, typer.Option(help="Work pools to take runs of. Default: all.")] = None,
    shards: Annotated[int | None, typer.Option(help="Into how many parts the automations are divided.")] = None,
    replicas: Annotated[int | None, typer.Option(help="Copies of each stream in a NATS cluster.")] = None,
    history: Annotated[
        str | None, typer.Option(help="A PostgreSQL database for the history. Default: SQLite in the data directory.")
    ] = None,
    config: Config = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
) -> None:
    """Run everything on this machine, or a part of a cluster. Ctrl-C drains and stops."""
    with _page_of(context) as page:
        from whenthen.cli.server.run_server import run_server
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
                "history": history,
                "config": config,
                "log_format": log_format,
                "log_level": log_level,
            }
        )
        run_server(settings, rules, roles=roles, pools=tuple(pool or ()), page=page)


@errors
def worker(
    context: typer.Context,
    rules: RulesArgument = None,
    nats: NatsUrl = None,
    pool: Annotated[list[str] | None, typer.Option(help="Work pools to take runs of. Default: all.")] = None,
    data_dir: DataDir = None,
    config: Config = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
) -> None:
    """Take flow runs and nothing else; needs --nats."""
    with _page_of(context) as page:
        from whenthen.cli.server.run_server import run_server
        from whenthen.engine.process import Role, load_settings

        settings = load_settings(
            {"data_dir": data_dir, "nats_url": nats, "config": config, "log_format": log_format, "log_level": log_level}
        )
        run_server(settings, rules, roles=frozenset({Role.WORKER}), pools=tuple(pool or ()), page=page)


@contextlib.contextmanager
def _page_of(context: typer.Context) -> Iterator[SharedPage]:
    """The page that is shared with the parent; the parent learns which errors a new start does not mend."""
    from whenthen.supervision import SharedPage

    page = context.obj if isinstance(context.obj, SharedPage) else SharedPage()
    try:
        yield page
    except Exception as error:
        from whenthen.schemas.errors import BusUnavailable, WhenthenError

        if isinstance(error, (WhenthenError, typer.Exit)) and not isinstance(error, BusUnavailable):
            page.mark_for_good()
        raise
