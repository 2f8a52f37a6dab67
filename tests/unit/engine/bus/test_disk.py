"""When events are still taken as the disk fills and empties."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from whenthen.engine.bus.disk import DATA_GONE, DISK_FULL, DiskRoom, StoreFolder
from whenthen.engine.metrics import Metrics
from whenthen.schemas.errors import BusUnavailable


class Disk:
    """A disk and a clock that a test sets."""

    def __init__(self, reserve: int = 100) -> None:
        self.free = 1000
        self.now = 0.0
        self.measurements = 0
        self.metrics = Metrics(version="test")
        self.room = DiskRoom(
            Path("data"), reserve_bytes=reserve, metrics=self.metrics, free=self._look, clock=lambda: self.now
        )

    def _look(self, _: Path) -> int:
        self.measurements += 1
        return self.free

    def takes(self, free: int) -> bool:
        self.free = free
        self.now += 1
        try:
            self.room.admit()
        except BusUnavailable as error:
            return error.reason != DISK_FULL
        return True


def test_events_are_taken_down_to_the_reserve_and_again_only_when_a_tenth_more_is_free() -> None:
    disk = Disk(reserve=100)
    assert [disk.takes(free) for free in (101, 100, 99, 100, 109, 110, 100, 99)] == [
        True,
        True,
        False,
        False,
        False,
        True,
        True,
        False,
    ]


def test_no_reserve_refuses_nothing() -> None:
    assert Disk(reserve=0).takes(0)


def test_the_refusal_names_the_disk_what_is_left_and_the_setting() -> None:
    disk = Disk(reserve=256_000_000)
    disk.free = 12_345_678
    with pytest.raises(
        BusUnavailable, match=r"disk of data is full: 12\.3 MB are free, and 256\.0 MB .*\(disk_reserve\)"
    ):
        disk.room.admit()


def test_many_events_at_once_measure_the_disk_once() -> None:
    disk = Disk()
    for _ in range(1000):
        disk.room.admit()
    assert disk.measurements == 1


def test_a_change_is_logged_once_and_the_metrics_follow(caplog: pytest.LogCaptureFixture) -> None:
    disk = Disk()
    value = disk.metrics.registry.get_sample_value
    with caplog.at_level(logging.INFO):
        for free in (500, 50, 40, 30, 500, 600):
            disk.free = free
            disk.room.measure()
            assert value("whenthen_disk_free_bytes") == free
    assert value("whenthen_disk_reserve_bytes") == 100
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert "events are answered 503" in caplog.text


def data_directory(folder: Path) -> Path:
    for stream in ("EVENTS", "ENGINE"):
        (folder / "data/nats/store/jetstream/$G/streams" / stream / "msgs").mkdir(parents=True)
    return folder / "data"


def refusals(room: DiskRoom) -> list[str]:
    room.measure()
    try:
        room.admit()
    except BusUnavailable as error:
        return [str(error.reason), str(error)]
    return []


def watched(data: Path) -> DiskRoom:
    return DiskRoom(data, reserve_bytes=0, metrics=Metrics(version="test"), gone=StoreFolder(data).gone)


@pytest.mark.parametrize("part", ["", "nats/store/jetstream", "nats/store/jetstream/$G/streams/EVENTS/msgs"])
def test_events_are_refused_while_the_store_is_not_where_it_was(tmp_path: Path, part: str) -> None:
    data = data_directory(tmp_path)
    room = watched(data)
    assert refusals(room) == []
    moved = (data / part).rename(tmp_path / "moved")
    reason, text = refusals(room)
    assert reason == DATA_GONE
    assert f"{data / part} was removed" in text
    assert "start the server again" in text
    moved.rename(data / part)
    assert refusals(room) == []


def test_another_directory_in_the_place_of_the_store_is_not_the_store(tmp_path: Path) -> None:
    data = data_directory(tmp_path)
    room = watched(data)
    data.rename(tmp_path / "moved")
    data_directory(tmp_path)
    reason, text = refusals(room)
    assert reason == DATA_GONE
    assert "is another folder" in text
    assert refusals(watched(data)) == [], "a new start takes what is there"


def test_a_store_that_can_not_be_looked_at_is_gone(tmp_path: Path) -> None:
    data = data_directory(tmp_path)
    room = watched(data)
    data.rename(tmp_path / "moved")
    data.write_text("a file")
    assert refusals(room)[0] == DATA_GONE


def test_streams_that_are_made_later_are_watched_from_then_on(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    room = watched(tmp_path / "data")
    assert refusals(room) == []
    events = tmp_path / "data/nats/store/jetstream/$G/streams/EVENTS/msgs"
    events.mkdir(parents=True)
    assert refusals(room) == []
    events.rename(tmp_path / "moved")
    assert refusals(room)[0] == DATA_GONE
