"""Pauses of automations as a process knows them: with an end, a reason and who asked, over the store that all processes share."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from whenthen.engine.process.pauses import AutomationPauses
from whenthen.engine.process.pausing.pause_log import PauseLog, Standing
from whenthen.runs.memory_stores import MemoryFlagStore
from whenthen.runs.stores import Flag
from whenthen.schemas.automations import PauseChange
from whenthen.schemas.errors import BusUnavailable, NotFound
from whenthen.schemas.times import format_time, parse_us


class House:
    """One store, and as many processes over it as are made."""

    def __init__(self) -> None:
        self.store = MemoryFlagStore()
        self.shown: list[set[str]] = []

    def process(self, told: PauseLog | None = None) -> AutomationPauses:
        class Registry:
            def automation(self, name: str) -> None:
                if name != "a":
                    raise NotFound(f"no automation {name}")

        async def orphans() -> dict[str, int]:
            return {}

        return AutomationPauses(
            self.store,
            Registry(),  # type: ignore[arg-type]
            changed=lambda paused: self.shown.append(set(paused)),
            orphans=orphans,
            pause_log=told,
        )


def test_a_pause_is_known_to_every_process_with_its_end_reason_and_who_asked() -> None:
    async def go() -> None:
        house = House()
        one, other = house.process(), house.process()
        until = datetime.now(UTC) + timedelta(hours=2)
        await one.pause("a", until=until, reason="they flood us", by="ada")
        await other.refresh()
        for pauses in (one, other):
            assert pauses.paused == {"a"}
            assert pauses.ends == {"a": parse_us(format_time(until))}
            flag = pauses.current()["a"]
            assert (flag.until, flag.reason, flag.by) == (format_time(until), "they flood us", "ada")
        await other.resume("a")
        await one.refresh()
        assert (one.paused, one.ends, one.current()) == (set(), {}, {})

    asyncio.run(go())


def test_a_later_pause_replaces_the_end_and_the_reason() -> None:
    async def go() -> None:
        pauses = House().process()
        await pauses.pause("a", until=datetime.now(UTC) + timedelta(hours=2), reason="first", by="ada")
        await pauses.pause("a", reason="second")
        assert pauses.ends == {}
        assert pauses.current()["a"].reason == "second"
        with pytest.raises(NotFound):
            await pauses.pause("b")

    asyncio.run(go())


def test_a_pause_that_has_ended_is_shown_no_more_and_still_known_to_evaluators_that_are_behind() -> None:
    async def go() -> None:
        house = House()
        pauses = house.process()
        await pauses.pause("a", until=datetime.now(UTC) + timedelta(hours=1))
        assert house.shown == [{"a"}]
        flag, version = await house.store.get("automation/a") or (None, 0)
        assert flag is not None
        past = format_time(datetime.now(UTC) - timedelta(seconds=1))
        await house.store.put("automation/a", Flag(paused=True, changed=flag.changed, until=past), version)
        await pauses.refresh()
        assert house.shown == [{"a"}, set()]
        assert pauses.current() == {}
        assert (pauses.paused, pauses.ends) == ({"a"}, {"a": parse_us(past)})

    asyncio.run(go())


def test_a_flag_of_an_earlier_version_is_a_pause_without_an_end() -> None:
    async def go() -> None:
        house = House()
        await house.store.put("automation/a", Flag(paused=True, changed="2026-01-01T00:00:00.000000Z"), 0)
        pauses = house.process()
        await pauses.refresh()
        assert (pauses.paused, pauses.ends, set(pauses.current())) == ({"a"}, {}, {"a"})

    asyncio.run(go())


class Told:
    """The log of events, as far as it says who is paused. `broken` operations fail."""

    def __init__(self) -> None:
        self.changes: list[PauseChange] = []
        self.broken = 0

    async def last(self, automation: str) -> PauseChange | None:
        found = [change for change in self.changes if change.automation == automation]
        return found[-1] if found else None

    async def tell(self, change: PauseChange) -> None:
        if self.broken:
            self.broken -= 1
            raise BusUnavailable("no answer")
        if change not in self.changes:
            self.changes.append(change)


def test_each_change_is_told_with_its_version_and_what_was_before() -> None:
    async def go() -> None:
        told = Told()
        pauses = House().process(told)
        until = datetime.now(UTC) + timedelta(hours=2)
        await pauses.pause("a", until=until, reason="flood", by="ada")
        await pauses.resume("a")
        await pauses.settle()
        text = format_time(until)
        assert [(each.paused, each.until, each.was_paused, each.was_until) for each in told.changes] == [
            (True, text, False, ""),
            (False, "", True, text),
        ]
        assert told.changes[0].version < told.changes[1].version
        assert (told.changes[0].reason, told.changes[0].by) == ("flood", "ada")

    asyncio.run(go())


def test_what_a_process_stored_and_did_not_tell_is_told_by_the_next_one_that_looks() -> None:
    async def go() -> None:
        told, house = Told(), House()
        first, other = house.process(told), house.process(told)
        await first.pause("a")
        told.broken = 1
        with pytest.raises(BusUnavailable):
            await first.resume("a")
        assert [each.paused for each in told.changes] == [True]
        for pauses in (other, first):
            await pauses.refresh()
            await pauses.settle()
        assert [(each.paused, each.was_paused) for each in told.changes] == [(True, False), (False, True)]

    asyncio.run(go())


def test_a_flag_of_an_earlier_version_is_told_as_having_held_before() -> None:
    async def go() -> None:
        told, house = Told(), House()
        await house.store.put("automation/a", Flag(paused=True, changed=format_time(datetime.now(UTC))), 0)
        pauses = house.process(told)
        await pauses.refresh()
        await pauses.settle()
        (change,) = told.changes
        assert (change.paused, change.was_paused) == (True, True)
        await pauses.settle()
        assert len(told.changes) == 1

    asyncio.run(go())


def test_flags_of_a_bucket_that_was_made_again_are_told_as_newer_ones() -> None:
    async def go() -> None:
        told, house = Told(), House()
        told.changes.append(PauseChange(automation="a", paused=False, version=1000))
        pauses = house.process(told)
        await pauses.pause("a")
        assert (told.changes[-1].paused, told.changes[-1].version) == (True, 1001)
        await pauses.settle()
        assert len(told.changes) == 2

    asyncio.run(go())


def test_how_automations_stood_at_a_position() -> None:
    def change(name: str, version: int, *, paused: bool, was: bool = False) -> PauseChange:
        return PauseChange(automation=name, paused=paused, version=version, was_paused=was)

    placed = [
        (5, change("a", 2, paused=True)),
        (6, change("a", 1, paused=False)),  # told late
        (9, change("b", 4, paused=False, was=True)),
        (10, change("c", 5, paused=True)),
    ]
    now = [change("d", 6, paused=True), change("c", 5, paused=True)]
    for position, names in ((4, {"b", "d"}), (6, {"a", "b", "d"}), (9, {"a", "d"}), (10, {"a", "c", "d"})):
        standing = Standing(position)
        for seq, each in placed:
            standing.add(seq, each)
        assert {each.automation for each in standing.pauses(now)} == names, position
