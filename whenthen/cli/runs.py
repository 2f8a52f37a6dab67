"""What runs: deployments, and flow runs with their logs."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whenthen.cli.command_groups import new_group
from whenthen.cli.lists.given_values import read_pairs_for
from whenthen.cli.lists.listings import (
    ID,
    SINCE,
    TEXT,
    UNTIL,
    Column,
    Filter,
    Listing,
    add_listing,
    joined,
    local_time,
    print_items,
)
from whenthen.cli.lists.newest import id_of
from whenthen.cli.lists.run_changes import (
    RunArgument,
    cancel_run,
    delete_run,
    pause_run,
    resume_run,
    retry_run,
    set_run_state,
    suspend_run,
)
from whenthen.cli.lists.shown_things import print_next, run_commands
from whenthen.cli.lists.tables import Shape
from whenthen.cli.options import DEFAULT_URL, MAX_PAGE, CaOption, JsonOption, Output, UrlOption
from whenthen.cli.output import errors, escape, print_document, print_json, print_lines, stdout, visible

if TYPE_CHECKING:
    from whenthen.cli.client import Client

__all__ = ["add_commands"]

FOLLOW_EVERY_S = 0.3
_LOG_PAGE = 10_000
_TASK_RUNS = 200  #: that are shown of one run
_UNDER_WAY = frozenset({"Running", "Paused", "Cancelling"})  #: states in which an attempt goes on

DeploymentArgument = Annotated[
    str, typer.Argument(metavar="DEPLOYMENT", help="The deployment's name.", show_default=False)
]
ScheduleOption = Annotated[str | None, typer.Option("--schedule", "-s", help="Only this schedule; default: all.")]

DEPLOYMENTS = Listing(
    about="Deployments: what can be run, and when it runs by itself.",
    route="/api/deployments",
    columns=(
        Column(title="NAME", value="name", shape=Shape.NAME),
        Column(title="RUNS", value="runs", shape=Shape.NAME),
        Column(title="POOL", value="work_pool", shape=Shape.NAME),
        Column(title="TAGS", value=joined("tags"), shape=Shape.NAME, optional=True),
        Column(
            title="SCHEDULES",
            value=lambda item: "; ".join(map(_schedule, item["schedules"])),
            shape=Shape.TEXT,
            optional=True,
        ),
    ),
    empty="no deployments",
)
RUNS = Listing(
    about="Flow runs, newest first.",
    route="/api/runs",
    columns=(
        Column(title="CREATED", value=local_time("created")),
        Column(title="DEPLOYMENT", value="deployment", shape=Shape.NAME),
        Column(title="STATE", value="state"),
        Column(title="TOOK", value=lambda item: _duration(item), shape=Shape.NUMBER),
        Column(title="TRIGGERED BY", value="triggered_by", shape=Shape.NAME),
        Column(title="ID", value="id", shape=Shape.ID),
        Column(title="MESSAGE", value="message", shape=Shape.TEXT, optional=True),
    ),
    empty="no runs",
    filters=(
        Filter(name="deployment", flags=("--deployment", "-d"), help="Of this deployment."),
        Filter(name="state", help="In this state: Running, Failed, ..."),
        Filter(name="work_pool", help="Of this work pool."),
        Filter(name="automation", flags=("--automation", "-a"), help="That this automation started."),
        Filter(name="firing", help="That the firing with this id started."),
        ID,
        SINCE,
        UNTIL,
        TEXT,
    ),
    most=MAX_PAGE,
)

TASK_RUNS = (
    Column(title="STARTED", value=local_time("started")),
    Column(title="KIND", value="kind"),
    Column(title="NAME", value="name", shape=Shape.NAME),
    Column(title="STATE", value="state"),
    Column(title="TRIES", value="tries", shape=Shape.NUMBER),
    Column(title="TOOK", value=lambda item: _took(item), shape=Shape.NUMBER),
    Column(title="ID", value="id", shape=Shape.ID),
    Column(title="MESSAGE", value="message", shape=Shape.TEXT, optional=True),
)


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    deployments = new_group(app, "deployments", DEPLOYMENTS.about)
    add_listing(deployments, DEPLOYMENTS)
    deployments.command("show")(show_deployment)
    deployments.command("run")(run_deployment)
    deployments.command("pause")(pause_deployment)
    deployments.command("resume")(resume_deployment)
    deployments.command("backfill")(backfill_deployment)
    deployments.command("remove")(remove_deployment)
    runs = new_group(app, "runs", RUNS.about)
    add_listing(runs, RUNS)
    runs.command("show")(show_run)
    runs.command("logs")(run_logs)
    runs.command("cancel")(cancel_run)
    runs.command("retry")(retry_run)
    runs.command("pause")(pause_run)
    runs.command("suspend")(suspend_run)
    runs.command("resume")(resume_run)
    runs.command("set-state")(set_run_state)
    runs.command("delete")(delete_run)


_next_time = local_time("next")


def _schedule(schedule: dict[str, Any]) -> str:
    zone = "" if schedule["timezone"] == "UTC" else f" {schedule['timezone']}"
    state = "paused" if schedule["paused"] else f"next {_next_time(schedule)}" if schedule["next"] else "over"
    return f"{schedule['name']}: {schedule['when']}{zone} ({state})"


@errors
def show_deployment(
    name: DeploymentArgument, url: UrlOption = DEFAULT_URL, ca: CaOption = None, as_json: JsonOption = False
) -> None:
    """One deployment."""
    from whenthen.cli.client import Client, quoted

    with Client.connect(url, ca) as client:
        print_document(client.get(f"/api/deployments/{quoted(name)}"), as_json=as_json)


@errors
def run_deployment(
    name: DeploymentArgument,
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            "-p",
            help="name=value; a value that is JSON keeps its type, but where the function takes a text. Several times.",
        ),
    ] = None,
    key: Annotated[str | None, typer.Option(help="Two calls with one key give one run.")] = None,
    delay: Annotated[float, typer.Option(min=0, help="Start so many seconds from now.")] = 0,
    wait: Annotated[
        bool, typer.Option("--wait", "-w", help="Show its log until it ends; exit 1 unless it completes.")
    ] = False,
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start a run of a deployment."""
    from whenthen.cli.client import Client, quoted

    body: dict[str, Any] = {}
    if key is not None:
        body["key"] = key
    if delay:
        body["delay"] = delay
    with Client.connect(url, ca) as client:
        address = f"/api/deployments/{quoted(name)}"
        body["parameters"] = read_pairs_for(param or [], "--param", lambda: client.get(address).get("parameter_schema"))
        run = client.post(f"{address}/run", body)
        if not as_json:
            stdout().print(f"{escape(name)}: run {run['id']} is {run['state']}")
        if wait:
            _print_log(client, run["id"], follow=True, times=False, as_json=False, quiet=as_json)
            run = _ended(client, run["id"])
            if not as_json:
                stdout().print(_ending(run))
        if as_json:
            print_json(run)
        if wait and run["state"] != "Completed":
            raise typer.Exit(1)


