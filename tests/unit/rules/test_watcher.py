"""Rules that follow their folder."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from watchfiles import Change

from tests.patience import limit
from whenthen.rules import Rules, RulesWatcher, load_rules
from whenthen.schemas.errors import BusUnavailable, Problem

GOOD = "automations: [{name: a, trigger: {expect: x}}]\n"
OTHER = "automations: [{name: b, trigger: {expect: x}}]\n"
BAD = "automations: [{name: b, trigger: {expct: x}}]\n"


class Heard:
    """Collects what a watcher tells."""

    def __init__(self) -> None:
        self.rules: list[Rules] = []
        self.problems: list[Sequence[Problem]] = []

    async def __call__(self, rules: Rules | None, problems: Sequence[Problem]) -> None:
        if rules is None:
            self.problems.append(problems)
        else:
            self.rules.append(rules)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(limit(20)):
        while not condition():
            await asyncio.sleep(0.01)


async def follow(folder: Path, watcher: RulesWatcher, heard: Heard) -> None:
    stop = asyncio.Event()
    task = asyncio.create_task(watcher.run(stop))
    try:
        # a watcher needs a moment to begin, so the change is repeated now and then until it is seen
        written: dict[str, float] = {}

        def changed(text: str, seen: Callable[[], bool]) -> bool:
            now = time.monotonic()
            if now - written.get(text, 0.0) > 1:
                written[text] = now
                (folder / "a.yaml").write_text(f"{text}# {now}\n")
            return seen()

        await until(lambda: changed(OTHER, lambda: bool(heard.rules)))
        assert heard.rules[0].automations[0].name == "b"
        await until(lambda: changed(BAD, lambda: bool(heard.problems)))
        assert heard.problems[0][0].field == "automations[0].trigger.expct"
        assert watcher.rules.automations[0].name == "b"
        await until(lambda: changed(GOOD, lambda: heard.rules[-1].automations[0].name == "a"))
        assert watcher.problems == ()
    finally:
        stop.set()
        await asyncio.wait_for(task, limit(20))


def test_a_folder_concerns_the_rules_also_where_its_name_has_a_dot(tmp_path: Path) -> None:
    (tmp_path / "v1.2").mkdir()
    (tmp_path / "v1.2" / "a.yaml").write_text(GOOD)
    (tmp_path / "data.csv").write_text("1")
    watcher = RulesWatcher(tmp_path, load_rules(tmp_path), Heard())

    def concerns(name: str) -> bool:
        return watcher._concerns(Change.deleted, str(tmp_path / name))

    assert concerns("v1.2")
    (tmp_path / "v1.2").rename(tmp_path / ".away")
    found = {name: concerns(name) for name in ("v1.2", "v1.2/a.yaml", "data.csv", "gone.csv", "v1.3", ".away")}
    assert found == {
        "v1.2": True,
        "v1.2/a.yaml": True,
        "data.csv": False,
        "gone.csv": False,
        "v1.3": False,
        ".away": False,
    }


@pytest.mark.takes(1.5)
def test_a_change_is_taken_a_bad_one_is_told_and_the_last_good_set_stays(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    heard = Heard()
    watcher = RulesWatcher(tmp_path, load_rules(tmp_path), heard, debounce_ms=50)
    asyncio.run(follow(tmp_path, watcher, heard))


@pytest.mark.takes(0.7)
def test_where_watching_fails_files_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise OSError("no notifications here")

    monkeypatch.setattr("whenthen.rules.watcher.awatch", fail)
    (tmp_path / "a.yaml").write_text(GOOD)
    heard = Heard()
    watcher = RulesWatcher(tmp_path, load_rules(tmp_path), heard, poll_s=0.02)
    asyncio.run(follow(tmp_path, watcher, heard))


def test_the_same_content_is_not_told_again(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    heard = Heard()
    watcher = RulesWatcher(tmp_path, load_rules(tmp_path), heard)
    assert asyncio.run(watcher.reload()) is False
    assert heard.rules == []


def test_taking_a_bad_change_back_is_told(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(GOOD)
    heard = Heard()
    watcher = RulesWatcher(tmp_path, load_rules(tmp_path), heard)
    file.write_text(BAD)
    assert asyncio.run(watcher.reload()) is False
    assert asyncio.run(watcher.reload()) is False
    file.write_text(GOOD)
    assert asyncio.run(watcher.reload()) is False
    assert len(heard.problems) == 1
    assert len(heard.rules) == 1
    assert watcher.problems == ()


def test_a_file_that_is_empty_for_a_moment_takes_nothing_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(GOOD)
    heard = Heard()
    watcher = RulesWatcher(tmp_path, load_rules(tmp_path), heard, debounce_ms=10)
    load = watcher._load

    def load_and_go_on_writing(now: float) -> Rules:
        try:
            return load(now)
        finally:
            file.write_text(OTHER)

    monkeypatch.setattr(watcher, "_load", load_and_go_on_writing)
    file.write_text("")
    assert asyncio.run(watcher.reload()) is False
    assert heard.rules == [], "what the file held stays in force"
    assert asyncio.run(watcher.reload()) is True
    assert [[automation.name for automation in rules.automations] for rules in heard.rules] == [["b"]]


def test_a_folder_that_disappears_is_a_refused_set(tmp_path: Path) -> None:
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "a.yaml").write_text(GOOD)
    heard = Heard()
    watcher = RulesWatcher(folder, load_rules(folder), heard)
    (folder / "a.yaml").unlink()
    folder.rmdir()
    assert asyncio.run(watcher.reload()) is False
    assert len(watcher.rules.automations) == 1
    assert heard.problems


# -- files that go away


@pytest.mark.takes(1)
def test_a_change_that_can_not_be_taken_now_is_told_again_until_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    told: list[str] = []

    async def changed(rules: Rules | None, problems: Sequence[Problem]) -> None:
        assert rules is not None
        told.append(rules.automations[0].name)
        if len(told) < 3:
            raise BusUnavailable("NATS is away")

    async def watch() -> None:
        watcher = RulesWatcher(tmp_path, load_rules(tmp_path), changed, debounce_ms=1)
        stop = asyncio.Event()
        (tmp_path / "a.yaml").write_text(OTHER)
        with pytest.raises(BusUnavailable):
            await watcher.reload()
        task = asyncio.create_task(watcher.run(stop))
        try:
            await until(lambda: len(told) == 3 and watcher.rules.automations[0].name == "b")
        finally:
            stop.set()
            await asyncio.wait_for(task, limit(20))

    asyncio.run(watch())
    assert told == ["b"] * 3


class Away:
    """A folder with two files, a watcher whose clock is set by hand, and what it told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 100.0
        self.write("a.yaml", GOOD)
        self.write("b.yaml", OTHER)
        self.heard = Heard()
        self.watcher = RulesWatcher(
            folder, load_rules(folder), self.heard, debounce_ms=1, grace_s=10, monotonic=lambda: self.now
        )

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def reload_at(self, now: float) -> list[str]:
        """The names in force after a reading."""
        self.now = now
        asyncio.run(self.watcher.reload())
        return [automation.name for automation in self.watcher.rules.automations]


