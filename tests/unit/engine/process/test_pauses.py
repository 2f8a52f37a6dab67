"""Pauses of automations as a process knows them: with an end, a reason and who asked, over the store that all processes share."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from whenthen.engine.process.pauses import AutomationPauses
from whenthen.runs.memory_stores import MemoryFlagStore
from whenthen.runs.stores import Flag
from whenthen.schemas.errors import NotFound
from whenthen.schemas.times import format_time, parse_us


class House:
    """One store, and as many processes over it as are made."""

    def __init__(self) -> None:
        self.store = MemoryFlagStore()
        self.shown: list[set[str]] = []

    def process(self) -> AutomationPauses:
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
