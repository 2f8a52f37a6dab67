"""Rules that follow their folder."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.patience import limit
from whenthen.rules import Rules, RulesWatcher, load_rules
from whenthen.schemas.errors import Problem

GOOD = "automations: [{name: a, trigger: {expect: x}}]\n"
OTHER = "automations: [{name: b, trigger: {expect: x}}]\n"
BAD = "automations: [{name: b, trigger: {expct: x}}]\n"


class Heard:
    """Collects what a watcher tells."""

    def __init__(self) -> None:
        self.rules: list[Rules] = []
        self.problems: list[Sequence[Problem]] = []

    def __call__(self, rules: Rules | None, problems: Sequence[Problem]) -> None:
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


def test_a_change_is_taken_a_bad_one_is_told_and_the_last_good_set_stays(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    heard = Heard()
    watcher = RulesWatcher(tmp_path, load_rules(tmp_path), heard, debounce_ms=50)
    asyncio.run(follow(tmp_path, watcher, heard))


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


def test_a_file_that_is_empty_for_a_moment_takes_nothing_away(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(GOOD)
    heard = Heard()
    watcher = RulesWatcher(tmp_path, load_rules(tmp_path), heard, debounce_ms=300)

    async def run() -> None:
        file.write_text("")
        reading = asyncio.create_task(watcher.reload())
        await asyncio.sleep(0)
        await asyncio.to_thread(file.write_text, OTHER)
        await reading

    asyncio.run(run())
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