@errors
def pause_deployment(
    name: DeploymentArgument,
    schedule: ScheduleOption = None,
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Pause a deployment's schedules. Runs that are asked for otherwise still start."""
    _switch(name, "pause", schedule, url, ca, as_json)


@errors
def remove_deployment(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="As listed.", show_default=False)],
    preview: Annotated[bool, typer.Option("--preview", help="Say what would change, and change nothing.")] = False,
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take out deployments that were registered by `whenthen deploy`, deploy(...) or serve(...). Those of rules files stay."""
    from whenthen.cli.deploys.deploy_command import remove_registered

    remove_registered(names, preview=preview, url=url, ca=ca, as_json=as_json)


@errors
def resume_deployment(
    name: DeploymentArgument,
    schedule: ScheduleOption = None,
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Resume a deployment's schedules; what passed meanwhile is not made up for."""
    _switch(name, "resume", schedule, url, ca, as_json)


@errors
def backfill_deployment(
    name: DeploymentArgument,
    since: Annotated[
        str, typer.Option("--from", help="The first time: 2026-01-01, a time with its offset, or how long ago (7d).")
    ],
    until: Annotated[str, typer.Option("--to", help="Before this time, as --from.")] = "0s",
    schedule: Annotated[
        str | None, typer.Option("--schedule", "-s", help="Of this schedule; may be left out where there is one.")
    ] = None,
    yes: Annotated[
        bool,
        typer.Option(
            "--yes", "-y", help="Start them without a question; --json asks none, and starts nothing without it."
        ),
    ] = False,
    preview: Annotated[bool, typer.Option("--preview", help="Show what would be started, and start nothing.")] = False,
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start a run for each time of a schedule in the past, at most 1,000; a time that had its run gets no other."""
    from whenthen.cli.client import Client, quoted

    route = f"/api/deployments/{quoted(name)}/backfill"
    query = {"since": _moment(since), "until": _moment(until), "schedule": schedule}
    with Client.connect(url, ca) as client:
        found = client.get(route, **query)
        if not as_json:
            _print_backfill(found)
        if not preview and found["count"] and (yes or (not as_json and typer.confirm(f"Start {found['count']} runs?"))):
            # what was shown is what is started
            found = client.post(route, **{**query, "expected": found["count"]})
            if not as_json:
                before = f"; {found['there_before']} times had theirs before" if found["there_before"] else ""
                stdout().print(f"{found['started']} runs are started{before}")
    if as_json:
        print_json(found)


def _print_backfill(found: dict[str, Any]) -> None:
    out = stdout()
    out.print(escape(f"{found['deployment']}, schedule {found['schedule']}: {found['count']} times"))
    for at in found["times"]:
        out.print(f"  {local_time('at')({'at': at})}")
    if found["count"] > len(found["times"]):
        out.print(f"  ... to {local_time('last')(found)}")


def _moment(text: str) -> str:
    """A day alone is its beginning here."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return text
    return datetime.combine(day, datetime.min.time()).astimezone().isoformat()


def _switch(name: str, verb: str, schedule: str | None, url: str, ca: str | None, as_json: bool) -> None:
    from whenthen.cli.client import Client, quoted

    with Client.connect(url, ca) as client:
        found = client.post(f"/api/deployments/{quoted(name)}/{verb}", schedule=schedule)
    if as_json:
        print_json(found)
        return
    for item in found["schedules"]:
        stdout().print(escape(f"{name}: {_schedule(item)}"))
    if not found["schedules"]:
        stdout().print(f"{escape(name)} has no schedules")


@errors
def show_run(
    run_id: RunArgument, url: UrlOption = DEFAULT_URL, ca: CaOption = None, as_json: JsonOption = False
) -> None:
    """One flow run, and the runs of tasks and flows in it."""
    from whenthen.cli.client import Client, quoted

    with Client.connect(url, ca) as client:
        run = client.get(f"/api/runs/{quoted(id_of(client, 'runs', run_id))}")
        below = client.get(f"/api/runs/{quoted(run['id'])}/task-runs", limit=_TASK_RUNS)
        shown = client.get("/api/artifacts", run=run["id"], limit=1)
    if as_json:
        print_json(run | below)
        return
    print_document({name: value for name, value in run.items() if value not in (None, [], {}, "")}, as_json=False)
    if below["task_runs"]:
        stdout().print()
        print_items(TASK_RUNS, below["task_runs"], output=Output.TABLE, empty="")
    if below["total"] > len(below["task_runs"]):
        stdout().print(f"{below['total'] - len(below['task_runs'])} more: GET /api/runs/{run['id']}/task-runs")
    print_next([*run_commands(run), *([["artifacts", "--run", run["id"]]] if shown else [])])


@errors
def run_logs(
    run_id: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", min=1, max=_LOG_PAGE, help="Only so many of the last lines.")
    ] = None,
    times: Annotated[bool, typer.Option("--times", "-t", help="When each line was written.")] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Print control characters as they are, colours among them.")
    ] = False,
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line.")] = False,
) -> None:
    """What a flow run wrote. Control characters are escaped."""
    from whenthen.cli.client import Client, quoted

    with Client.connect(url, ca) as client:
        # resolved once, and not with every page of a log that is followed
        full = client.get(f"/api/runs/{quoted(id_of(client, 'runs', run_id))}")["id"]
        _print_log(client, full, follow=follow, times=times, as_json=as_json, raw=raw, tail=tail)


