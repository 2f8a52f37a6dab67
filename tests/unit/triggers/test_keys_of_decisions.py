"""The key of a trigger's window or decision as an object."""

from __future__ import annotations

from typing import Any

import pytest

from whenthen.schemas.automations import Automation
from whenthen.triggers.trees.trigger_compiler import compile_automation

COMPOSITE = {
    "type": "compound",
    "require": "all",
    "within": "1h",
    "correlate": ["id"],
    "triggers": [{"expect": "a", "for_each": ["id", "region"]}, {"expect": "b"}],
}


@pytest.mark.parametrize(
    ("trigger", "path", "text", "key"),
    [
        ({"expect": "a", "for_each": ["id"]}, "", "x", {"id": "x"}),
        ({"expect": "a", "for_each": ["id"], "window": "tumbling"}, "", "", {"id": ""}),
        ({"expect": "a", "for_each": ["id", "region"]}, "", '["x","y"]', {"id": "x", "region": "y"}),
        ({"expect": "a", "for_each": ["id", "region"]}, "", "", {}),
        ({"expect": "a"}, "", "", {}),
        (COMPOSITE, "", "x", {"id": "x"}),
        (COMPOSITE, "triggers[0]", '["x","y"]', {"id": "x", "region": "y"}),
        (COMPOSITE, "triggers[1]", "x", {"id": "x"}),
        (COMPOSITE, "triggers[2]", "x", {}),
        (
            {**COMPOSITE, "correlate": [], "triggers": [{"expect": "a", "for_each": ["id"]}, {"expect": "b"}]},
            "",
            "",
            {},
        ),
    ],
)
def test_a_key_is_named_by_its_expressions(trigger: dict[str, Any], path: str, text: str, key: dict[str, Any]) -> None:
    automation = Automation.model_validate({"name": "a", "trigger": trigger, "actions": ["do-nothing"]})
    assert compile_automation(automation).key_of(path, text) == key
