"""What is left out of garbage collections."""

from __future__ import annotations

import gc
import weakref

import pytest

from whenthen.engine.process.gc_tuning import loading, unfreeze


class Loop:
    """Refers to itself."""

    def __init__(self) -> None:
        self.itself = self


def test_cycles_that_are_dropped_while_filling_are_collected() -> None:
    with loading():
        collected: list[object] = []
        first = weakref.ref(Loop(), collected.append)  # asking it would hold the object just when a collection may come
        held = []
        while not collected:
            held.append([Loop()])
            assert len(held) < 1_000_000
    assert collected == [first]
    unfreeze()


@pytest.mark.takes(2)
def test_what_is_there_in_the_end_is_left_out_until_thawed() -> None:
    before = gc.get_threshold()
    with loading():
        assert gc.get_threshold() != before
        kept = Loop()
    assert gc.get_threshold() == before
    dropped = weakref.ref(kept)
    del kept
    gc.collect()
    assert dropped() is not None
    unfreeze()
    gc.collect()
    assert dropped() is None


def test_a_failure_leaves_the_collector_as_it_was() -> None:
    before = gc.get_threshold(), gc.get_freeze_count()
    with pytest.raises(ValueError, match="no"), loading():
        raise ValueError("no")
    assert (gc.get_threshold(), gc.get_freeze_count()) == before


def test_two_that_overlap_leave_the_thresholds_as_they_were() -> None:
    before = gc.get_threshold()
    one, other = loading(), loading()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    other.__exit__(None, None, None)
    unfreeze()
    assert gc.get_threshold() == before