def _print_log(
    client: Client,
    run_id: str,
    *,
    follow: bool,
    times: bool,
    as_json: bool,
    raw: bool = False,
    quiet: bool = False,
    tail: int | None = None,
) -> None:
    from whenthen.cli.client import quoted

    after, attempt = 0, 1
    try:
        while True:
            found = client.get(f"/api/runs/{quoted(run_id)}/logs", after=after, limit=_LOG_PAGE, tail=tail)
            tail = None
            lines = found["lines"]
            if as_json:
                print_lines(lines)
            elif not quiet:
                shown = []
                for line in lines:
                    if line["attempt"] != attempt:
                        attempt = line["attempt"]
                        shown.append(f"--- attempt {attempt} ---")
                    text = _log_text(line) if raw else visible(_log_text(line))
                    shown.append(f"{_log_time(line['at'])}  {text}" if times else text)
                if shown:
                    typer.echo("\n".join(shown))
            after = found["next"]
            more = found.get("more", len(lines) >= _LOG_PAGE)  # a page ends early, too, for its size
            if found["done"] or not (follow or more):
                return
            if not more:
                time.sleep(FOLLOW_EVERY_S)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _ended(client: Client, run_id: str) -> dict[str, Any]:
    """The run once it has ended."""
    from whenthen.cli.client import quoted
    from whenthen.schemas.deployments import TERMINAL

    while True:
        run: dict[str, Any] = client.get(f"/api/runs/{quoted(run_id)}")
        if run["state"] in TERMINAL:
            return run
        time.sleep(FOLLOW_EVERY_S)


