"""Computed labels on their way through a server: in the stored firing, in the action's templates, for events too large to be copied,
across a crash, and the same in a replay of the stream."""

from __future__ import annotations

import json
from pathlib import Path

from tests.integration.served import Served
from tests.patience import eventually
from whenthen.engine.bus.records import EMBED_BYTES
from whenthen.rules import load_rules
from whenthen.rules.replay import replay

RULES = """
automations:
  - name: folders
    trigger:
      expect: up
      let: {folder: "event.resource.key.split('/')[0]"}
      match: {folder: "!tmp"}
      for_each: [folder, {path: site, default: none}]
      threshold: 2
      within: 1h
    actions:
      - emit-event: "seen.{{ event.resource.folder }}"
        resource: {id: $.resource.folder, site: $.key.site}
        payload: {bytes: "{{ event.payload.text | length }}", last: "{{ events[1].resource.folder }}"}
"""


def test_a_label_is_computed_alike_for_windows_actions_and_a_replay(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "rules.yaml").write_text(RULES)
    served = Served(tmp_path)
    try:
        served.wait_until_ready()
        for number in range(2):
            resource = {"id": "r", "key": "in/a", "folder": "own"}
            served.emit("up", {"text": "x"}, id=f"small-{number}", resource=resource)
        served.emit("up", {"text": "x"}, id="no-key")
        served.emit("up", {"text": "x"}, id="large-0", resource={"id": "r", "key": "big/a", "site": "b"})
        eventually(lambda: len(names(served)) == 1)
        eventually(lambda: "condition_error" in served.reasons("folders"))
        served.kill()
        served = Served(tmp_path)
        served.wait_until_ready()
        served.emit(
            "up", {"text": "x" * 2 * EMBED_BYTES}, id="large-1", resource={"id": "r", "key": "big/b", "site": "b"}
        )
        eventually(lambda: len(names(served)) == 2)
        assert names(served) == {
            "seen.in": ("in", "none", "1", "in"),
            "seen.big": ("big", "b", str(2 * EMBED_BYTES), "big"),
        }
        firings = {tuple(each["key"].values()): each["event"] for each in served.get("/api/firings")}
        assert firings == {("in", "none"): "small-1", ("big", "b"): "large-1"}
        events = [event for event in reversed(served.get("/api/events?limit=100")) if event["event"] == "up"]
        assert [event["resource"].get("folder") for event in events] == ["own", "own", None, None, None]
    finally:
        served.kill()
    lines = [
        json.dumps({name: event[name] for name in ("id", "event", "occurred", "resource", "payload")})
        for event in events
    ]
    found = list(replay(load_rules(tmp_path / "rules"), lines))
    assert {tuple(each["key"].values()): each["event"] for each in found} == firings


def names(served: Served) -> dict[str, tuple[str, ...]]:
    """What the actions emitted."""
    return {
        each["event"]: (*each["resource"].values(), *each["payload"].values())
        for each in served.get("/api/events?limit=100")
        if each["event"].startswith("seen.")
    }
