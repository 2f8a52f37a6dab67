"""What a command imports: help imports next to nothing, and says of each command what the command itself says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import typer

from tests.patience import limit
from whenthen.cli.main import COMMANDS, app
from whenthen.engine.process import Role

#: what costs time to import and is of no use to help
HEAVY = {"rich", "httpx", "orjson", "yaml", "croniter", "jinja2", "asyncio", "nats", "faststream", "fastapi", "uvicorn"}
LOADED = """
import sys
from whenthen.cli.main import main
sys.argv = ["whenthen", *sys.argv[1:]]
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
print(*sys.modules, file=sys.stderr)
"""


def loaded(*arguments: str) -> set[str]:
    """The modules that a process of its own has imported when the command ends."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments], capture_output=True, text=True, check=False, timeout=limit(20)
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def test_help_imports_no_command_and_nothing_heavy() -> None:
    modules = loaded("--help")
    ours = {name for name in modules if name.split(".")[0] == "whenthen"}
    assert ours == {"whenthen", "whenthen.cli", "whenthen.cli.main", "whenthen.cli.command_groups"}
    assert modules & {*HEAVY, "pydantic"} == set()


@pytest.mark.parametrize("name", ["serve", "check", "emit", "runs"])
def test_help_of_a_command_imports_its_module_and_neither_the_engine_nor_the_rules(name: str) -> None:
    modules = loaded(name, "--help")
    assert COMMANDS[name].module in modules
    others = {command.module for command in COMMANDS.values()} - {COMMANDS[name].module}
    # asyncio is what `serve` is made of
    assert modules & (HEAVY - {"asyncio"} | others | {"whenthen.schemas", "whenthen.rules", "whenthen.engine"}) == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_of_commands_says_what_each_command_says_of_itself(name: str) -> None:
    group = typer.main.get_group(app)
    command = group.load(name)  # type: ignore[attr-defined]
    assert command.name == name
    assert command.help == COMMANDS[name].help


def test_a_command_that_there_is_not_is_refused_with_the_nearest_name(run: Callable[..., Any]) -> None:
    done = run("evnts", code=2)
    assert "No such command 'evnts'. Did you mean 'events'?" in done.output


def test_help_lists_each_command_with_its_whole_help(run: Callable[..., Any]) -> None:
    shown = " ".join(run("--help").output.split())
    for name, command in COMMANDS.items():
        assert f" {name} {command.help}" in shown
    group = " ".join(run("deployments", "--help").output.split())
    assert "pause Pause a deployment's schedules. Runs that are asked for otherwise still start." in group


def test_the_roles_that_help_names_are_those_there_are(run: Callable[..., Any]) -> None:
    shown = run("serve", "--help").output
    assert [role.value for role in Role if role.value not in shown] == []
    refused = run("serve", "rules", "--role", "cook", code=2).output
    assert "'cook' is none of api, evaluator, executor, worker, scheduler, source" in refused
