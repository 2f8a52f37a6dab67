"""The examples, and the demo's project, are good rules: they pass their own checks and their own tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from whenthen.rules import load_rules
from whenthen.rules import test_runner as ruletests

from .conftest import run_command
from .wheel import ROOT

EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/rules.yaml"))
PROJECT = ROOT / "whenthen" / "cli" / "demo" / "project"
ALL = [*EXAMPLES, PROJECT]


@pytest.mark.parametrize("folder", ALL, ids=lambda folder: folder.name)
def test_an_example_passes_its_own_tests_and_they_name_every_automation(folder: Path) -> None:
    report = ruletests.run_tests(load_rules(folder), ruletests.load_tests(folder))
    failures = [f"{result.file}: {result.name}: {why}" for result in report.results for why in result.failures]
    assert not failures
    assert report.results
    assert not report.uncovered


def test_the_commands_say_the_same_as_the_functions() -> None:
    checked = run_command("check", ROOT / "examples" / "orders")
    tested = run_command("test", ROOT / "examples" / "orders")
    assert (checked.returncode, checked.stdout) == (0, "ok: 2 automations, 1 webhooks, 0 deployments, 0 notifiers\n")
    assert tested.returncode == 0
    assert "3 passed, 0 failed" in tested.stdout


@pytest.mark.parametrize("folder", ALL, ids=lambda folder: folder.name)
def test_every_file_of_an_example_names_its_schema_for_editors(folder: Path) -> None:
    for file in folder.glob("*.yaml"):
        if not file.name.endswith(".test.yaml"):
            first = file.read_text(encoding="utf-8").splitlines()[0]
            assert first.startswith("# yaml-language-server: $schema="), file
            named = first.partition("$schema=")[2]
            assert folder == PROJECT or (folder / named).is_file()


def test_the_schema_beside_the_examples_is_the_one_that_the_command_prints() -> None:
    """After a change: whenthen schema > examples/rules.schema.json."""
    printed = run_command("schema")
    assert printed.stdout == (ROOT / "examples" / "rules.schema.json").read_text(encoding="utf-8")


def test_the_readme_of_the_examples_names_each_of_them() -> None:
    text = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    for folder in EXAMPLES:
        assert f"({folder.name}/rules.yaml)" in text
