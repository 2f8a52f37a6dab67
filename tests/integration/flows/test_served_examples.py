"""The programs in examples/served, each started as a user starts it, and made to do what it is for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.integration.flows.programs import ROOT
from tests.integration.flows.served_scripts import ServedProgram, serving_program
from tests.patience import eventually

pytestmark = pytest.mark.takes(6)

PROGRAMS = ROOT / "examples" / "served"


def program(name: str, folder: Path) -> Path:
    return Path(shutil.copy(PROGRAMS / name, folder))


def test_a_scheduled_sync_copies_what_is_new(tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "a.csv").write_text("12345")
    with serving_program(program("scheduled_sync.py", tmp_path), cwd=tmp_path) as served:
        [schedule] = served.get("/api/deployments/sync%2Fevery-five-minutes")["schedules"]
        assert (schedule["when"], schedule["paused"]) == ("*/5 * * * *", False)
        assert schedule["next"]
        served.post("/api/deployments/sync%2Fevery-five-minutes/run", json={})
        done = served.completed("sync/every-five-minutes")
        assert done["result"] == {"files": 1, "bytes": 5}
        assert (tmp_path / "archive" / "a.csv").read_text() == "12345"
        lines = served.get(f"/api/runs/{done['id']}/logs?after=0&limit=100")["lines"]
        assert "1 files, 5 bytes" in [line["text"] for line in lines]
        assert served.interrupt() == 0


def test_a_flow_starts_on_the_event_of_another_one(tmp_path: Path) -> None:
    with serving_program(program("chained_by_events.py", tmp_path), cwd=tmp_path) as served:
        served.post("/api/deployments/load-orders%2Fhourly/run", json={"parameters": {"country": "fr"}})
        done = served.completed("report/after-load")
        assert done["parameters"] == {"country": "fr", "rows": 3, "total": 245}
        assert done["result"] == "fr: 3 orders of 81.67 on average"
        assert done["triggered_by"] == "automation:report.after-load:after-load__automation_1"
        assert served.interrupt() == 0


def test_an_upload_is_loaded_though_the_file_comes_late(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"total": total}) + "\n" for total in (3, 4.5))
    with serving_program(program("etl_on_upload.py", tmp_path), cwd=tmp_path) as served:
        event = {
            "event": "s3.file.uploaded",
            "resource": {"id": "s3://raw/day.jsonl", "bucket": "raw", "key": "day.jsonl"},
            "payload": {"size": len(rows)},
        }
        served.post("/api/events", json=event)
        eventually(lambda: "is not there yet" in _log(served), within_s=30)
        (tmp_path / "bucket").mkdir()
        (tmp_path / "bucket" / "day.jsonl").write_text(rows)
        done = served.completed("etl/raw")
        assert done["result"] == {"rows": 2, "total": 7.5}
        assert json.loads((tmp_path / "warehouse" / "day.json").read_text()) == {"rows": 2, "total": 7.5}
        assert served.interrupt() == 0


def _log(served: ServedProgram) -> str:
    return "\n".join(
        line["text"] for run in served.runs("etl/raw") for line in served.get(f"/api/runs/{run['id']}/logs?after=0&limit=1000")["lines"]
    )  # fmt: skip
