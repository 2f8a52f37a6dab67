"""Cancelling and retrying runs: one, or all that filters choose, whose number is said before anything is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from whenthen.cli.options import DEFAULT_URL, CaOption, JsonOption, UrlOption
from whenthen.cli.output import errors, escape, print_json, stdout

if TYPE_CHECKING:
    from whenthen.cli.client import Client

__all__ = ["cancel_run", "id_of_run", "retry_run"]

MOST_RUNS = 10_000  #: of one command

RunArgument = Annotated[
    str | None,
    typer.Argument(metavar="[RUN]", help="The run's id, as it is listed or in full, or `last`.", show_default=False),
]
OfDeployment = Annotated[str | None, typer.Option("--deployment", "-d", help="All of this deployment.")]
InState = Annotated[str | None, typer.Option("--state", help="All in this state: Running, Failed, ...")]
InPool = Annotated[str | None, typer.Option("--work-pool", help="All of this work pool.")]
Since = Annotated[str | None, typer.Option("--since", help="Not created before: a time, or how long ago, such as 2h.")]
Until = Annotated[str | None, typer.Option("--until", help="Created before: a time, or how long ago.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing; needed with --json and filters.")]

_ENDED = ("Completed", "Failed", "Crashed", "TimedOut", "Cancelled")


@errors
def cancel_run(
    run_id: RunArgument = None,
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
    """Ask a flow run to end, or all that filters choose."""
    filters = {"deployment": deployment, "state": state, "work_pool": work_pool, "since": since, "until": until}
    for run in _changed("cancel", run_id, filters, yes, url, ca, as_json):
        if run["state"] in ("Cancelling", "Cancelled"):
            stdout().print(f"run {run['id']} is {run['state']}")
        else:
            stdout().print(f"run {run['id']} has ended already: {run['state']}")


@errors
def retry_run(
    run_id: RunArgument = None,
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
    """Start a new run like one that has ended, or like each that filters choose. A run is retried once."""
    filters = {"deployment": deployment, "state": state, "work_pool": work_pool, "since": since, "until": until}
    for run in _changed("retry", run_id, filters, yes, url, ca, as_json):
        stdout().print(escape(f"{run['deployment']}: run {run['id']} is {run['state']}"))


def _changed(
    verb: str, run_id: str | None, filters: dict[str, str | None], yes: bool, url: str, ca: str | None, as_json: bool
) -> list[dict[str, Any]]:
    """The answers about the runs that were changed; none when they were printed as JSON, or nothing was to be changed."""
    from whenthen.cli.client import Client, quoted

    given = {name: text for name, text in filters.items() if text is not None}
    if (run_id is None) == (not given):
        raise typer.BadParameter("give a run, or filters such as --deployment and --state, and not both")
    with Client.connect(url, ca) as client:
        if run_id is not None:
            found = client.post(f"/api/runs/{quoted(id_of_run(client, run_id))}/{verb}")
            if as_json:
                print_json(found)
            return [] if as_json else [found]
        chosen = _chosen(client, verb, given)
        if not chosen:
            stdout().print(f"no run of those filters can be changed by {verb}")
            return []
        if not yes and (as_json or not typer.confirm(f"{verb} {len(chosen)} runs?")):
            stdout().print(f"{len(chosen)} runs; nothing was changed, as --yes was not given")
            return []
        answers = [client.post(f"/api/runs/{quoted(each)}/{verb}") for each in chosen]
    if as_json:
        print_json(answers)
        return []
    return answers


def id_of_run(client: Client, run_id: str) -> str:
    """The id of the newest run for `last`; anything else as it is, as the server takes shortened ids."""
    if run_id != "last":
        return run_id
    from whenthen.schemas.errors import NotFound

    runs = client.get("/api/runs", limit=1)
    if not runs:
        raise NotFound("there are no runs yet")
    return str(runs[0]["id"])


def _chosen(client: Client, verb: str, given: dict[str, str]) -> list[str]:
    """The ids of the runs that filters choose and that can be changed so, the oldest first."""
    from whenthen.schemas.errors import InvalidInput

    runs = list(client.pages("/api/runs", limit=MOST_RUNS + 1, **given))
    if len(runs) > MOST_RUNS:
        raise InvalidInput(f"more than {MOST_RUNS:,} runs; narrow the filters, as with --since")
    return [run["id"] for run in reversed(runs) if (run["state"] in _ENDED) == (verb == "retry")]
