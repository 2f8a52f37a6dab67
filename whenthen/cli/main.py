"""The `whenthen` command: which commands there are. Each is described here and imported when it is called."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from whenthen import __version__
from whenthen.cli.command_groups import LazyCommand, LazyGroup

__all__ = ["COMMANDS", "app", "main"]

#: in the order of the help
COMMANDS = {
    "serve": LazyCommand("whenthen.cli.server.serve", "Run everything on this machine, or a part of a cluster. Ctrl-C drains and stops."),
    "worker": LazyCommand("whenthen.cli.server.serve", "Take flow runs and nothing else; needs --nats."),
    "check": LazyCommand("whenthen.cli.rules", "Check rules: every problem with file, line and column; exit 1 if there is one."),
    "test": LazyCommand("whenthen.cli.rules", "Run the rules' own tests (*.test.yaml) with a virtual clock; exit 1 if one fails."),
    "replay": LazyCommand("whenthen.cli.replays.replay_command", "Replay events through rules in virtual time; one JSON line a firing, or with --diff what other rules change."),
    "explain": LazyCommand("whenthen.cli.rules", "Why an automation takes an event or does not: each clause with its verdict and the actual value."),
    "schema": LazyCommand("whenthen.cli.rules", "Print the JSON Schema of the rules files, or of files of providers, for completion and hover text in editors."),
    "providers": LazyCommand("whenthen.cli.senders.provider_commands", "Senders of webhooks that are known: how they prove who they are, and what their requests become."),
    "hooks": LazyCommand("whenthen.cli.senders.hook_commands", "Webhooks of the rules: what they would make of a request."),
    "sources": LazyCommand("whenthen.cli.senders.source_commands", "What brings events in: proof, when it was heard last, what was refused; and the SQL of an outbox table."),
    "import": LazyCommand("whenthen.cli.rules", "Translate deployments and automations of another system; what has no counterpart is named in the output."),
    "plan": LazyCommand("whenthen.cli.rule_sets", "What rules would change: automations that are new, changed, starting afresh or removed. Changes nothing."),
    "apply": LazyCommand("whenthen.cli.rule_sets", "Put rules in force, whatever was in force before. All processes follow."),
    "rollback": LazyCommand("whenthen.cli.rule_sets", "Put the rules of an earlier revision in force again, as a new one. A later change of watched files replaces them."),
    "revisions": LazyCommand("whenthen.cli.rule_sets", "Revisions of the rules that are kept, newest first: who published them, when and how."),
    "emit": LazyCommand("whenthen.cli.emit", "Send an event; done means that it is stored."),
    "events": LazyCommand("whenthen.cli.inspect", "Events that are stored, newest first."),
    "automations": LazyCommand("whenthen.cli.inspect", "Automations, and why they fired or did not."),
    "why": LazyCommand("whenthen.cli.why.why_command", "Why an automation fired for an event, or at a moment, or did not: clauses with values, windows, and what was missing."),
    "trace": LazyCommand("whenthen.cli.why.trace_command", "What led to what: from any id back to the first event, and forward to the last run."),
    "record": LazyCommand("whenthen.cli.why.record_command", "Write a test of rules (*.test.yaml) from what happened: what led to a firing, or why there was none."),
    "firings": LazyCommand("whenthen.cli.inspect", "Firings, newest first: which automation fired for which event."),
    "audit": LazyCommand("whenthen.cli.inspect", "Who did what, and what was refused, newest first."),
    "history": LazyCommand("whenthen.cli.lists.history_command", "What happened in the last weeks, and how much of it is kept."),
    "watch": LazyCommand("whenthen.cli.watch.watch_command", "Follow everything that happens, filtered: events, decisions, firings, actions, runs, audit. Ctrl-C ends it."),
    "status": LazyCommand("whenthen.cli.inspect", "What the server runs, on which rules, and the problems of a set that was refused."),
    "deploy": LazyCommand("whenthen.cli.deploys.deploy_command", "Register a function as a deployment. Workers of its pool have its code in the folder in which this is called, or in a repository."),
    "deployments": LazyCommand("whenthen.cli.runs", "Deployments: what can be run, and when it runs by itself."),
    "work-pools": LazyCommand("whenthen.cli.lists.pool_lists", "Work pools: where runs wait for workers, and whether they are paused."),
    "workers": LazyCommand("whenthen.cli.lists.pool_lists", "Workers that are at work: in which pool, since when, and how many runs they have."),
    "variables": LazyCommand("whenthen.cli.shared.shared_commands", "Variables: named values that flows and people share."),
    "artifacts": LazyCommand("whenthen.cli.shared.shared_commands", "Artifacts: what runs have to show, the last changed first."),
    "limits": LazyCommand("whenthen.cli.shared.shared_commands", "Named limits of the rules, and who has their slots."),
    "runs": LazyCommand("whenthen.cli.runs", "Flow runs, newest first."),
    "actions": LazyCommand("whenthen.cli.performed_actions", "Actions of firings and what became of them, newest first."),
    "tokens": LazyCommand("whenthen.cli.access.token_commands", "Tokens of the API with their scopes, beside the server's own one."),
    "open": LazyCommand("whenthen.cli.access.open_command", "Open the pages in a browser, logged in with the token of this command."),
    "backup": LazyCommand("whenthen.cli.backup", "Write everything that a running server with embedded NATS stores into a file."),
    "restore": LazyCommand("whenthen.cli.backup", "Make a backup the data of a new data directory, which no server uses; then start whenthen serve with it."),
    "asyncapi": LazyCommand("whenthen.cli.inspect", "Print an AsyncAPI document of all NATS subjects and messages, as JSON."),
    "demo": LazyCommand("whenthen.cli.demo", "Run a small project end to end, without a network, and tell what happened."),
}  # fmt: skip


class _Commands(LazyGroup):
    table = COMMANDS


app = typer.Typer(
    name="whenthen",
    cls=_Commands,
    help="When this happens, then do that: events in, rules in git, actions out, and nothing lost on the way.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's help costs more than everything else that starts
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"whenthen {__version__}")
        raise typer.Exit


@app.callback()
def whenthen(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """When this happens, then do that."""


def main() -> None:
    """Run the command line. `serve` and `worker` run in a child of this process (`whenthen.supervision`)."""
    page = None
    if hasattr(os, "fork") and sys.argv[1:2] in (["serve"], ["worker"]) and "--help" not in sys.argv:
        from whenthen.supervision import supervise

        page = supervise()
    app(obj=page)


if __name__ == "__main__":
    main()
