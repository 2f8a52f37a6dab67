"""The note of what the event loop works on: made before, taken away whenever the work waits, kept when the process ends."""

from __future__ import annotations

import asyncio
import os

import pytest

from tests.patience import limit
from whenthen.supervision.at_hand import TEXT_BYTES, AtHand, Item, Work, noted
from whenthen.supervision.shared_page import Cause, SharedPage


def test_a_note_is_read_as_it_was_made() -> None:
    note = AtHand()
    assert note.read() is None
    note.event(3, 1 << 40)
    assert note.read() == Item(kind=Work.EVENT, shard=3, position=1 << 40)
    note.begin(Work.ACTION, "käse.0".encode())
    assert note.read() == Item(kind=Work.ACTION, text="käse.0")
    note.nothing()
    assert note.read() is None


def test_the_text_is_that_of_the_last_note_whatever_came_between() -> None:
    note = AtHand()
    for text in ("one", "one", "another", "one"):
        note.begin(Work.REQUEST, text.encode())
        assert note.read() == Item(kind=Work.REQUEST, text=text)
        note.event(1, 7)
        assert note.read() == Item(kind=Work.EVENT, shard=1, position=7)
        note.nothing()
    note.begin(Work.ACTION, b"one")
    assert note.read() == Item(kind=Work.ACTION, text="one")


def test_a_long_text_is_cut() -> None:
    note = AtHand()
    note.begin(Work.REQUEST, b"x" * 5000)
    found = note.read()
    assert found is not None
    assert found.text == "x" * TEXT_BYTES


@pytest.mark.anyio
async def test_work_is_noted_while_it_has_the_event_loop_and_not_while_it_waits() -> None:
    note = AtHand()
    seen: list[Item | None] = []
    waits = asyncio.Event()

    async def work() -> str:
        seen.append(note.read())
        await waits.wait()
        seen.append(note.read())
        return "done"

    task = asyncio.ensure_future(_awaiting(note, work()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert note.read() is None
    waits.set()
    assert await task == "done"
    assert seen == [Item(kind=Work.ACTION, text="a.0")] * 2
    assert note.read() is None


@pytest.mark.anyio
async def test_what_the_work_raises_and_a_cancellation_of_it_pass_through() -> None:
    note = AtHand()
    ended: list[str] = []

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    with pytest.raises(ValueError, match="no"):
        await _awaiting(note, fails())
    task = asyncio.ensure_future(_awaiting(note, waits()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["cancelled"]
    async with asyncio.timeout(limit(5)):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await _awaiting(note, waits())
    assert note.read() is None


async def _awaiting(note: AtHand, work: object) -> object:
    return await noted(note, Work.ACTION, b"a.0", work)  # type: ignore[arg-type]


def test_a_parent_reads_what_its_child_had_at_hand_and_the_next_child_too() -> None:
    page = SharedPage(supervised=True)
    page.begin_child()
    child = os.fork()
    if child == 0:
        page.at_hand.event(1, 42)
        page.note_hang()
        page.at_hand.nothing()
        os._exit(0)
    os.waitpid(child, 0)
    page.note_end(child, 0, crashed=False)
    page.begin_child()
    before = page.before
    assert before is not None
    assert (before.cause, before.pid, before.item) == (Cause.HUNG, child, Item(kind=Work.EVENT, shard=1, position=42))
    page.forget_before()
    assert page.before is None
    assert page.restarts == 1


def test_a_crash_is_kept_with_what_was_at_hand_and_another_end_is_not() -> None:
    page = SharedPage(supervised=True)
    page.begin_child()
    page.at_hand.begin(Work.ACTION, b"f.0")
    page.note_end(7, 9, crashed=False)
    assert page.before is None
    page.note_end(7, 11, crashed=True)
    before = page.before
    assert before is not None
    assert (before.cause, before.signal, before.item) == (Cause.CRASHED, 11, Item(kind=Work.ACTION, text="f.0"))


def test_a_hang_that_nobody_has_dealt_with_outlives_a_child_that_crashed() -> None:
    page = SharedPage(supervised=True)
    page.at_hand.event(0, 1)
    page.note_hang()
    page.at_hand.event(0, 2)
    page.note_end(7, 11, crashed=True)
    before = page.before
    assert before is not None
    assert (before.cause, before.item) == (Cause.HUNG, Item(kind=Work.EVENT, shard=0, position=1))
