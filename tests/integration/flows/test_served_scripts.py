"""`flow.serve(...)` and `serve(a, b)` as programs: with a server of their own, with one at hand, stopped in every way."""

from __future__ import annotations

import os
import signal
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.flows.served_scripts import ServedProgram, serving_program
from tests.integration.served import TOKEN, Served, serving
from tests.patience import eventually

pytestmark = pytest.mark.takes(4)

SCRIPT = """
import time
from pathlib import Path
from whenthen import flow, serve
from whenthen.events import DeploymentEventTrigger

Path("imported.txt").open("a").write(f"{__name__}\\n")

@flow
def count(n: int = 1) -> int:
    return n + 1

@flow
def load(key: str, size: int) -> dict:
    return {"key": key, "size": size, "kind": type(size).__name__}

@flow
def wait(seconds: float = 60) -> str:
    Path("waiting.txt").write_text("x")
    time.sleep(seconds)
    Path("waited.txt").write_text("x")
    return "waited"

if __name__ == "__main__":
    serve(
        count.to_deployment("every-second", interval=1, parameters={"n": 4}, tags=["t"], description="counts"),
        load.to_deployment(
            "raw",
            triggers=[
                DeploymentEventTrigger(
                    expect={"s3.file.uploaded"},
                    match={"bucket": "raw"},
                    parameters={"key": "{{ event.resource.key }}", "size": "{{ event.payload.size }}"},
                )
            ],
        ),
        wait.to_deployment("long"),
        limit=3,
    )
"""
RECORD = {
    "eventVersion": "2.1",
    "eventSource": "aws:s3",
    "awsRegion": "eu-central-1",
    "eventTime": "2026-01-31T07:59:58.123Z",
    "eventName": "ObjectCreated:Put",
    "userIdentity": {"principalId": "AWS:AIDAJDPLRKLG7UEXAMPLE"},
    "requestParameters": {"sourceIPAddress": "192.0.2.3"},
    "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810"},
    "s3": {
        "s3SchemaVersion": "1.0",
        "configurationId": "all",
        "bucket": {"name": "raw", "arn": "arn:aws:s3:::raw"},
        "object": {"key": "in/a.csv", "size": 1024, "eTag": "d41d8cd98f00b204e9800998ecf8427e", "sequencer": "0055AED6DCD90281E5"},
    },
}  # fmt: skip
RULES = """
webhooks:
  - {name: s3, preset: s3, verify: {type: bearer, token: env:S3_TOKEN}}
deployments:
  - name: count/in-a-file
    command: "true"
"""


def script_in(folder: Path, text: str = SCRIPT, name: str = "script.py") -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(textwrap.dedent(text))
    return file


def test_one_script_with_a_schedule_is_a_whole_system(tmp_path: Path) -> None:
    file = script_in(tmp_path)
    with serving_program(file, cwd=tmp_path) as program:
        done = program.completed("count/every-second")
        assert (done["result"], done["parameters"], done["triggered_by"]) == (5, {"n": 4}, "schedule:default")
        assert "+ deployment count/every-second: new" in program.output
        assert "+ automation load.raw:raw__automation_1: new" in program.output
        assert "there are no rules" not in program.output  # of the folder that the script made
        event = {
            "event": "s3.file.uploaded",
            "resource": {"id": "x", "bucket": "raw", "key": "k"},
            "payload": {"size": 7},
        }
        program.post("/api/events", json=event)
        assert program.completed("load/raw")["result"] == {"key": "k", "size": 7, "kind": "int"}
        assert program.interrupt() == 0
    # user code was imported by the script and by runs, and by nothing else
    imported = (tmp_path / "imported.txt").read_text().split()
    assert imported.count("__main__") == 1
    assert set(imported) == {"__main__", "script"}
    with serving_program(file, cwd=tmp_path) as program:
        assert "= deployment count/every-second: as it was" in program.output
        before = {run["id"] for run in program.runs("count/every-second")}
        eventually(lambda: {run["id"] for run in program.runs("count/every-second")} - before, within_s=30)
        assert program.interrupt() == 0


