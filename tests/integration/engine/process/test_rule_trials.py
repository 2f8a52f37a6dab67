"""Trials of rules that take more than they may are ended, and say so."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from whenthen.engine.process.queries.pages import rule_trials
from whenthen.engine.process.queries.pages.rule_trials import RuleTrials

pytestmark = pytest.mark.anyio

TRIALS = {
    "slow": ("import time; time.sleep(600)", "longer than 1 s"),
    "failing": ("raise SystemExit(9)", "more time or memory"),
    "large": (f"print('x' * {rule_trials.MOST_ANSWER + 1})", "more than a page shows"),
}


@pytest.mark.parametrize("kind", TRIALS)
async def test_a_trial_that_takes_too_much_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    code, told = TRIALS[kind]
    (tmp_path / f"trial_{kind}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(rule_trials, "_MODULE", f"trial_{kind}")
    if kind == "slow":
        monkeypatch.setattr(rule_trials, "WITHIN_S", 1.0)
    registry = SimpleNamespace(now=SimpleNamespace(deployments={}, notifiers={}))
    found = await RuleTrials(cast(Any, registry)).try_rules("", "", follow=False)
    assert len(found.problems) == 1
    assert told in found.problems[0]
