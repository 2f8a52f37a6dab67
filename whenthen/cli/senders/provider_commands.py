"""`whenthen providers`: which senders of webhooks are known, and a webhook of theirs to start from. Needs no server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whenthen.cli.command_groups import new_group
from whenthen.cli.output import errors, escape, print_json, stdout

if TYPE_CHECKING:
    from whenthen.schemas.providers import Provider

ABOUT = "Senders of webhooks that are known: how they prove who they are, and what their requests become."
RulesOption = Annotated[
    Path | None, typer.Option("--rules-from", help="Rules whose `providers:` count too.", show_default=False)
]


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    group = new_group(app, "providers", ABOUT)
    group.callback()(list_providers)
    group.command("show")(show)


@errors
def list_providers(
    context: typer.Context,
    rules: RulesOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    if context.invoked_subcommand is not None:
        return
    found = [_row(provider) for provider in _providers(rules)]
    if as_json:
        print_json(found)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("name", "proof", "handshake", "events", "facts"):
        table.add_column(title, overflow="fold", no_wrap=title == "name")
    for row in found:
        facts = row["facts"][0] if row["facts"] else ""
        cells = (row["name"], row["proof"], row["handshake"], row["events"], facts.partition(" ")[0])
        table.add_row(*map(escape, cells))
    stdout().print(table)


@errors
def show(
    name: Annotated[str, typer.Argument(help="The provider, such as gitlab.", show_default=False)],
    as_rules: Annotated[
        bool, typer.Option("--rules", help="Print a webhook and example automations, ready for a rules file.")
    ] = False,
    rules: RulesOption = None,
) -> None:
    """What is known of one sender, as YAML; with --rules a webhook to start from."""
    import yaml

    from whenthen.sources import find_provider

    provider = find_provider(name, _own(rules))
    if as_rules:
        shown: Any = ready_rules(provider)
    else:
        shown = provider.model_dump(mode="json", by_alias=True, exclude_unset=True)
    typer.echo(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=120), nl=False)


def ready_rules(provider: Provider) -> dict[str, Any]:
    """A rules file with a webhook for this sender, and its example automations."""
    variable = "".join(letter if letter.isalnum() and letter.isascii() else "_" for letter in provider.name.upper())
    webhook: dict[str, Any] = {"name": provider.name, "preset": provider.name}
    if provider.webhook:
        webhook |= provider.webhook
    elif provider.verify:
        webhook["secret"] = f"env:{variable}_SECRET"
    else:
        webhook["verify"] = {"type": "bearer", "token": f"env:{variable}_TOKEN"}
    rules: dict[str, Any] = {"webhooks": [webhook]}
    if provider.automations:
        rules["automations"] = provider.automations
    return rules


def _providers(rules: Path | None) -> list[Provider]:
    from whenthen.sources import builtin_names, find_provider

    own = _own(rules)
    return [find_provider(name, own) for name in sorted({*builtin_names(), *own})]


def _own(rules: Path | None) -> dict[str, Provider]:
    """Those of the rules, by name."""
    if rules is None:
        return {}
    from whenthen.rules import load_rules

    return {provider.name: provider for provider in load_rules(rules).providers}


def _row(provider: Provider) -> dict[str, Any]:
    return {
        "name": provider.name,
        "title": provider.title,
        "proof": ", ".join(dict.fromkeys(_proof(recipe) for recipe in provider.verify)) or "as configured",
        "handshake": ", ".join(dict.fromkeys(handshake.method for handshake in provider.handshakes)),
        "events": _events(provider),
        "facts": provider.facts,
        "note": provider.note,
    }


def _proof(recipe: Any) -> str:
    if recipe.type == "hmac":
        return f"hmac {recipe.algorithm} in {recipe.header}"
    return f"token in {recipe.header}"


def _events(provider: Provider) -> str:
    """How its events are called, such as `github.<x-github-event>.<action>`."""
    if provider.code is not None:
        return f"{provider.code}.*"
    return ".".join(_part(pick[0]) for pick in provider.event)


def _part(given: Any) -> str:
    text = given if isinstance(given, str) else given.of
    return f"<{text.rpartition('.')[2].strip(' }')}>" if "$" in text or "{" in text else text