def test_ctrl_c_lets_a_run_finish_and_pauses_the_schedules(tmp_path: Path) -> None:
    with serving_program(script_in(tmp_path), cwd=tmp_path) as program:
        program.post("/api/deployments/wait%2Flong/run", json={"parameters": {"seconds": 2}})
        eventually((tmp_path / "waiting.txt").exists, within_s=30)
        assert program.interrupt() == 0
    assert (tmp_path / "waited.txt").exists()


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    with serving_program(script_in(tmp_path), cwd=tmp_path) as program:
        program.post("/api/deployments/wait%2Flong/run", json={"parameters": {"seconds": 600}})
        eventually((tmp_path / "waiting.txt").exists, within_s=30)
        program.send(signal.SIGINT)
        eventually(lambda: "stopping: what is at hand may go on" in program.output)
        program.send(signal.SIGINT)
        assert program.wait() == 130
    assert not (tmp_path / "waited.txt").exists()


def test_the_server_of_a_script_that_is_killed_ends_with_it(tmp_path: Path) -> None:
    with serving_program(script_in(tmp_path), cwd=tmp_path) as program:
        pid = program.get("/api/status")["pid"]
        program.kill()
        eventually(lambda: not Path(f"/proc/{pid}").exists(), within_s=30)


# With a server at hand


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    os.environ["S3_TOKEN"] = "token-of-the-store-1234"
    try:
        with serving(tmp_path_factory.mktemp("server"), {"rules.yaml": RULES}) as served:
            yield served
    finally:
        del os.environ["S3_TOKEN"]


def at_hand(server: Served) -> dict[str, str]:
    return {"url": server.url, "WHENTHEN_API_TOKEN": TOKEN}


def names(server: Served) -> set[str]:
    return {each["name"] for each in server.get("/api/deployments")}


def ended(server: Served, deployment: str) -> list[dict[str, Any]]:
    runs = server.get(f"/api/runs?deployment={deployment}")
    return [run for run in runs if run["state"] in ("Completed", "Failed", "Crashed")]


def test_an_s3_notification_starts_a_served_flow_once_and_the_size_is_an_int(server: Served, tmp_path: Path) -> None:
    with serving_program(script_in(tmp_path), cwd=tmp_path, **at_hand(server)) as program:
        for _ in range(2):  # a store may send a notification twice
            headers = {"Authorization": "Bearer token-of-the-store-1234"}
            server.http.post("/hooks/s3", json={"Records": [RECORD]}, headers=headers).raise_for_status()
        [run] = eventually(lambda: ended(server, "load/raw"), within_s=30)
        detail = server.get(f"/api/runs/{run['id']}")
        assert detail["parameters"] == {"key": "in/a.csv", "size": 1024}
        assert detail["result"] == {"key": "in/a.csv", "size": 1024, "kind": "int"}
        assert detail["worker"].endswith("served:load.raw")
        event = {"event": "behind.it", "resource": {"id": "x"}}
        server.http.post("/api/events", json=event).raise_for_status()
        assert len(server.get("/api/runs?deployment=load/raw")) == 1
        assert program.interrupt() == 0
    # the deployments stay, with their schedules paused, as nobody works for them
    assert names(server) == {"count/in-a-file", "count/every-second", "load/raw", "wait/long"}
    [schedule] = server.get("/api/deployments/count%2Fevery-second")["schedules"]
    assert schedule["paused"]
    assert server.get("/api/workers") == [] or all("served" not in each["pool"] for each in server.get("/api/workers"))


ONE = """
from whenthen import flow, serve
@flow
def {flow}(): return "{said}"
if __name__ == "__main__":
    {flow}.serve(name="{name}"{more})
"""


def one(flow: str, name: str = "d", said: str = "first", more: str = "") -> str:
    return ONE.format(flow=flow, name=name, said=said, more=more)


def test_a_name_that_another_script_serves_is_refused_while_that_works(server: Served, tmp_path: Path) -> None:
    with serving_program(script_in(tmp_path / "a", one("same")), cwd=tmp_path / "a", **at_hand(server)) as first:
        other = script_in(tmp_path / "b", one("same", said="second"))
        second = ServedProgram(other, cwd=tmp_path / "b", **at_hand(server))
        assert second.wait() == 1
        assert "deployment 'same/d' is served by script.py:same in" in second.output
        assert "stop that, or give this one another name" in second.output
        assert first.interrupt() == 0
    with serving_program(other, cwd=tmp_path / "b", **at_hand(server)) as second:
        assert "~ deployment same/d: changed" in second.output
        server.http.post("/api/deployments/same%2Fd/run", json={}).raise_for_status()
        [run] = eventually(lambda: ended(server, "same/d"), within_s=30)
        assert server.get(f"/api/runs/{run['id']}")["result"] == "second"


