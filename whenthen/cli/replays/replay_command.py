"""`whenthen replay`: events of a file or of a running server through rules, and what other rules would have made of them.

Of a file nothing is asked over the network, and NATS and the engine need not be installed.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from whenthen.cli.event_files import lines_of
from whenthen.cli.options import DEFAULT_URL, CaOption, UrlOption
from whenthen.cli.output import errors, escape, fail, print_lines, stdout

if TYPE_CHECKING:
    from whenthen.rules import Rules

__all__ = ["add_commands"]

_KEPT_BYTES = 64 << 20  #: of standard input or a server's events, in memory; what is more is on disk
_MARKS = {"gained": "[green]+[/]", "lost": "[red]-[/]", "changed": "[yellow]~[/]"}
Lines = Callable[[], Iterator[bytes]]


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(replay)


@errors
def replay(
    named: Annotated[
        Path | None,
        typer.Argument(metavar="RULES", help="A folder of YAML files, or one file.", show_default=False),
    ] = None,
    rules: Annotated[Path | None, typer.Option("--rules", help="The same, as an option.")] = None,
    events: Annotated[
        Path | None,
        typer.Option(
            "--events",
            help="Events and ticks, a JSON object a line, or what `whenthen events --json` lists; - is standard input.",
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Of a running server, its events from this time on, or from so long ago: 7d, 2h."),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(help="Go on to this time (RFC 3339) after the last line; with --since, read up to it."),
    ] = None,
    form: Annotated[str, typer.Option("--format", help="native (CloudEvents too) or prefect.")] = "native",
    decisions: Annotated[bool, typer.Option("--decisions", help="Print every decision with its reason.")] = False,
    revision_rules: Annotated[
        list[str] | None,
        typer.Option(
            "--revision-rules",
            metavar="N=PATH",
            help='The rules that a line {"rules": N} puts in force. May be given several times.',
        ),
    ] = None,
    diff: Annotated[
        bool,
        typer.Option(
            "--diff", help="Print which firings RULES gain, lose and change, against --against or those in force."
        ),
    ] = False,
    against: Annotated[
        Path | None,
        typer.Option("--against", help="The rules to compare with. Default: those in force at the server."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --diff: JSON lines; the last one counts.")] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="With --diff: exit 1 when firings differ.")] = False,
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
) -> None:
    """Replay events through rules in virtual time; one JSON line a firing, or with --diff what other rules change."""
    from whenthen.rules import ReplayDiff, load_rules, skips_of
    from whenthen.rules import replay as run

    if (named is None) == (rules is None):
        fail("name the rules once: whenthen replay RULES, or --rules RULES", 2)
    if (events is None) == (since is None):
        fail("say where the events are, once: --events FILE, or --since 7d for those of a running server", 2)
    if diff and (decisions or revision_rules):
        fail("--diff compares two sets of rules from the first event on; leave --decisions and --revision-rules out", 2)
    if not diff and (against is not None or exit_code or as_json):
        fail("--against, --exit-code and --json go with --diff", 2)
    if diff and events is not None and against is None:
        fail("with --events, --diff needs the rules to compare with: --against RULES", 2)
    path = named or rules
    assert path is not None
    loaded = load_rules(path)
    with _lines(events, since, until, url, ca) as lines:
        skips = skips_of(lines())
        end = until if events is not None else None
        if not diff:
            # events of a server are replayed with the rules that were named; markers in its stream are of others
            revisions = _revisions(revision_rules or (), loaded)
            print_lines(
                run(
                    loaded,
                    lines(),
                    until=end,
                    format=form,
                    decisions=decisions,
                    skips=skips,
                    revisions=revisions,
                    markers=since is None or bool(revisions),
                )
            )
            return
        before = load_rules(against, kept=loaded) if against is not None else _in_force(loaded, url, ca)
        compared = ReplayDiff(before, loaded, until=end, format=form, skips=skips)
        _print_changes(compared, lines(), as_json=as_json)
    if exit_code and compared.totals.differ:
        raise typer.Exit(1)


def _print_changes(compared: Any, lines: Iterator[bytes], *, as_json: bool) -> None:
    totals = compared.totals
    if as_json:
        print_lines(change.as_json() for change in compared.changes(lines))
        print_lines([{"totals": totals.as_json()}])
        return
    out = stdout()
    for change in compared.changes(lines):
        shown = change.as_json()
        firing = change.after or change.before
        key = "".join(f" {name}={value}" for name, value in shown["key"].items())
        cause = f"event {shown['event']}" if shown["event"] is not None else "by time"
        out.print(
            f"{_MARKS[shown['difference']]} {firing['at']} [bold]{escape(firing['automation'])}[/]{escape(key)} {escape(cause)} "
            f"[dim]firing {firing['firing']}[/]"
        )
        if "fields" in shown:
            for name in shown["fields"]:
                out.print(
                    f"    {name}: {escape(str(change.before.get(name)))} -> {escape(str(change.after.get(name)))}"
                )
            continue
        whose = "the rules before" if change.before is None else "these rules"
        why = f"{shown['reason']}: {shown['clause']}" if shown["clause"] else shown["reason"]
        out.print(f"    {whose}: {escape(why)}")
    out.print(
        f"{totals.gained} gained, {totals.lost} lost, {totals.changed} changed, {totals.same} the same; "
        f"{totals.events} events"
    )


def _in_force(loaded: Rules, url: str, ca: str | None) -> Rules:
    """The rules that are in force at a server, as it keeps them."""
    from whenthen.cli.client import Client
    from whenthen.rules import SourceFile, compile_files

    with Client.connect(url, ca) as client:
        current = next((each for each in client.get("/api/rules/revisions") if each["current"]), None)
        if current is None:
            fail("no rules are in force at the server; name those to compare with: --against RULES")
        found = client.get(f"/api/rules/revisions/{current['number']}")
    files = [SourceFile(name=file["name"], raw=file["text"].encode()) for file in found["files"]]
    return compile_files(loaded.base, files, kept=loaded)


def _revisions(given: tuple[str, ...] | list[str], loaded: Rules) -> dict[int, Rules]:
    from whenthen.rules import load_rules

    revisions: dict[int, Rules] = {}
    for each in given:
        number, equals, path = each.partition("=")
        if not (equals and path and number.isascii() and number.isdigit() and int(number)):
            fail(f"--revision-rules {each[:80]!r} is not a number and a path, such as 2=rules-of-june/", 2)
        revisions[int(number)] = load_rules(path, kept=loaded)
    return revisions


@contextlib.contextmanager
def _lines(path: Path | None, since: str | None, until: str | None, url: str, ca: str | None) -> Iterator[Lines]:
    """The events of a file or of a server, one a line, from the beginning each time."""
    if path is not None:
        with _twice(path) as lines:
            yield lines
        return
    from urllib.parse import urlencode

    from whenthen.cli.client import Client

    query = urlencode({name: value for name, value in (("since", since), ("until", until)) if value is not None})
    with tempfile.SpooledTemporaryFile(_KEPT_BYTES) as kept:
        with Client.connect(url, ca) as client:
            for part in client.download(f"/api/log?{query}"):
                kept.write(part)
        yield lambda: lines_of(kept)


@contextlib.contextmanager
def _twice(path: Path) -> Iterator[Lines]:
    """The events of a file. Standard input or a pipe is kept meanwhile, on disk when it is large."""
    try:
        with contextlib.ExitStack() as opened:
            given = sys.stdin.buffer if str(path) == "-" else opened.enter_context(path.open("rb"))
            file: IO[bytes] = given
            if not given.seekable() or given is sys.stdin.buffer:
                file = opened.enter_context(tempfile.SpooledTemporaryFile(_KEPT_BYTES))
                shutil.copyfileobj(given, file)

            def lines() -> Iterator[bytes]:
                return lines_of(file)

            yield lines
    except BrokenPipeError:  # whoever reads the output has enough; it is not the file
        raise
    except OSError as error:
        from whenthen.schemas.errors import InvalidInput

        raise InvalidInput(f"{path}: {error.strerror}") from None