@pytest.fixture
def away(tmp_path: Path) -> Away:
    return Away(tmp_path)


def test_a_file_that_is_moved_away_and_back_changes_nothing(away: Away) -> None:
    (away.folder / "a.yaml").rename(away.folder / "a.old")
    assert away.reload_at(100) == ["a", "b"]
    (away.folder / "a.old").rename(away.folder / "a.yaml")
    assert away.reload_at(100.5) == ["a", "b"]
    assert away.heard.rules == []


@pytest.mark.parametrize("text", ["", "\n", "# nothing here\n", "---\n"])
def test_a_file_that_is_emptied_and_refilled_changes_nothing(away: Away, text: str) -> None:
    away.write("a.yaml", text)
    assert away.reload_at(100) == ["a", "b"]
    away.write("a.yaml", GOOD)
    assert away.reload_at(109) == ["a", "b"]
    assert away.heard.rules == []


def test_a_file_that_stays_away_is_removed_after_the_grace_and_is_there_again_when_it_is_back(away: Away) -> None:
    (away.folder / "a.yaml").rename(away.folder / "a.old")
    assert away.reload_at(100) == ["a", "b"]
    assert away.reload_at(109.9) == ["a", "b"]
    assert away.reload_at(110) == ["b"]
    (away.folder / "a.old").rename(away.folder / "a.yaml")
    assert away.reload_at(111) == ["a", "b"]


