"""Cancelling, retrying, suspending and deleting runs: one, or all that filters choose, whose number is said before anything is changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whenthen.cli.lists.given_values import read_json_file, read_pairs_for
from whenthen.cli.lists.newest import id_of
from whenthen.cli.options import DEFAULT_URL, CaOption, JsonOption, UrlOption
from whenthen.cli.output import errors, escape, fail, print_json, stderr, stdout

if TYPE_CHECKING:
    from whenthen.cli.client import Client

__all__ = [
    "RunArgument",
    "cancel_run",
    "delete_run",
    "pause_run",
    "resume_run",
    "retry_run",
    "set_run_state",
    "suspend_run",
]

MOST_RUNS = 10_000  #: of one command

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="The run's id, as it is listed or in full, or `last`.", show_default=False)
]
RunOrNone = Annotated[
    str | None,
    typer.Argument(metavar="RUN", help="The run's id, as it is listed or in full, or `last`.", show_default=False),
]
OfDeployment = Annotated[str | None, typer.Option("--deployment", "-d", help="All of this deployment.")]
InState = Annotated[str | None, typer.Option("--state", help="All in this state: Running, Failed, ...")]
InPool = Annotated[str | None, typer.Option("--work-pool", help="All of this work pool.")]
Since = Annotated[str | None, typer.Option("--since", help="Not created before: a time, or how long ago, such as 2h.")]
Until = Annotated[str | None, typer.Option("--until", help="Created before: a time, or how long ago.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing; needed with --json and filters.")]

_CHANGED_MEANWHILE = frozenset({404, 409})  #: statuses of an answer that says that the run is no more what it was
_ENDED = frozenset({"Completed", "Failed", "Crashed", "TimedOut", "Cancelled"})
#: the states from which runs that filters choose are changed so
_CHANGED_FROM: dict[str, Callable[[str], bool]] = {
    "cancel": lambda state: state not in _ENDED,
    "retry": lambda state: state in _ENDED,
    "pause": lambda state: state == "Running",
    "suspend": lambda state: state not in _ENDED and state not in ("Suspended", "Cancelling"),
    "delete": lambda state: state in _ENDED,
}


def _is(run: Mapping[str, Any]) -> str:
    return f"{run['deployment']}: run {run['id']} is {run['state']}"


def _cancelled(run: Mapping[str, Any]) -> str:
    if run["state"] in ("Cancelling", "Cancelled"):
        return f"run {run['id']} is {run['state']}"
    return f"run {run['id']} has ended already: {run['state']}"


def _command(verb: str, about: str, said: Callable[[Mapping[str, Any]], str]) -> Callable[..., None]:
    """The command that changes one run, or all that filters choose. `said` is what it says of each."""

    @errors
    def command(
        run_id: RunOrNone = None,
        deployment: OfDeployment = None,
        state: InState = None,
        work_pool: InPool = None,
        since: Since = None,
        until: Until = None,
        yes: Yes = False,
        url: UrlOption = DEFAULT_URL,
        ca: CaOption = None,
        as_json: JsonOption = False,
    ) -> None:
        filters = {"deployment": deployment, "state": state, "work_pool": work_pool, "since": since, "until": until}
        _change(verb, run_id, filters, yes, url, ca, as_json, said=said)

    command.__doc__ = about
    return command


cancel_run = _command("cancel", "Ask a flow run to end, or all that filters choose.", _cancelled)
retry_run = _command(
    "retry",
    "Start a new run like one that has ended, or like each that filters choose. A run is retried once.",
    _is,
)
delete_run = _command(
    "delete",
    "Forget a flow run that has ended, with its log, or all that filters choose.",
    lambda run: f"{run['deployment']}: run {run['id']} is deleted",
)


@errors
def pause_run(
    run_id: RunOrNone = None,
    deployment: OfDeployment = None,
    work_pool: InPool = None,
    since: Since = None,
    until: Until = None,
    yes: Yes = False,
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a run of a flow wait where it next begins a task, or all that filters choose. Their processes stay."""
    filters = {"deployment": deployment, "work_pool": work_pool, "since": since, "until": until}
    _change("pause", run_id, filters, yes, url, ca, as_json)


