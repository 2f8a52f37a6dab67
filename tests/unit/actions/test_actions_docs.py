"""docs/actions.md: every example is a rule file that loads and compiles, and every action and reason is covered."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import whenthen
from whenthen.actions import compile_action
from whenthen.schemas.actions import ACTIONS
from whenthen.schemas.automations import RuleFile

TEXT = (Path(__file__).parents[3] / "docs" / "actions.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_an_example_of_the_page_is_a_good_rule_file(block: str) -> None:
    rules = RuleFile.model_validate(yaml.safe_load(block))
    assert rules.automations
    for automation in rules.automations:
        for action in automation.actions:
            compile_action(action)


def test_every_action_has_an_example() -> None:
    shown: set[Any] = set()
    for block in BLOCKS:
        for automation in RuleFile.model_validate(yaml.safe_load(block)).automations:
            shown.update(action.type for action in automation.actions)
    assert shown == set(ACTIONS)


def test_every_reason_in_the_code_is_on_the_page() -> None:
    room = Path(whenthen.__file__).parent / "actions"
    reasons = {reason for file in room.rglob("*.py") for reason in re.findall(r'reason="(\w+)"', file.read_text())}
    assert len(reasons) > 10
    for reason in reasons:
        assert f"`{reason}`" in TEXT
