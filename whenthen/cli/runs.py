"""What runs and what was done: deployments, flow runs with their logs, actions and dead letters."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated, Any

import orjson
import typer
from rich.markup import escape

from whenthen.cli.client import DEFAULT_URL, MAX_PAGE, ApiError, Client, JsonOption, LimitOption, UrlOption, quoted
from whenthen.cli.inspect import asked, group, local_time, print_document
from whenthen.cli.output import cell, errors, fail, print_json, print_lines, print_table, stdout
from whenthen.schemas import InvalidInput, NotFound

__all__ = ["add_commands", "read_parameters"]

FOLLOW_EVERY_S = 0.3
_LOG_PAGE = 1000

DeploymentArgument = Annotated[
    str, typer.Argument(metavar="DEPLOYMENT", help="The deployment's name.", show_default=False)
]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="The run's id, how it begins, or `last`.", show_default=False)
]
ScheduleOption = Annotated[str | None, typer.Option("--schedule", "-s", help="Only this schedule; default: all.")]


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    deployments = group(
        app, "deployments", "Deployments: what can be run, and when it runs by itself.", list_deployments
    )
    deployments.command("show")(show_deployment)
    deployments.command("run")(run_deployment)
    deployments.command("pause")(pause_deployment)
    deployments.command("resume")(resume_deployment)
    runs = group(app, "runs", "Flow runs, newest first.", list_runs)
    runs.command("show")(show_run)
    runs.command("logs")(run_logs)
    runs.command("cancel")(cancel_run)
    actions = group(app, "actions", "Actions of firings and what became of them, newest first.", list_actions)
    actions.command("dead")(dead_actions)
    actions.command("redrive")(redrive_actions)


@errors
def list_deployments(context: typer.Context, url: UrlOption = DEFAULT_URL, as_json: JsonOption = False) -> None:
    """Deployments: what can be run, and when it runs by itself."""
    if not asked(context):
        return
    with Client.connect(url) as client:
        found = client.get("/api/deployments")
    if as_json:
        print_json(found)
        return
    rows = [
        (
            item["name"],
            item["runs"],
            item["work_pool"],
            "; ".join(map(_schedule, item["schedules"])),
            cell(item, "tags"),
        )
        for item in found
    ]
    print_table(["NAME", "RUNS", "POOL", "SCHEDULES", "TAGS"], rows, empty="no deployments")


def _schedule(schedule: dict[str, Any]) -> str:
    zone = "" if schedule["timezone"] == "UTC" else f" {schedule['timezone']}"
    state = "paused" if schedule["paused"] else f"next {local_time(schedule['next'])}" if schedule["next"] else "over"
    return f"{schedule['name']}: {schedule['when']}{zone} ({state})"


@errors
def show_deployment(name: DeploymentArgument, url: UrlOption = DEFAULT_URL, as_json: JsonOption = False) -> None:
    """One deployment."""
    with Client.connect(url) as client:
        print_document(client.get(f"/api/deployments/{quoted(name)}"), as_json=as_json)


@errors
def run_deployment(
    name: DeploymentArgument,
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param", "-p", help="name=value; a value that is JSON keeps its type. May be given several times."
        ),
    ] = None,
    key: Annotated[str | None, typer.Option(help="Two calls with one key give one run.")] = None,
    delay: Annotated[float, typer.Option(min=0, help="Start so many seconds from now.")] = 0,
    wait: Annotated[
        bool, typer.Option("--wait", "-w", help="Show its log until it ends; exit 1 unless it completes.")
    ] = False,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Start a run of a deployment."""
    body: dict[str, Any] = {"parameters": read_parameters(param or [])}
    if key is not None:
        body["key"] = key
    if delay:
        body["delay"] = delay
    with Client.connect(url) as client:
        run = client.post(f"/api/deployments/{quoted(name)}/run", body)
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
    as_json: JsonOption = False,
) -> None:
    """Pause a deployment's schedules. Runs that are asked for otherwise still start."""
    _switch(name, "pause", schedule, url, as_json)


