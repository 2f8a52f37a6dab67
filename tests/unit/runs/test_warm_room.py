"""The memory of the interpreters of a process that wait: who has it, and who makes room."""

from __future__ import annotations

import pytest

from whenthen.runs.warm.warm_room import Waiting, WarmRoom

MIB = 1 << 20


def waiting(room: WarmRoom, used: float, size: int, *, ready: bool = True) -> tuple[Waiting, list[bool]]:
    """One that has entered, and a list that is not empty when it was ended."""
    ended: list[bool] = []
    one = Waiting(used=lambda: used, end=lambda: ended.append(True), bytes=size, ready=ready)
    room.enter(one)
    return one, ended


def test_those_that_ran_longest_ago_make_room_and_no_more_of_them_than_needed() -> None:
    room = WarmRoom(100)
    [(_, oldest), (_, older), (_, newest)] = [waiting(room, used, 30) for used in (1.0, 2.0, 9.0)]
    assert room.has(10, used=0.0)  # it is free
    assert not room.has(20, used=0.0)
    assert (oldest, older, newest) == ([], [], [])
    assert room.has(40, used=5.0)
    assert (oldest, older, newest) == ([True], [], [])
    # it counts no more, though it has not ended yet
    assert room.has(40, used=0.0)
    assert room.has(70, used=5.0)
    assert (older, newest) == ([True], [])


def test_nobody_ends_for_one_that_has_no_room_all_the_same() -> None:
    room = WarmRoom(100)
    [(_, old), (_, new)] = [waiting(room, used, 50) for used in (1.0, 9.0)]
    assert not room.has(60, used=5.0)
    assert not room.has(50, used=1.0)  # as old as the oldest
    assert (old, new) == ([], [])


def test_what_loads_is_counted_and_is_not_ended() -> None:
    room = WarmRoom(100)
    loading, ended = waiting(room, 0.0, 80, ready=False)
    assert not room.has(30, used=5.0)
    assert not ended
    room.leave(loading)
    assert room.has(100, used=0.0)


@pytest.mark.parametrize(("most", "known", "guess"), [(256 * MIB, 0, 24 * MIB), (MIB, 0, MIB), (MIB, 7, 7)])
def test_what_none_has_taken_yet_is_guessed(most: int, known: int, guess: int) -> None:
    assert WarmRoom(most).guess(known) == guess