@errors
def suspend_run(
    run_id: RunOrNone = None,
    lasts: Annotated[
        str | None,
        typer.Option("--for", help="How long it may be resumed, such as 2h; then it fails. Left out: for ever."),
    ] = None,
    deployment: OfDeployment = None,
    state: InState = None,
    work_pool: InPool = None,
    since: Since = None,
    until: Until = None,
    yes: Yes = False,
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Halt a flow run until it is resumed, or all that filters choose. Their processes are stopped."""
    filters = {"deployment": deployment, "state": state, "work_pool": work_pool, "since": since, "until": until}
    body = None if lasts is None else {"for": lasts}
    _change("suspend", run_id, filters, yes, url, ca, as_json, body=body)


@errors
def resume_run(
    run_id: RunArgument,
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            help="name=value of what it waits for; a value that is JSON keeps its type, but where a text is waited for. Several times.",
        ),
    ] = None,
    input_json: Annotated[
        str | None, typer.Option("--input-json", metavar="FILE", help="The whole input as JSON; - is stdin.")
    ] = None,
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a flow run go on that is paused or suspended, with the input that it waits for."""
    from whenthen.cli.client import Client, quoted

    if given and input_json is not None:
        raise typer.BadParameter("give --input or --input-json, and not both")
    body: dict[str, Any] = {}
    if input_json is not None:
        body["input"] = read_json_file(input_json, "--input-json")
    with Client.connect(url, ca) as client:
        address = f"/api/runs/{quoted(id_of(client, 'runs', run_id))}"
        if given:
            body["input"] = read_pairs_for(
                given, "--input", lambda: (client.get(address).get("pause") or {}).get("schema")
            )
        run = client.post(f"{address}/resume", body)
    if as_json:
        print_json(run)
    else:
        stdout().print(escape(_is(run)))


@errors
def set_run_state(
    run_id: RunArgument,
    state: Annotated[str, typer.Argument(help="Cancelled, Suspended, Completed, Failed or Crashed.")],
    message: Annotated[str, typer.Option("--message", "-m", help="Why.")] = "",
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a flow run into a state. A worker that has it stops its processes."""
    from whenthen.cli.client import Client, quoted

    with Client.connect(url, ca) as client:
        body = {"state": state, "message": message}
        run = client.post(f"/api/runs/{quoted(id_of(client, 'runs', run_id))}/state", body)
    if as_json:
        print_json(run)
    else:
        stdout().print(escape(_is(run)))


def _change(
    verb: str,
    run_id: str | None,
    filters: dict[str, str | None],
    yes: bool,
    url: str,
    ca: str | None,
    as_json: bool,
    *,
    said: Callable[[Mapping[str, Any]], str] = _is,
    body: dict[str, Any] | None = None,
) -> None:
    """Change one run, or those that filters choose, and say what became of each. A run that is not as it was when it was chosen keeps
    none of the others from being changed."""
    from whenthen.cli.client import ApiError, Client, quoted

    given = {name: text for name, text in filters.items() if text is not None}
    if (run_id is None) == (not given):
        raise typer.BadParameter("give a run, or filters such as --deployment and --state, and not both")
    with Client.connect(url, ca) as client:
        if run_id is not None:
            found = client.post(f"/api/runs/{quoted(id_of(client, 'runs', run_id))}/{verb}", body)
            if as_json:
                print_json(found)
            else:
                stdout().print(escape(said(found)))
            return
        chosen = _chosen(client, verb, given)
        if not chosen and not as_json:
            stdout().print(f"no run of those filters can be changed by {verb}")
            return
        if chosen and not yes:
            if as_json:
                fail(f"{len(chosen)} runs; nothing was changed, as --yes was not given")
            if not typer.confirm(f"{verb} {len(chosen)} runs?"):
                stdout().print(f"{len(chosen)} runs; nothing was changed, as --yes was not given")
                return
        changed: list[Any] = []
        try:
            for each in chosen:
                try:
                    found = client.post(f"/api/runs/{quoted(each)}/{verb}", body)
                except ApiError as error:
                    if error.status not in _CHANGED_MEANWHILE:
                        raise
                    stderr().print(escape(f"run {each} is left as it is: {error}"))
                    continue
                changed.append(found)
                if not as_json:
                    stdout().print(escape(said(found)))
        finally:  # what was changed before an error, too
            if as_json:
                print_json(changed)
    if len(changed) < len(chosen):
        fail(
            f"{len(chosen) - len(changed)} of {len(chosen)} runs changed since they were chosen, and are left as they are"
        )


def _chosen(client: Client, verb: str, given: dict[str, str]) -> list[str]:
    """The ids of the runs that filters choose and that can be changed so, the oldest first."""
    from whenthen.schemas.errors import InvalidInput

    runs = list(client.pages("/api/runs", limit=MOST_RUNS + 1, **given))
    if len(runs) > MOST_RUNS:
        raise InvalidInput(f"more than {MOST_RUNS:,} runs; narrow the filters, as with --since")
    return [run["id"] for run in reversed(runs) if _CHANGED_FROM[verb](run["state"])]