def test_of_two_scripts_that_serve_one_name_at_once_one_is_refused(server: Served, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "ab"]
    files = [script_in(folder, one("race", said=folder.name)) for folder in folders]
    both = [ServedProgram(file, cwd=folder, **at_hand(server)) for file, folder in zip(files, folders, strict=True)]
    try:
        eventually(lambda: any(each.process.poll() is not None for each in both), within_s=60)
        [refused] = [each for each in both if each.process.poll() is not None]
        [serving] = [each for each in both if each is not refused]
        assert refused.wait() == 1
        assert "give this one another name" in refused.output
        serving.wait_until_serving()
        server.http.post("/api/deployments/race%2Fd/run", json={}).raise_for_status()
        [run] = eventually(lambda: ended(server, "race/d"), within_s=30)
        assert server.get(f"/api/runs/{run['id']}")["result"] == serving.file.parent.name
        assert serving.interrupt() == 0
    finally:
        for each in both:
            each.kill()
    # whoever was refused may have the name now
    with serving_program(refused.file, cwd=refused.file.parent, **at_hand(server)) as program:
        assert "~ deployment race/d: changed" in program.output


def test_two_processes_of_one_script_share_the_work(server: Served, tmp_path: Path) -> None:
    file = script_in(tmp_path, one("twin"))
    with serving_program(file, cwd=tmp_path, **at_hand(server)) as first:
        with serving_program(file, cwd=tmp_path, **at_hand(server)) as second:
            assert "= deployment twin/d: as it was" in second.output

            def here() -> list[dict[str, Any]]:
                return [each for each in server.get("/api/workers") if each["pool"] == "served:twin.d"]

            eventually(lambda: len(here()) == 2)
            assert first.interrupt() == 0
        assert not [each for each in server.get("/api/deployments/twin%2Fd")["schedules"] if each["paused"]]


def test_a_name_of_a_rules_file_is_refused(server: Served, tmp_path: Path) -> None:
    program = ServedProgram(script_in(tmp_path, one("count", "in-a-file")), cwd=tmp_path, **at_hand(server))
    assert program.wait() == 1
    assert "deployment 'count/in-a-file' is in the rules file rules.yaml" in program.output


def test_what_a_script_serves_no_more_is_taken_out(server: Served, tmp_path: Path) -> None:
    both = one("kept") + one("gone").replace(
        'gone.serve(name="d")', "serve(kept.to_deployment('d'), gone.to_deployment('d'))"
    )
    both = both.replace('    kept.serve(name="d")', "    pass", 1)
    with serving_program(script_in(tmp_path, both), cwd=tmp_path, **at_hand(server)) as program:
        assert {"kept/d", "gone/d"} <= names(server)
        assert program.interrupt() == 0
    with serving_program(script_in(tmp_path, one("kept")), cwd=tmp_path, **at_hand(server)) as program:
        assert "- deployment gone/d: removed" in program.output
        assert "gone/d" not in names(server)


def test_a_serve_that_is_not_below_main_says_so(server: Served, tmp_path: Path) -> None:
    text = one("top").replace('if __name__ == "__main__":\n    ', "")
    with serving_program(script_in(tmp_path, text), cwd=tmp_path, **at_hand(server)):
        server.http.post("/api/deployments/top%2Fd/run", json={}).raise_for_status()
        [run] = eventually(lambda: ended(server, "top/d"), within_s=30)
        assert run["state"] == "Failed"
        assert 'put it below `if __name__ == "__main__":`' in server.get(f"/api/runs/{run['id']}")["message"]


def test_a_server_that_is_away_is_named(tmp_path: Path) -> None:
    program = ServedProgram(script_in(tmp_path, one("lost")), cwd=tmp_path, url="http://127.0.0.1:9")
    assert program.wait() == 1
    assert "no server answers at http://127.0.0.1:9" in program.output