@errors
def resume_deployment(
    name: DeploymentArgument,
    schedule: ScheduleOption = None,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Resume a deployment's schedules; what passed meanwhile is not made up for."""
    _switch(name, "resume", schedule, url, as_json)


def _switch(name: str, verb: str, schedule: str | None, url: str, as_json: bool) -> None:
    with Client.connect(url) as client:
        found = client.post(f"/api/deployments/{quoted(name)}/{verb}", schedule=schedule)
    if as_json:
        print_json(found)
        return
    for item in found["schedules"]:
        stdout().print(escape(f"{name}: {_schedule(item)}"))
    if not found["schedules"]:
        stdout().print(f"{escape(name)} has no schedules")


@errors
def list_runs(
    context: typer.Context,
    deployment: Annotated[str | None, typer.Option("--deployment", "-d", help="Of this deployment.")] = None,
    state: Annotated[str | None, typer.Option(help="In this state: Running, Failed, ...")] = None,
    work_pool: Annotated[str | None, typer.Option(help="Of this work pool.")] = None,
    limit: LimitOption = 25,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Flow runs, newest first."""
    if not asked(context):
        return
    with Client.connect(url) as client:
        found = list(client.pages("/api/runs", limit=limit, deployment=deployment, state=state, work_pool=work_pool))
    if as_json:
        print_json(found)
        return
    rows = [
        (
            local_time(item["created"]),
            item["deployment"],
            item["state"],
            _duration(item),
            item["triggered_by"],
            item["id"],
            item["message"].partition("\n")[0],
        )
        for item in found
    ]
    print_table(["CREATED", "DEPLOYMENT", "STATE", "TOOK", "TRIGGERED BY", "ID", "MESSAGE"], rows, empty="no runs")


@errors
def show_run(run_id: RunArgument, url: UrlOption = DEFAULT_URL, as_json: JsonOption = False) -> None:
    """One flow run."""
    with Client.connect(url) as client:
        run = client.get(f"/api/runs/{quoted(_run_id(client, run_id))}")
    shown = run if as_json else {name: value for name, value in run.items() if value not in (None, [], {}, "")}
    print_document(shown, as_json=as_json)


@errors
def run_logs(
    run_id: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    times: Annotated[bool, typer.Option("--times", "-t", help="When each line was written.")] = False,
    url: UrlOption = DEFAULT_URL,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line.")] = False,
) -> None:
    """What a flow run wrote."""
    with Client.connect(url) as client:
        _print_log(client, _run_id(client, run_id), follow=follow, times=times, as_json=as_json)


def _print_log(client: Client, run_id: str, *, follow: bool, times: bool, as_json: bool, quiet: bool = False) -> None:
    after = 0
    try:
        while True:
            found = client.get(f"/api/runs/{quoted(run_id)}/logs", after=after, limit=_LOG_PAGE)
            lines = found["lines"]
            if as_json:
                print_lines(lines)
            elif not quiet:
                for line in lines:
                    typer.echo(f"{_log_time(line['at'])}  {line['text']}" if times else line["text"])
            after = found["next"]
            if found["done"] or (not follow and len(lines) < _LOG_PAGE):
                return
            if len(lines) < _LOG_PAGE:
                time.sleep(FOLLOW_EVERY_S)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@errors
def cancel_run(run_id: RunArgument, url: UrlOption = DEFAULT_URL, as_json: JsonOption = False) -> None:
    """Ask a flow run to end."""
    with Client.connect(url) as client:
        run = client.post(f"/api/runs/{quoted(_run_id(client, run_id))}/cancel")
    if as_json:
        print_json(run)
    else:
        stdout().print(f"run {run['id']} is {run['state']}")


@errors
def list_actions(
    context: typer.Context,
    automation: Annotated[str | None, typer.Option("--automation", "-a", help="Of this automation.")] = None,
    kind: Annotated[str | None, typer.Option("--type", help="Of this type: run-deployment, ...")] = None,
    outcome: Annotated[str | None, typer.Option(help="waiting, retrying, executed, or dead.")] = None,
    limit: LimitOption = 25,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Actions of firings and what became of them, newest first."""
    if asked(context):
        _print_actions(url, as_json, limit, automation, kind, outcome, "no actions")


@errors
def dead_actions(
    automation: Annotated[str | None, typer.Option("--automation", "-a", help="Of this automation.")] = None,
    limit: LimitOption = 25,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Dead letters: actions that used up their tries."""
    _print_actions(url, as_json, limit, automation, None, "dead", "no dead letters")


def _print_actions(
    url: str, as_json: bool, limit: int, automation: str | None, kind: str | None, outcome: str | None, empty: str
) -> None:
    with Client.connect(url) as client:
        found = list(client.pages("/api/actions", limit=limit, automation=automation, type=kind, outcome=outcome))
    if as_json:
        print_json(found)
        return
    rows = [
        (
            local_time(item["at"]),
            item["automation"],
            item["type"],
            item["outcome"],
            item["attempt"],
            item["key"],
            (item.get("error") or "").partition("\n")[0],
        )
        for item in found
    ]
    print_table(["AT", "AUTOMATION", "ACTION", "OUTCOME", "TRIES", "KEY", "ERROR"], rows, empty=empty)


@errors
def redrive_actions(
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="KEY", help="Keys of dead letters.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every dead letter.")] = False,
    automation: Annotated[str | None, typer.Option("--automation", "-a", help="With --all: only of this one.")] = None,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Give dead letters new tries."""
    if bool(keys) == everything:
        fail("give the keys of dead letters, or --all", 2)
    with Client.connect(url) as client:
        if everything:
            dead = list(client.pages("/api/actions", limit=100_000, outcome="dead", automation=automation))
            keys = [item["key"] for item in dead]
        done: list[str] = []
        refused: dict[str, str] = {}
        for key in keys or []:
            try:
                client.post(f"/api/actions/{quoted(key)}/redrive")
                done.append(key)
            except ApiError as error:
                refused[key] = str(error)
    if as_json:
        print_json({"redriven": done, "refused": refused})
    else:
        for key in done:
            stdout().print(f"{escape(key)} is tried again")
        for key, message in refused.items():
            stdout().print(f"[red]{escape(key)}[/]: {escape(message)}")
        if not done and not refused:
            stdout().print("no dead letters")
    if refused:
        raise typer.Exit(1)


def read_parameters(texts: list[str]) -> dict[str, Any]:
    """Parameters written as `name=value`: a value that is JSON keeps its type, anything else is text.

    Raises:
        InvalidInput: without a name.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidInput(f"--param: {text[:80]!r} is not name=value")
        try:
            found[name] = orjson.loads(value)
        except orjson.JSONDecodeError:
            found[name] = value
    return found


def _run_id(client: Client, text: str) -> str:
    """The full id of `last`, or for the beginning of one among the last runs; a full one is not looked up."""
    if text == "last":
        runs = client.get("/api/runs", limit=1)
        if not runs:
            raise NotFound("there are no runs yet")
        return str(runs[0]["id"])
    if len(text) >= 32 or len(text) < 4:
        return text
    found = [run["id"] for run in client.get("/api/runs", limit=MAX_PAGE) if run["id"].startswith(text)]
    if len(found) > 1:
        raise InvalidInput(f"{len(found)} runs begin with {text}; give more of the id")
    return found[0] if found else text


def _ended(client: Client, run_id: str) -> dict[str, Any]:
    """The run once it has ended."""
    from whenthen.schemas import TERMINAL

    while True:
        run: dict[str, Any] = client.get(f"/api/runs/{quoted(run_id)}")
        if run["state"] in TERMINAL:
            return run
        time.sleep(FOLLOW_EVERY_S)


def _ending(run: dict[str, Any]) -> str:
    colour = "green" if run["state"] == "Completed" else "red"
    message = f": {escape(run['message'])}" if run["message"] else ""
    result = "" if run.get("result") is None else f" with {escape(orjson.dumps(run['result']).decode())}"
    return f"[{colour}]{run['state']}[/]{result} after {_duration(run)}{message}"


def _duration(run: dict[str, Any]) -> str:
    if not run["started"]:
        return ""
    until = datetime.fromisoformat(run["ended"] or run["changed"])
    return f"{max((until - datetime.fromisoformat(run['started'])).total_seconds(), 0):.1f}s"


def _log_time(text: str) -> str:
    return datetime.fromisoformat(text).astimezone().strftime("%H:%M:%S.%f")[:-3]
