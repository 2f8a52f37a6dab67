"""Imported automations fire as Prefect's own evaluator does: on the cases with its recorded answers.

Each case goes the way that a user's rules go: the import writes YAML, the YAML is loaded and checked, and the events are
replayed. Compared are automation, key, triggering event, contributing events and time.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from whenthen.rules.prefect_import import import_prefect

PEERS = Path(__file__).parents[3] / "benchmarks" / "peers" / "differential.py"
SPEC = importlib.util.spec_from_file_location("differential", PEERS)
assert SPEC is not None
assert SPEC.loader is not None
differential = importlib.util.module_from_spec(SPEC)
sys.modules["differential"] = differential
SPEC.loader.exec_module(differential)

RECORDED = Path(__file__).parents[2] / "conformance" / "prefect_recorded.json"
CASES: list[dict[str, Any]] = json.loads(RECORDED.read_text(encoding="utf-8"))["cases"]
ANSWERED = [case for case in CASES if "refused" not in case]
REFUSED = [case for case in CASES if "refused" in case]


@pytest.mark.parametrize("case", ANSWERED, ids=[case["name"] for case in ANSWERED])
def test_an_imported_automation_fires_as_prefect_does(case: dict[str, Any]) -> None:
    assert differential.agreement(case, case) is None


@pytest.mark.parametrize("case", REFUSED, ids=[case["name"] for case in REFUSED])
def test_what_prefect_refuses_is_left_out_and_named(case: dict[str, Any]) -> None:
    result = import_prefect(case["automations"], runs="prefect")
    assert result.rules["automations"] == []
    assert len(result.notes) == len(case["automations"])


def test_the_known_differences_are_still_there() -> None:
    by_name = {case["name"]: case for case in ANSWERED}
    for difference in differential.DIFFERENCES:
        for name in difference.recorded:
            assert differential.agreement(by_name[name], by_name[name], ignore_known=True) is not None, name


def test_nothing_of_the_recorded_rules_needs_a_look_by_hand() -> None:
    for case in ANSWERED:
        result = import_prefect(case["automations"], runs="prefect")
        assert len(result.rules["automations"]) >= len(case["automations"]) - len(result.notes), case["name"]


def test_replaying_twice_gives_the_same_firings() -> None:
    for case in ANSWERED[:40]:
        rules = differential.load_imported(case)
        assert differential.our_firings(rules, case) == differential.our_firings(rules, case)