def test_a_file_that_comes_and_goes_has_the_whole_grace_each_time(away: Away) -> None:
    for start in (100.0, 109.0):
        (away.folder / "a.yaml").unlink()
        assert away.reload_at(start) == ["a", "b"]
        away.write("a.yaml", GOOD)
        assert away.reload_at(start + 8) == ["a", "b"]


def test_what_else_changed_is_taken_at_once(away: Away) -> None:
    (away.folder / "a.yaml").unlink()
    away.write("b.yaml", "automations: [{name: c, trigger: {expect: x}}]\n")
    assert away.reload_at(100) == ["a", "c"]
    assert away.reload_at(110) == ["c"]


def test_an_automation_that_leaves_a_file_that_stays_is_removed_at_once(away: Away) -> None:
    away.write("a.yaml", "automations: [{name: c, trigger: {expect: x}}]\n")
    assert away.reload_at(100) == ["c", "b"]


def test_a_renamed_file_is_no_second_one(away: Away) -> None:
    (away.folder / "a.yaml").rename(away.folder / "z.yaml")
    assert away.reload_at(100) == ["b", "a"]
    assert away.watcher.rules.files == ("b.yaml", "z.yaml")
    assert away.watcher.problems == ()


def test_of_a_file_that_is_away_only_that_stays_which_no_other_file_has(away: Away) -> None:
    away.write("a.yaml", "automations: [{name: a, trigger: {expect: x}}, {name: a2, trigger: {expect: x}}]\n")
    assert away.reload_at(100) == ["a", "a2", "b"]
    (away.folder / "a.yaml").unlink()
    away.write("c.yaml", GOOD.replace("expect: x", "expect: y"))
    assert away.reload_at(101) == ["a2", "b", "a"]
    assert away.reload_at(111) == ["b", "a"]


def test_all_files_may_be_away_for_a_moment(away: Away) -> None:
    for name in ("a.yaml", "b.yaml"):
        (away.folder / name).unlink()
    assert away.reload_at(100) == ["a", "b"]
    assert away.reload_at(110) == []


@pytest.mark.takes(0.6)
def test_a_running_watcher_removes_what_stayed_away_by_itself(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    heard = Heard()
    watcher = RulesWatcher(tmp_path, load_rules(tmp_path), heard, debounce_ms=50, grace_s=0.5)

    async def play() -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(watcher.run(stop))
        (tmp_path / "a.yaml").unlink()
        await watcher.reload()
        assert len(watcher.rules.automations) == 1
        await until(lambda: watcher.rules.automations == ())
        stop.set()
        await asyncio.wait_for(task, limit(20))

    asyncio.run(play())


@pytest.mark.takes(1.2)
def test_a_change_is_taken_beside_a_file_whose_name_can_not_be_told(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    heard = Heard()
    watcher = RulesWatcher(tmp_path, load_rules(tmp_path), heard, debounce_ms=50, poll_s=0.05)
    text = tmp_path / os.fsdecode(b"note\xff.txt")

    async def follow_both() -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(watcher.run(stop))

        def touched() -> bool:  # again and again, as it is not told when a watcher has begun
            text.write_text(str(time.monotonic()))
            (tmp_path / "a.yaml").write_text(OTHER)
            return bool(heard.rules) or task.done()

        await until(touched)
        stop.set()
        await asyncio.wait_for(task, limit(20))

    asyncio.run(follow_both())
    assert heard.rules[0].automations[0].name == "b"
