"""A deployment's own trigger on a real server: a notification of an object store starts the function once, with typed parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.integration.served import serving
from tests.patience import eventually

RULES = """
webhooks:
  - {name: store, preset: s3, verify: none}
deployments:
  - name: load
    entrypoint: flows.py:load
    triggers:
      - trigger: {expect: "s3.file.*", match: {bucket: raw}}
        parameters: {key: $.resource.key, size: $.payload.size}
"""
FLOWS = """
def load(key, size):
    return {"key": key, "size": size, "type": type(size).__name__}
"""


def notification(bucket: str) -> dict[str, Any]:
    record = {
        "eventName": "ObjectCreated:Put",
        "eventSource": "aws:s3",
        "eventTime": "2026-01-31T08:00:00.000Z",
        "s3": {
            "bucket": {"name": bucket},
            "object": {"key": "a/b.csv", "size": 1234, "eTag": "d41d", "sequencer": "0055AED6DCD90281E5"},
        },
    }
    return {"Records": [record]}


def test_a_notification_starts_the_function_once_with_the_size_as_a_number(tmp_path: Path) -> None:
    with serving(tmp_path, {"rules.yaml": RULES, "flows.py": FLOWS}) as server:
        for bucket in ("raw", "other", "raw"):
            server.http.post("/hooks/store", json=notification(bucket)).raise_for_status()
        (run,) = eventually(lambda: server.get("/api/runs?state=Completed"))
        assert run["result"] == {"key": "a/b.csv", "size": 1234, "type": "int"}
        assert run["triggered_by"] == "automation:load:default"
        detail = server.get("/api/deployments/load")
        assert [each["name"] for each in detail["triggers"]] == ["default"]
        assert [each["name"] for each in server.get("/api/automations")] == ["load:default"]
        eventually(lambda: server.get("/api/automations/load:default")["fired"] == 1)
        assert len(server.get("/api/runs")) == 1
