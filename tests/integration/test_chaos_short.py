"""The crash tests of `make chaos` in short: a dozen kills of a whole server, its nats-server, a worker and the receivers; and as many of
the processes that have to do with runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.killed_runs import chaos_of_runs
from tests.chaos.run import run_chaos

pytestmark = pytest.mark.anyio


@pytest.mark.takes(32)
async def test_whatever_is_killed_firings_equal_the_replay_and_every_action_and_run_happened(tmp_path: Path) -> None:
    summary = await run_chaos(tmp_path, "embedded", 4, kills=12, every_s=1.2, rate=15, until_s=25, window_bytes=0)
    assert not summary["faults"], summary
    assert summary["kills"]["in_all"] >= 3, summary
    assert summary["firings"], summary
    assert summary["rule_changes"] >= 1, summary
    assert summary["revisions"] >= 2, summary


@pytest.mark.takes(32)
async def test_whoever_is_killed_each_run_ends_none_is_lost_and_none_is_executed_twice_unless_retried(
    tmp_path: Path,
) -> None:
    summary = await chaos_of_runs(tmp_path, 7, runs=40, kills=10, every_s=1.2, pause_s=0.3)
    assert not summary["faults"], summary
    assert sum(summary["kills"].values()) == 10, summary
    assert summary["runs"] > 40, summary
