"""Dividing shards: fair, the same for everybody, and calm when members come and go."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from whenthen.engine.evaluation.leases import Lease, assign
from whenthen.triggers.matching.sharding import shard_of

MEMBERS = st.sets(st.text("abcdef", min_size=1, max_size=3), min_size=1, max_size=8)


@given(MEMBERS, st.integers(1, 40), st.dictionaries(st.integers(0, 45), st.text("abcdefg", max_size=3)))
def test_every_shard_has_a_present_member_and_loads_differ_by_at_most_one(
    members: set[str], shards: int, holders: dict[int, str]
) -> None:
    result = assign(members, shards, holders)
    assert sorted(result) == list(range(shards))
    assert set(result.values()) <= members
    loads = [Counter(result.values())[member] for member in members]
    assert max(loads) - min(loads) <= 1


@given(MEMBERS, st.integers(1, 40))
def test_nothing_moves_while_nobody_comes_or_goes(members: set[str], shards: int) -> None:
    first = assign(members, shards)
    assert assign(sorted(members, reverse=True), shards, first) == first


@given(MEMBERS, st.integers(1, 40))
def test_only_the_shards_of_a_member_that_left_move(members: set[str], shards: int) -> None:
    first = assign(members, shards)
    gone = min(members)
    if len(members) > 1:
        second = assign(members - {gone}, shards, first)
        assert all(second[shard] == member for shard, member in first.items() if member != gone)


def test_no_member_holds_nothing() -> None:
    assert assign([], 4) == {}


def test_the_shard_of_a_name_is_pinned() -> None:
    assert [shard_of(name, 16) for name in ("load-new-csv", "é", "")] == [
        shard_of("load-new-csv", 16),
        shard_of("é", 16),
        shard_of("", 16),
    ]
    spread = Counter(shard_of(f"automation-{number}", 8) for number in range(8000))
    assert min(spread.values()) > 800


def test_a_lease_is_held_until_its_end_and_not_at_it() -> None:
    lease = Lease(0, 1, 10.0)
    assert lease.held(9.99)
    assert not lease.held(10.0)
