"""A folder as a source: real files, a real server, and what happens while nobody looks."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests.integration.sources.reading import forget_what_is_stored, reading
from tests.patience import until
from whenthen.engine.sources.edges.folder_edge import look_at
from whenthen.schemas.event_sources import FolderReading

pytestmark = pytest.mark.anyio


def rules(folder: Path, more: str = "stable: 200ms") -> str:
    return f"sources:\n  - {{name: drops, read: {{type: folder, path: {folder}, {more}}}}}\n"


@pytest.fixture
def drops(tmp_path: Path) -> Path:
    folder = tmp_path / "drops"
    folder.mkdir()
    return folder


async def test_files_that_come_change_move_and_go_are_events(tmp_path: Path, drops: Path) -> None:
    (drops / "old.csv").write_text("was here before")
    async with reading(tmp_path, rules(drops)) as server:

        async def is_read() -> bool:
            return await server.metric('whenthen_source_reading{source="drops"}') == 1.0

        await until(is_read)
        (drops / "a").mkdir()
        (drops / "a" / "new.csv").write_text("1;2")
        (event,) = await server.come(1)
        assert event["event"] == "file.created"
        assert event["source"] == "source:drops"
        assert event["resource"]["id"] == f"file.{drops}/a/new.csv"
        assert event["payload"]["size"] == 3
        (drops / "a" / "new.csv").write_text("1;2;3")
        await server.come(2)
        (drops / "a" / "new.csv").rename(drops / "b.csv")
        await server.come(3)
        (drops / "old.csv").unlink()
        events = await server.come(4)
        assert [each["event"] for each in events] == ["file.created", "file.modified", "file.moved", "file.deleted"]
        assert events[2]["payload"]["before"] == "a/new.csv"
        assert events[3]["payload"]["path"] == "old.csv"

        async def all_counted() -> bool:
            return await server.metric('whenthen_events_received_total{source="source:drops"}') == 4.0

        await until(all_counted)


async def test_what_comes_while_the_beginning_can_not_be_stored_is_new(
    tmp_path: Path, drops: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (drops / "old.csv").write_text("was here before")
    tries = forget_what_is_stored(monkeypatch, back=(drops / "new.csv").exists)
    async with reading(tmp_path, rules(drops)) as server:
        await server.becomes("drops", "trouble", "away for the test")
        (drops / "new.csv").write_text("1;2")
        await server.becomes("drops", "reading")
        assert [event["payload"]["path"] for event in await server.come(1)] == ["new.csv"]
        assert len(tries) > 1


async def test_nothing_is_missed_or_told_twice_over_a_restart(tmp_path: Path, drops: Path) -> None:
    for name in ("kept", "changed", "gone"):
        (drops / name).write_text("x")
    async with reading(tmp_path, rules(drops, "stable: 0s, existing: report")) as server:
        await server.come(3)
    (drops / "changed").write_text("more")
    (drops / "gone").unlink()
    (drops / "came").write_text("y")
    async with reading(tmp_path, rules(drops, "stable: 0s, existing: report")) as server:
        await server.come(6)
        (drops / "last").write_text("z")
        events = await server.come(7)
        told = sorted(f"{each['event']} {each['payload']['path']}" for each in events[3:])
        assert told == ["file.created came", "file.created last", "file.deleted gone", "file.modified changed"]


async def test_thousands_of_files_at_once_are_all_told_once(tmp_path: Path, drops: Path) -> None:
    async with reading(tmp_path, rules(drops, "stable: 100ms, existing: report")) as server:
        for number in range(3000):
            (drops / f"{number:04}").write_bytes(b"")

        async def all_told() -> bool:
            return await server.metric('whenthen_events_received_total{source="source:drops"}') == 3000.0

        await until(all_told, within_s=60)
        assert await server.metric('whenthen_events_duplicate_total{source="source:drops"}') == 0.0


@pytest.mark.requires("another user")
def test_what_may_not_be_read_is_not_gone() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as text:  # every user may go through /tmp
        folder = Path(text)
        folder.chmod(0o755)
        hidden = folder / "hidden"
        hidden.mkdir(0o700)
        (hidden / "file").write_text("x")
        (folder / "open").write_text("y")
        pid = os.fork()
        if pid == 0:  # root reads everything, so that another user looks
            status = 1
            try:
                os.setuid(65534)
                look = look_at(FolderReading(type="folder", path=text))
                well = look.is_unseen("hidden/file") and not look.is_unseen("open") and list(look.seen) == ["open"]
                status = 0 if well else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


async def test_a_folder_that_is_away_is_trouble_and_its_files_are_not_gone(tmp_path: Path, drops: Path) -> None:
    (drops / "file").write_text("x")
    async with reading(tmp_path, rules(drops, "stable: 0s, existing: report")) as server:
        await server.come(1)
        os.rename(drops, tmp_path / "away")

        async def in_trouble() -> bool:
            return await server.metric('whenthen_source_reading{source="drops"}') == 0.0

        await until(in_trouble, within_s=40)
        os.rename(tmp_path / "away", drops)
        (drops / "next").write_text("y")
        events = await server.come(2)
        assert [each["event"] for each in events] == ["file.created", "file.created"]


async def test_files_with_odd_names_kinds_and_times_stop_no_other(tmp_path: Path) -> None:
    """In memory, as most disks keep no time beyond some century."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as text:
        folder = Path(text)
        odd = [b"line\nbreak", b"\xff\xfe", "\u202eexe.txt".encode(), b"x" * 255, b"{{ body.secret }}", b"-rf"]
        for name in odd:
            (folder / os.fsdecode(name)).write_text("x")
        for number, at in enumerate((1e12, -1e12, 2.0**62)):
            path = folder / f"time-{number}"
            path.write_text("x")
            os.utime(path, (at, at))
        os.mkfifo(folder / "pipe")
        (folder / "loop").symlink_to(folder)
        async with reading(tmp_path, rules(folder, "stable: 0s, existing: report")) as server:
            kept = await server.aside(2)
            events = await server.come(len(odd) - 2 + 3)
            found = {each["resource"]["path"] for each in events}
            assert found == {
                "\\xff\\xfe",
                "x" * 255,
                "{{ body.secret }}",
                "-rf",
                "time-0",
                "time-1",
                "time-2",
            }
            assert [each["payload"]["modified"] for each in events if each["resource"]["path"] == "time-0"] == [None]
            (folder / "next").write_text("y")
            await server.come(len(events) + 1)
            assert {each["detail"] for each in kept} == {"resource.id: has control characters; remove them"}
        async with reading(tmp_path, rules(folder, "stable: 0s, existing: report")) as server:
            (folder / "last").write_text("z")
            assert len(await server.come(len(events) + 2)) == len(events) + 2
