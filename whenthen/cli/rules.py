"""Commands about rules alone: check, test, explain, schema, import.

Nothing runs and nothing is asked over the network; NATS and the engine need not be installed.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whenthen.cli.output import errors, escape, fail, print_json, print_problems, stdout

if TYPE_CHECKING:
    from whenthen.rules import Rules, prefect_import

__all__ = ["add_commands"]

#: what `explain` prints before a clause
_MARKS = (
    "✓ holds, ✗ does not, ! can not be evaluated, … depends on other events or on the time: what a server decided then "
    "is in `whenthen automations decisions`."
)
_SHOWN = 5  #: names of one line
RulesArgument = Annotated[Path, typer.Argument(help="A folder of YAML files, or one file.", show_default=False)]


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(check)
    app.command("test")(run_tests)
    app.command(epilog=_MARKS)(explain)
    app.command()(schema)
    app.command("import")(import_rules)


@errors
def check(
    rules: RulesArgument,
    before: Annotated[
        Path | None, typer.Option("--against", help="Earlier rules: say which automations keep their windows.")
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Take warnings, about what can work and is probably not meant, for problems."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check rules: every problem with file, line and column; exit 1 if there is one."""
    from whenthen.rules import load_rules
    from whenthen.schemas.errors import InvalidRules

    loaded = load_rules(rules)
    if strict and loaded.warnings:
        raise InvalidRules(list(loaded.warnings))
    if not as_json:
        print_problems(loaded.warnings)
    changes = None if before is None else _changes(load_rules(before), loaded)
    linking = [name for name, rule in loaded.compiled.items() if any(rule.actions.link_fields())]
    if as_json:
        warnings = [str(warning) for warning in loaded.warnings]
        needs = {"needs": {"public_url": linking}} if linking else {}
        windows = {"windows": changes} if changes is not None else {}
        print_json({"ok": True, **_counts(loaded), "warnings": warnings, **needs, **windows})
        return
    counts = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in _counts(loaded).items())
    if loaded.warnings:
        counts += f"; {len(loaded.warnings)} warnings" if len(loaded.warnings) != 1 else "; 1 warning"
    stdout().print(f"ok: {counts}")
    if linking:
        shown = escape(", ".join(linking[:_SHOWN])) + (f" and {len(linking) - _SHOWN} more" if linking[_SHOWN:] else "")
        stdout().print(f"  served with public_url (WHENTHEN_PUBLIC_URL) alone, as url_of makes links in {shown}")
    for name, what in (changes or {}).items():
        stdout().print(f"  {escape(name)}: {what}")


@errors
def run_tests(
    rules: RulesArgument,
    file: Annotated[Path | None, typer.Option("--file", help="Run the tests of this file alone.")] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Run the tests whose name matches; * stands for anything.")
    ] = None,
    junit_file: Annotated[Path | None, typer.Option("--junit", help="Write the report as JUnit XML.")] = None,
) -> None:
    """Run the rules' own tests (*.test.yaml) with a virtual clock; exit 1 if one fails."""
    from whenthen.rules import load_rules
    from whenthen.rules.test_runner import junit, load_tests
    from whenthen.rules.test_runner import run_tests as run

    report = run(load_rules(rules), load_tests(rules if file is None else file), name=name)
    out = stdout()
    shown = None
    for result in report.results:
        if result.file != shown:
            shown = result.file
            out.print(f"[bold]{escape(shown)}[/]")
        out.print(f"  {'[green]✓[/]' if result.passed else '[red]✗[/]'} {escape(result.name)}")
        for failure in result.failures:
            out.print(f"      [red]{escape(failure)}[/]")
    failed = sum(not result.passed for result in report.results)
    if report.results:
        out.print(f"\n{len(report.results) - failed} passed, {failed} failed")
    if report.uncovered and file is None and name is None:
        out.print(f"[yellow]not covered by any test:[/] {escape(', '.join(report.uncovered))}")
    if junit_file is not None:
        try:
            junit_file.write_text(junit(report), encoding="utf-8")
        except OSError as error:
            fail(f"{junit_file} can not be written: {error.strerror}")
    if not report.results:
        if name is not None:
            fail(f"no test in {file or rules} has a name like {name!r}")
        fail(f"no tests in {file or rules}; write them in files named *.test.yaml")
    if failed:
        raise typer.Exit(1)


