"""Targets: each has its share of the slots, and one that keeps failing is left in peace and then probed."""

from __future__ import annotations

from whenthen.engine.targets import TargetLimits, Targets


def fail(targets: Targets, now: float) -> None:
    gate = targets.enter("t")
    targets.begin(gate)
    targets.end("t", gate, worked=False, now=now)


def test_a_target_takes_only_its_share() -> None:
    targets = Targets(TargetLimits(at_once=2, waiting=1))
    for _ in range(2):
        gate = targets.enter("t")
        assert targets.free(gate)
        targets.begin(gate)
    assert not targets.free(targets.enter("t"))
    assert targets.refuse_s("t", 0.0) > 0
    assert targets.refuse_s("other", 0.0) == 0


def test_a_failing_target_is_closed_then_probed_by_one_and_opened_by_a_success() -> None:
    targets = Targets(TargetLimits(failures=3, pause_s=5.0, max_pause_s=8.0))
    for _ in range(3):
        assert targets.refuse_s("t", 0.0) == 0
        fail(targets, 0.0)
    assert targets.refuse_s("t", 1.0) == 4.0
    assert targets.refuse_s("t", 5.0) == 0
    probe = targets.enter("t")
    assert targets.refuse_s("t", 5.0) > 0, "one probe at a time"
    targets.begin(probe)
    targets.end("t", probe, worked=False, now=5.0)
    assert targets.refuse_s("t", 5.0) == 8.0, "the pause doubles up to its limit"
    probe = targets.enter("t")
    targets.begin(probe)
    targets.end("t", probe, worked=True, now=14.0)
    assert targets.refuse_s("t", 14.0) == 0
    assert targets.gates == {}


def test_an_interrupted_task_says_nothing_about_its_target() -> None:
    targets = Targets(TargetLimits(failures=1))
    gate = targets.enter("t")
    targets.begin(gate)
    targets.end("t", gate, worked=None, now=0.0)
    assert targets.refuse_s("t", 0.0) == 0
