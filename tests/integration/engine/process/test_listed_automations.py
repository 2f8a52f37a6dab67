"""What `GET /api/automations` says of an automation after a restart, and after a crash."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.integration.served import Served
from tests.patience import eventually, limit

RULES = """
automations:
  - {name: pings, trigger: {expect: ping}, actions: do-nothing}
  - name: edges
    trigger: {posture: proactive, after: beat, expect: beat, for_each: id, within: 5m}
    actions_on_trigger: do-nothing
    actions_on_resolve: [{emit-event: fine, resource: {id: x}}]
"""


def serving(folder: Path) -> Served:
    (folder / "rules").mkdir(exist_ok=True)
    (folder / "rules" / "rules.yaml").write_text(RULES)
    server = Served(folder)
    server.wait_until_ready()
    return server


def listed(server: Served, name: str) -> Any:
    return next(each for each in server.get("/api/automations") if each["name"] == name)


def test_the_number_of_firings_survives_a_restart_and_a_crash(tmp_path: Path) -> None:
    server = serving(tmp_path)
    for _ in range(3):
        server.emit("ping")
    eventually(lambda: listed(server, "pings")["fired"] == 3)
    assert server.stop() == 0
    server = serving(tmp_path)
    before = listed(server, "pings")
    assert before["fired"] == 3
    assert before["last_fired"]
    server.emit("ping")
    eventually(lambda: listed(server, "pings")["fired"] == 4)
    server.kill()
    server = serving(tmp_path)
    assert listed(server, "pings")["fired"] == 4
    assert server.get("/api/automations/pings")["fired"] == 4
    assert server.stop() == 0


def test_actions_of_edges_are_among_the_actions(tmp_path: Path) -> None:
    server = serving(tmp_path)
    assert listed(server, "edges")["actions"] == ["do-nothing", "emit-event"]
    assert server.stop() == 0


def test_an_event_of_yesterday_fires_today(tmp_path: Path) -> None:
    server = serving(tmp_path)
    began = datetime.now(UTC)
    yesterday = (began - timedelta(days=1)).isoformat()
    server.emit("ping", occurred=yesterday)
    eventually(lambda: listed(server, "pings")["fired"] == 1)
    (firing,) = server.get("/api/firings")
    assert datetime.fromisoformat(firing["at"]) == datetime.fromisoformat(yesterday)
    for _ in range(2):
        assert began <= datetime.fromisoformat(firing["fired"])
        assert began <= datetime.fromisoformat(listed(server, "pings")["last_fired"]) <= datetime.now(UTC)
        assert server.stop() == 0
        server = serving(tmp_path)
    assert server.stop() == 0


def test_a_pause_with_an_end_is_shown_survives_a_restart_and_ends_by_itself(tmp_path: Path) -> None:
    server = serving(tmp_path)
    body = {"for": f"{limit(2):g}s", "reason": "they flood us", "by": "ada"}
    state = server.http.post("/api/automations/pings/pause", json=body).raise_for_status().json()
    assert (state["state"], state["pause"]["reason"], state["pause"]["by"]) == ("paused", "they flood us", "ada")
    assert server.get("/api/status")["paused"]["pings"] == state["pause"]
    server.emit("ping", id="during")
    eventually(lambda: "paused" in server.reasons("pings"))
    assert server.stop() == 0
    server = serving(tmp_path)
    assert listed(server, "pings")["pause"] in (state["pause"], None)  # the start may have taken all the time
    eventually(lambda: listed(server, "pings")["state"] == "active")
    assert listed(server, "pings")["pause"] is None
    assert server.get("/api/status")["paused"] == {}
    server.emit("ping", id="after")
    eventually(lambda: server.fired()["pings"] == 1)
    assert "the pause of automation pings has ended" in server.log.read_text() or server.reasons("pings")[0] == "fired"
    assert server.stop() == 0