@errors
def explain(
    automation: Annotated[str, typer.Argument(help="Its name.", show_default=False)],
    event: Annotated[
        Path,
        typer.Argument(
            help="A file with an event as JSON, such as `whenthen events show ID --json` prints; - is standard input.",
            show_default=False,
        ),
    ],
    rules: Annotated[Path, typer.Option("--rules", help="A folder of YAML files, or one file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Why an automation takes an event or does not: each clause with its verdict and the actual value."""
    from whenthen.rules import explain_event, load_rules

    if str(event) != "-" and not event.exists():
        fail(
            f"{event}: there is no such file; of an event that a server has: "
            f"whenthen events show {event} --json | whenthen explain {automation} - --rules {rules}"
        )
    raw = sys.stdin.buffer.read() if str(event) == "-" else _bytes(event)
    tree = explain_event(load_rules(rules), automation, raw, now=datetime.now(UTC))
    if as_json:
        print_json(tree.as_json())
        return
    marks = {"holds": "[green]✓[/]", "fails": "[red]✗[/]", "error": "[red]![/]", "needs": "[yellow]…[/]"}
    out = stdout()
    for depth, clause in tree.lines():
        found = f"  [dim]{escape(clause.found)}[/]" if clause.found else ""
        out.print(f"{'  ' * depth}{marks[clause.mark.value]} {escape(clause.text)}{found}")


@errors
def schema(
    what: Annotated[str, typer.Argument(help="rules, or providers for a file of one provider.")] = "rules",
) -> None:
    """Print the JSON Schema of the rules files, or of files of providers, for completion and hover text in editors."""
    from whenthen.rules.jsonschema import providers_schema, rules_schema

    if what not in ("rules", "providers"):
        fail(f"there is no schema of {what!r}; there are: rules, providers", 2)
    print_json(rules_schema() if what == "rules" else providers_schema())


@errors
def import_rules(
    system: Annotated[str, typer.Argument(help="Where the rules come from: prefect.", show_default=False)],
    file: Annotated[
        Path | None, typer.Argument(help="YAML or JSON as that system writes it; - is standard input.")
    ] = None,
    runs: Annotated[
        str,
        typer.Option(
            "--runs",
            help="Whose runs rules on `prefect.flow-run.*` are about: here, or prefect for a server of Prefect.",
        ),
    ] = "here",
    ids: Annotated[
        Path | None, typer.Option("--ids", help="A file that gives names of deployments and automations by their ids.")
    ] = None,
    score: Annotated[
        Path | None, typer.Option("--score", help="Write no rules: count what of all files in a folder comes over.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --score: print JSON.")] = False,
) -> None:
    """Translate deployments and automations of another system; what has no counterpart is named in the output."""
    import os

    from whenthen.rules import prefect_import

    if system != "prefect":
        fail(f"there is no import from {system!r}; known is: prefect", 2)
    if runs != "here" and runs != "prefect":
        fail(f"--runs: here or prefect; found {runs!r}", 2)
    if (file is None) == (score is None):
        fail("give a file, or --score with a folder", 2)
    if score is not None:
        _print_score(prefect_import.score_folder(score), as_json=as_json)
        return
    assert file is not None
    piped = str(file) == "-"
    result = prefect_import.import_prefect_file(
        sys.stdin.buffer.read() if piped else _bytes(file),
        name=str(file),
        runs="here" if runs == "here" else "prefect",
        ids=None if ids is None else prefect_import.read_ids(_bytes(ids), name=str(ids)),
        environment=os.environ,
        project=None if piped else file.parent,
    )
    sys.stdout.write(result.text)


def _print_score(score: prefect_import.ImportScore, *, as_json: bool) -> None:
    if as_json:
        print_json(score.as_json())
        return
    out = stdout()
    out.print(
        f"{score.files} files with {score.deployments} deployments: {score.kept} keep code, parameters, schedules, pool and "
        f"limits; {score.automations} automations"
    )
    for name, lost in score.losing.items():
        out.print(f"  {escape(name)}: " + ", ".join(f"{aspect} of {count}" for aspect, count in lost.items()))
    for name, why in score.unread.items():
        out.print(f"  not read: {escape(why if why.startswith(name) else f'{name}: {why}')}")
    if score.others:
        out.print(f"  {score.others} other files have neither deployments nor automations")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        from whenthen.schemas.errors import InvalidInput

        raise InvalidInput(f"{path}: {error.strerror}") from None


def _counts(rules: Rules) -> dict[str, int]:
    """How many of each kind; sources, providers and work pools where there are some."""
    counts = rules.counts()
    always = {kind: counts[kind] for kind in ("automations", "webhooks", "deployments", "notifiers")}
    return {**always, **{kind: count for kind, count in counts.items() if count and kind not in always}}


def _changes(before: Rules, after: Rules) -> dict[str, Any]:
    from whenthen.rules.changes import window_changes

    return window_changes(before, after)
