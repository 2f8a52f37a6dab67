"""How the `whenthen` command finds its commands: a table of names and help; the module of the one that is called is
imported, and no other.

So `whenthen --help` imports typer and nothing of ours that imports more, and `whenthen runs` does not import the rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

__all__ = ["Group", "LazyCommand", "LazyGroup", "new_group"]


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """A command or a group of them that `add_commands` of `module` registers under the name of its entry."""

    module: str
    help: str  #: the help of the command itself, as a test compares


class Group(TyperGroup):
    """A group whose help shows what each of its commands does in full, wrapped and not cut."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help or "") for name, command in commands if command is not None])


class LazyGroup(Group):
    """A group that knows its commands by `table`. What only lists them gets stand-ins; what calls one gets it."""

    table: Mapping[str, LazyCommand] = {}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands.update(
            {name: TyperCommand(name, help=entry.help, rich_markup_mode=None) for name, entry in self.table.items()}
        )

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is to run or to complete. Errors: as click's, for a name that there is not."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, found if found is None else self.load(found.name or ""), rest

    def load(self, name: str) -> TyperCommand | TyperGroup:
        """The command itself, its module imported."""
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        import_module(self.table[name].module).add_commands(app)
        command = typer.main.get_group(app).commands[name]
        assert isinstance(command, TyperCommand | TyperGroup)
        return command


def new_group(app: typer.Typer, name: str, about: str) -> typer.Typer:
    """A group of commands below `app`, which may be called alone."""
    made = typer.Typer(cls=Group, help=about, invoke_without_command=True, rich_markup_mode=None)
    app.add_typer(made, name=name)
    return made
