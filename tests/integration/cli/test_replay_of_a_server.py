"""`whenthen replay --since`: other rules over the events that a server has, and what they would have changed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from tests import forks
from tests.integration.served import TOKEN, Served, environment, serving
from tests.patience import eventually, limit

pytestmark = pytest.mark.takes(15)

RULES = """
automations:
  - name: big
    trigger: {expect: order.made, when: event.payload.total > 100}
    actions: do-nothing
  - name: three
    trigger: {expect: order.made, for_each: id, threshold: 3, within: 1h}
    actions: do-nothing
"""
OTHER = RULES.replace("> 100", "> 400").replace("threshold: 3", "threshold: 2")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("replayed")
    with serving(folder, {"rules.yaml": RULES}) as served:
        for total in (50, 200, 500):
            served.emit("order.made", {"total": total}, id=f"order-{total}")
        eventually(lambda: served.fired() == {"big": 2, "three": 1})
        yield served


def replayed(server: Served, *words: str) -> subprocess.CompletedProcess[str]:
    return forks.run(
        ["replay", "--url", server.url, *words],
        env=environment(WHENTHEN_API_TOKEN=TOKEN),
        cwd=server.data_dir.parent,
        within_s=60,
    )


def test_the_same_rules_over_a_servers_events_give_its_firings(server: Served) -> None:
    done = replayed(server, "rules", "--since", "1h")
    assert done.returncode == 0, done.stderr
    firings = {orjson.loads(line)["firing"] for line in done.stdout.splitlines()}
    assert firings == {each["id"] for each in server.get("/api/firings")}


def test_a_diff_names_what_other_rules_gain_and_lose_and_exits_with_1_when_asked(
    server: Served, tmp_path: Path
) -> None:
    (tmp_path / "other.yaml").write_text(OTHER)
    words = ("--since", "7d", "--rules", str(tmp_path / "other.yaml"), "--diff")
    done = replayed(server, *words, "--json", "--exit-code")
    assert done.returncode == 1, done.stderr
    *changes, last = map(orjson.loads, done.stdout.splitlines())
    found = {(each["difference"], each["automation"], each["event"], each["reason"]) for each in changes}
    assert found == {
        ("lost", "big", "order-200", "condition_false"),
        ("gained", "three", "order-200", "below_threshold"),
        ("lost", "three", "order-500", "cooldown"),
    }
    assert (last["totals"]["same"], last["totals"]["gained"], last["totals"]["lost"]) == (1, 1, 2)
    clause = next(each["clause"] for each in changes if each["automation"] == "big")
    assert "event.payload.total > 400" in clause
    text = replayed(server, *words)
    assert text.returncode == 0
    assert "these rules: condition_false: " in text.stdout
    assert "1 gained, 2 lost, 0 changed, 1 the same" in text.stdout


def test_the_rules_in_force_differ_in_nothing_from_themselves(server: Served) -> None:
    done = replayed(server, "rules", "--since", "1h", "--diff", "--exit-code")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("0 gained, 0 lost, 0 changed, 3 the same")


def test_a_diff_of_a_file_asks_nobody(server: Served, tmp_path: Path) -> None:
    (tmp_path / "events.json").write_bytes(server.http.get("/api/events").content)
    (tmp_path / "other.yaml").write_text(OTHER)
    words = ("replay", str(tmp_path / "other.yaml"), "--events", str(tmp_path / "events.json"), "--diff")
    against = str(server.data_dir.parent / "rules")
    done = forks.run([*words, "--against", against], env=environment(), cwd=tmp_path, within_s=60)
    assert done.returncode == 0, done.stderr
    assert "1 gained, 2 lost" in done.stdout
    refused = forks.run(words, env=environment(), cwd=tmp_path, within_s=60)
    assert refused.returncode == 2
    assert "--against RULES" in refused.stderr


def test_a_time_that_is_none_is_named(server: Served) -> None:
    done = replayed(server, "rules", "--since", "yesterday")
    assert done.returncode == 1
    assert "neither a time" in done.stderr


def test_a_reader_that_has_enough_is_no_fault_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    event = {
        "id": "o",
        "event": "order.made",
        "resource": {"id": "o"},
        "occurred": "2026-01-31T08:00:00Z",
        "payload": {"total": 200},
    }
    (tmp_path / "events.jsonl").write_bytes(orjson.dumps(event))
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb", buffering=0) as printed, (tmp_path / "said").open("w+b") as said:
        words = ["replay", "rules.yaml", "--events", "events.jsonl"]
        process = forks.start(words, env=environment(), stdout=printed, stderr=said, cwd=tmp_path)
        process.wait(limit(60))
        said.seek(0)
        assert said.read() == b""