def _ending(run: dict[str, Any]) -> str:
    import orjson

    colour = "green" if run["state"] == "Completed" else "red"
    message = f": {escape(run['message'])}" if run["message"] else ""
    result = "" if run.get("result") is None else f" with {escape(orjson.dumps(run['result']).decode())}"
    return f"[{colour}]{run['state']}[/]{result} after {_duration(run)}{message}"


def _duration(run: Mapping[str, Any]) -> str:
    if not run["started"]:
        return ""
    if run["state"] in _UNDER_WAY:
        until = datetime.now(UTC)
    else:
        until = datetime.fromisoformat(run["ended"] or run["changed"])
    return f"{max((until - datetime.fromisoformat(run['started'])).total_seconds(), 0):.1f}s"


def _took(task_run: Mapping[str, Any]) -> str:
    if not task_run["started"] or not task_run["ended"]:
        return ""
    took = datetime.fromisoformat(task_run["ended"]) - datetime.fromisoformat(task_run["started"])
    return f"{max(took.total_seconds(), 0):.1f}s"


def _log_text(line: Mapping[str, Any]) -> str:
    """The text of a line, and in front of it the level of what was logged, and the task run that logged it."""
    level = line.get("level", 0)
    if not level:
        return str(line["text"])
    name = f"{line['name']} - " if line.get("name") else ""
    return f"{logging.getLevelName(level):<8} {name}{line['text']}"


def _log_time(text: str) -> str:
    return datetime.fromisoformat(text).astimezone().strftime("%H:%M:%S.%f")[:-3]
