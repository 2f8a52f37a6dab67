"""`record`, `why`, `trace` and `audit` as commands on a real server: what happened becomes a test that passes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import orjson
import pytest

from tests import forks
from tests.integration.served import TOKEN, Served, environment
from tests.patience import eventually

pytestmark = pytest.mark.takes(20)

RULES = """
automations:
  - name: thrice
    trigger: {expect: job.failed, threshold: 3, within: 10m, for_each: [id], cooldown: 1h}
    actions: [do-nothing]
  - name: unanswered
    trigger: {expect: job.answered, after: job.asked, posture: proactive, within: 1s, for_each: [id]}
    actions: [do-nothing]
  - name: by-area
    trigger:
      expect: disk.full
      let: {area: event.resource.region.lowerAscii()}
      for_each: [area, {path: host, default: any}]
      threshold: 3
      within: 10m
    actions: [do-nothing]
  - name: both
    trigger: {type: sequence, within: 1h, triggers: [{expect: a.done}, {expect: b.done}]}
    actions: [do-nothing]
"""


class Scene:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rules = folder / "rules"
        self.rules.mkdir()
        (self.rules / "rules.yaml").write_text(RULES)
        self.server = Served(folder)

    def command(self, *words: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        env = environment(WHENTHEN_API_TOKEN=TOKEN, WHENTHEN_URL=self.server.url, COLUMNS="200")
        return forks.run(list(map(str, words)), env=env, within_s=60, cwd=self.folder, stdin=stdin)

    def said(self, *words: str | Path, stdin: str = "") -> str:
        done = self.command(*words, stdin=stdin)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def firing(self, automation: str) -> str:
        (found,) = [each["id"] for each in self.server.get("/api/firings") if each["automation"] == automation]
        return str(found)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    found = Scene(tmp_path_factory.mktemp("recorded"))
    try:
        found.server.wait_until_ready()
        for number in range(5):
            found.server.emit("job.failed", {"number": number}, id=f"failed-{number}")
        found.server.emit("job.failed", id="other", resource={"id": "two"})
        found.server.emit("job.asked", id="asked")
        found.server.emit("a.done", id="a")
        found.server.emit("b.done", id="b")
        for number in range(2):
            found.server.emit("disk.full", id=f"shop/full-{number}", resource={"id": "disk", "region": "EU"})
        eventually(lambda: found.server.fired() == {"thrice": 1, "unanswered": 1, "both": 1}, within_s=60)
        yield found
    finally:
        found.server.kill()


@pytest.mark.parametrize("automation", ["thrice", "unanswered", "both"])
def test_a_firing_becomes_a_test_that_passes(scene: Scene, automation: str) -> None:
    file = scene.folder / f"{automation}.test.yaml"
    scene.said("record", scene.firing(automation), "--file", file)
    assert "fires" in file.read_text()
    passed = scene.said("test", scene.rules, "--file", file)
    assert "1 passed" in passed, passed


def test_a_firing_that_did_not_come_becomes_a_test_that_passes(scene: Scene) -> None:
    for event, reason in (("failed-4", "cooldown"), ("other", "below_threshold"), ("asked", "")):
        file = scene.folder / f"missing-{event}.test.yaml"
        scene.said("record", "--missing", "thrice", event, "--file", file)
        text = file.read_text()
        assert "not_fired" in text
        assert reason in text
        scene.said("test", scene.rules, "--file", file)


def test_an_event_with_a_slash_in_its_id_becomes_a_test_that_passes(scene: Scene) -> None:
    file = scene.folder / "slash.test.yaml"
    scene.said("record", "--missing", "by-area", "shop/full-1", "--file", file)
    assert "by-area, as it was for shop-full-1" in file.read_text()
    scene.said("test", scene.rules, "--file", file)


def test_record_and_trace_take_ids_as_they_are_listed(scene: Scene) -> None:
    whole = scene.firing("thrice")
    assert scene.said("record", whole[:8]) == scene.said("record", whole)
    assert scene.said("trace", whole[:8]) == scene.said("trace", whole)
    assert scene.said("trace", f"{whole[:8]}.0") == scene.said("trace", f"{whole}.0")


def test_a_recorded_test_notices_a_rule_that_decides_otherwise(scene: Scene) -> None:
    file = scene.folder / "mended.test.yaml"
    scene.said("record", "--missing", "thrice", "other", "--file", file)
    other = scene.folder / "mended.yaml"
    other.write_text(RULES.replace("threshold: 3", "threshold: 1"))
    failed = scene.command("test", other, "--file", file)
    assert failed.returncode == 1
    assert "thrice fired unexpectedly" in failed.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give a firing's id"),
        (["nothing"], "is not kept"),
        (["--missing", "thrice", "nothing"], "there is no event"),
        (["--missing", "thrise", "other"], "thrice"),
        (["x", "--file", "x.yaml"], ".test.yaml"),
    ],
)
def test_what_can_not_be_recorded_is_said(scene: Scene, words: list[str], said: str) -> None:
    done = scene.command("record", *words)
    assert done.returncode != 0
    assert said in done.stderr, done.stderr


def test_why_shows_clauses_windows_and_what_was_missing(scene: Scene) -> None:
    text = scene.said("why", "thrice", "other")
    assert "thrice did not fire: below_threshold" in text
    assert "1 of 3 job.failed within 10m; 2 more would have had to come before" in text
    assert "for_each: id" in text
    assert "window after (sliding) of id=two: 1 of 3 events" in text
    now = scene.said("events", "show", "failed-4", "--json")
    text = scene.said("why", "thrice", "--key", "id=one", "--at", orjson.loads(now)["received"])
    assert "quiet until" in text
    fired = scene.said("why", "thrice", "failed-2")
    assert "thrice fired: " in fired


def test_why_knows_the_window_of_a_computed_key(scene: Scene) -> None:
    text = scene.said("why", "by-area", "shop/full-1")
    assert "key area=eu, host=any" in text
    assert "2 of 3 disk.full within 10m; the third would have had to come before" in text
    assert "window before (sliding) of area=eu, host=any: 1 of 3 events" in text
    assert "window after (sliding) of area=eu, host=any: 2 of 3 events" in text


def test_why_of_a_paused_automation_has_no_key(scene: Scene) -> None:
    scene.said("automations", "pause", "by-area", "--for", "1h", "--reason", "a new disk")
    try:
        scene.server.emit("disk.full", id="while-paused", resource={"id": "disk", "region": "EU"})
        eventually(lambda: "paused" in scene.said("why", "by-area", "while-paused").partition("\n")[0], within_s=30)
        assert "\n  key" not in scene.said("why", "by-area", "while-paused")
        audit = scene.said("audit", "--kind", "automation-paused")
        assert "by-area" in audit
        assert "reason=a new disk" in audit
    finally:
        scene.said("automations", "resume", "by-area")


def test_why_of_an_open_absence_says_when_it_fires_and_what_prevents_it(scene: Scene) -> None:
    text = scene.said("why", "unanswered", "asked")
    assert "the window is open: it fires at " in text
    assert "unless job.answered comes before" in text


def test_why_takes_a_moment_as_lists_show_it(scene: Scene) -> None:
    received = orjson.loads(scene.said("events", "show", "shop/full-1", "--json"))["received"]  # the last one
    local = datetime.fromisoformat(received).astimezone() + timedelta(seconds=1)
    eventually(lambda: datetime.now().astimezone() > local + timedelta(seconds=1), within_s=10)
    moment = f"{local:%Y-%m-%d %H:%M:%S}"
    assert "quiet until" in scene.said("why", "thrice", "--key", "id=one", "--at", moment)
    assert "2 of 3" in scene.said("why", "by-area", "--key", "area=eu", "--at", moment).partition("\n")[0]


def test_a_reason_that_is_none_is_refused_with_the_nearest(scene: Scene) -> None:
    done = scene.command("automations", "decisions", "thrice", "--reason", "coldown")
    assert done.returncode == 1
    assert "did you mean 'cooldown'?" in done.stderr


def test_trace_and_audit_are_printed(scene: Scene) -> None:
    text = scene.said("trace", "failed-2")
    assert "<- asked for" in text
    assert "firing thrice Triggered" in text
    assert "action do-nothing executed" in text
    assert "rules-taken" in scene.said("audit")


def test_listed_events_are_what_replay_and_emit_read(scene: Scene) -> None:
    listed = scene.said("events", "--json", "--limit", "100")
    replayed = scene.said("replay", scene.rules, "--events", "-", stdin=listed)
    firings = [orjson.loads(line) for line in replayed.splitlines()]
    assert {each["automation"]: each["firing"] for each in firings} == {
        "thrice": scene.firing("thrice"),
        "both": scene.firing("both"),
        "unanswered": scene.firing("unanswered"),
    }
    assert "it was there already" in scene.said("emit", "--file", "-", stdin=listed)


def test_a_test_of_what_happened_during_a_pause_says_so(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    try:
        scene.server.wait_until_ready()
        scene.server.http.post("/api/automations/both/pause").raise_for_status()
        scene.server.emit("a.done", id="a")
        scene.server.emit("b.done", id="b")
        eventually(lambda: scene.server.get("/api/why?automation=both&event=b")["reason"] == "paused", within_s=30)
        said = scene.said("record", "--missing", "both", "b")
        assert "# it was paused or disabled, and a test of rules knows no pauses" in said
        assert "reason: paused" in said
    finally:
        scene.server.kill()
