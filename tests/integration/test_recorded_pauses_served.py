"""A server whose automations are paused and resumed, killed in between: its firings are those of the replay of its log, and `why` knows."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from tests import forks
from tests.integration.served import TOKEN, Served, environment
from tests.patience import eventually

pytestmark = pytest.mark.takes(25)

NAMES = [f"each-{number}" for number in range(6)]
RULES = "automations:\n" + "".join(
    f"  - {{name: {name}, trigger: {{expect: a.done}}, actions: do-nothing}}\n" for name in NAMES
)


def test_firings_around_pauses_are_those_of_the_replay(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "rules.yaml").write_text(RULES)

    def started() -> Served:
        server = Served(tmp_path, {"WHENTHEN_SHARDS": "4"})
        server.wait_until_ready()
        return server

    def ask(path: str, **body: str) -> None:
        server.http.post(f"/api/automations/{path}", json=body or None).raise_for_status()

    server = started()
    try:
        for number in range(30):
            name = NAMES[number % len(NAMES)]
            if number % 3 == 0:
                ask(f"{name}/pause", **{"for": "1h", "reason": "too many"})
            if number % 7 == 0:
                ask(f"{NAMES[(number + 3) % len(NAMES)]}/resume")
            server.emit("a.done", id=f"e-{number}")
            if number == 15:
                server.kill()
                server = started()
        server.emit("b.last", id="last")
        words = ["replay", "rules", "--since", "1h", "--url", server.url]
        settings = environment(WHENTHEN_API_TOKEN=TOKEN)
        done = forks.run(words, env=settings, cwd=tmp_path, within_s=60)
        assert done.returncode == 0, done.stderr
        replayed = {orjson.loads(line)["firing"] for line in done.stdout.splitlines()}
        assert 0 < len(replayed) < 30 * len(NAMES)
        eventually(lambda: len(server.get("/api/firings?limit=1000")) >= len(replayed), within_s=60)
        assert {each["id"] for each in server.get("/api/firings?limit=1000")} == replayed

        # a replay that begins later knows what was paused before
        lines = server.http.get("/api/log?since=1h").text.splitlines()
        later = next(orjson.loads(line)["stored"] for line in lines if '"id":"e-20"' in line)
        pauses = [
            orjson.loads(line)["pause"]
            for line in server.http.get("/api/log", params={"since": later}).text.splitlines()
            if line.startswith('{"pause"')
        ]
        assert any(each["paused"] for each in pauses)
        done = forks.run([*words, "--since", later], env=settings, cwd=tmp_path, within_s=60)
        assert {orjson.loads(line)["firing"] for line in done.stdout.splitlines()} <= replayed

        # computed again, why agrees with what is on record
        for name in NAMES[:2]:
            for number in (0, 3, 20):
                found = server.get(f"/api/why?automation={name}&event=e-{number}")
                assert not [note for note in found["notes"] if "evaluated again" in note], found
    finally:
        server.kill()


def test_a_pause_outlives_a_kill_and_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "rules.yaml").write_text(RULES)
    server = Served(tmp_path)
    try:
        server.wait_until_ready()
        server.http.post("/api/automations/each-0/pause", json={}).raise_for_status()
        server.emit("a.done", id="one")
        eventually(lambda: server.fired() == dict.fromkeys(NAMES[1:], 1), within_s=30)
        lines = server.http.get("/api/log").text.splitlines()
        pauses = [orjson.loads(line) for line in lines if line.startswith('{"pause"')]
        assert [(each["pause"]["automation"], each["pause"]["was_paused"]) for each in pauses] == [("each-0", False)]
        server.kill()
        server = Served(tmp_path)
        server.wait_until_ready()
        server.emit("a.done", id="two")
        eventually(lambda: server.fired() == dict.fromkeys(NAMES[1:], 2), within_s=30)
        # told once, however often a process looks
        again = server.http.get("/api/log").text.splitlines()
        assert [line for line in again if line.startswith('{"pause"')] == [
            line for line in lines if line.startswith('{"pause"')
        ]
    finally:
        server.kill()
