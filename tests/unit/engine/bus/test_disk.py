"""When events are still taken as the disk fills and empties."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from whenthen.engine.bus.disk import DISK_FULL, DiskRoom
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
