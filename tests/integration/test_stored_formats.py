"""Data directories of every format are opened by today's `whenthen serve`: windows go on, tasks are performed, lists are whole.

Each was left by a version that was killed (tools/format_data.py). Nothing in them is over before ten years have gone by, which is as long
as a window may be.
"""

from __future__ import annotations

import shutil
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.served import Served
from tests.patience import eventually, limit
from whenthen.engine.bus.records import FORMAT

FOLDER = Path(__file__).parent / "formats"
FORMATS = sorted(FOLDER.glob("format-*.tar.xz"))
SETTINGS = {
    "WHENTHEN_WORKER_LOST_AFTER": f"{limit(3):g}s",
    **{f"WHENTHEN_RETAIN_{name}": "3650d" for name in ("EVENTS", "FIRINGS", "OUTCOMES", "RUNS", "LOGS")},
    "WHENTHEN_FOLLOWS_WAIT": "3650d",
}
#: the events that each window still needs, and what comes of the last one
NEXT = {
    "sliding": [("sliding.seen", {})],
    "opened": [("opened.end", {})],
    "tumbling": [("tumbling.seen", {})],
    "collecting": [("collecting.seen", {})],
    "compound": [("compound.b", {})],
    "sequence": [("sequence.b", {}), ("sequence.c", {})],
    "metric-sum": [("measured", {"size": 46})],
    "large": [("large.seen", {})],
}
#: the events of all firings that a window of before has its part in
TOTALS = {
    "sliding": 3,
    "tumbling": 1,
    "opened": 1,
    "collecting": 3,
    "metric-sum": 3,
    "metric-distinct": 3,
    "large": 3000,
}


@pytest.fixture(params=FORMATS, ids=lambda path: path.name.partition(".")[0])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "rules").mkdir()
    shutil.copy(FOLDER / "rules.yaml", tmp_path / "rules")
    with tarfile.open(request.param) as file:
        file.extractall(tmp_path / "data", filter="data")
    server = Served(tmp_path, SETTINGS)
    try:
        server.wait_until_ready()
        yield server
    finally:
        code = server.stop()
    assert code == 0, server.log.read_text()


@pytest.mark.takes(30)
def test_the_data_of_a_format_go_on_where_the_version_was_killed(opened: Served) -> None:
    # what it had committed and not told is done: a firing, its tasks, a run in the queue
    def performed() -> bool:
        told = Counter(event["event"] for event in opened.get("/api/events?limit=1000"))
        runs = Counter((run["deployment"], run["state"]) for run in opened.get("/api/runs"))
        return told["done.waiting"] == 1 and runs == {
            ("works", "Completed"): 3,  # before, from the queue, by the task
            ("fails", "Failed"): 1,
            ("hangs", "Crashed"): 1,  # its worker is gone
        }

    eventually(performed, within_s=60)

    def dead() -> list[tuple[str, str]]:
        return [(each["automation"], each["type"]) for each in opened.get("/api/actions?outcome=dead")]

    eventually(lambda: dead() == [("failing", "call-webhook")])
    eventually(lambda: opened.get("/api/actions/dead/count")["count"] == 1)
    assert opened.get("/api/automations/paused")["state"] == "paused"
    assert opened.get("/api/automations/waiting")["state"] != "paused"
    before = {"cooling": 1, "resolving": 1, "failing": 1, "waiting": 1, "metric-p90": 1}
    # the absences of before are over, whatever the day is
    eventually(lambda: opened.fired() == {**before, "overdue": 1, "overdue-bucket": 1}, within_s=90)

    # every window goes on: the event that it still needs fires it, and no other one does
    for events in NEXT.values():
        for name, payload in events:
            opened.emit(name, payload)
    opened.emit("cooling.seen")
    opened.emit("paused.seen")
    opened.emit("absent.end")
    opened.emit("resolving.good")
    opened.emit("following.other", id="the-one-before")
    wanted = {
        **before,
        "overdue": 1,
        "overdue-bucket": 1,
        "following": 1,
        "metric-distinct": 1,
        **dict.fromkeys(NEXT, 1),
    }
    eventually(lambda: opened.fired() == wanted, within_s=30)
    eventually(lambda: opened.reasons("absent")[:1] == ["expected"])
    assert opened.reasons("cooling")[:1] == ["cooldown"]
    firings = opened.get("/api/firings?limit=1000")
    assert [each["state"] for each in firings if each["automation"] == "resolving"] == ["Resolved", "Triggered"]
    totals = {each["automation"]: each["total"] for each in firings if each["automation"] in TOTALS}
    assert totals == TOTALS
    eventually(lambda: any(event["event"] == "done.sliding" for event in opened.get("/api/events?limit=100")))
    text = opened.log.read_text()
    for wrong in ("Traceback", "is skipped", "can not be read", "forgetting"):
        assert wrong not in text, text


def test_there_is_a_data_directory_of_every_format() -> None:
    assert [path.name for path in FORMATS] == [f"format-{number}.tar.xz" for number in range(1, FORMAT + 1)]
    assert all(path.stat().st_size < 300_000 for path in FORMATS)
