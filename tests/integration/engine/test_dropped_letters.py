"""A dead letter that was taken away stays away, whatever happens to the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.integration.served import Served
from tests.patience import eventually

RULES = """
automations:
  - name: tell
    trigger: {expect: order.created}
    actions: [{type: emit-event, event: told, payload: {text: "{{ event.payload.nope }}"}}]
"""


def dead(server: Served) -> list[Any]:
    found = server.get("/api/actions?outcome=dead")
    assert isinstance(found, list)
    return found


def serving(folder: Path) -> Served:
    server = Served(folder)
    server.wait_until_ready()
    return server


def test_letters_that_were_sent_again_or_dropped_do_not_come_back_after_a_crash(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "rules.yaml").write_text(RULES)
    server = serving(tmp_path)
    for _ in range(3):
        server.emit("order.created")
    eventually(lambda: len(dead(server)) == 3)
    dropped, kept, again = (each["key"] for each in dead(server))
    server.http.post(f"/api/actions/{dropped}/drop").raise_for_status()
    server.http.post(f"/api/actions/{again}/redrive").raise_for_status()  # and dies once more
    eventually(lambda: {each["key"] for each in dead(server)} == {kept, again})
    eventually(lambda: server.get("/api/actions/dead/count")["count"] == 2)
    server.kill()
    server = serving(tmp_path)
    assert {each["key"] for each in dead(server)} == {kept, again}
    assert server.get("/api/actions/dead/count")["count"] == 2
    assert server.stop() == 0
