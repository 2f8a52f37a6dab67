"""Variables, artifacts, secrets and named limits in a real server, its worker, programs beside it, and on the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import forks
from tests.integration.flows.programs import ROOT, run_program
from tests.integration.served import TOKEN, Served, environment, serving
from tests.patience import eventually, limit

RULES = """
limits:
  - {name: database, slots: 1, description: What it bears.}
  - {name: api, slots: 1, per_second: 50}
  - {name: held, slots: 3}
secrets:
  - {name: api-key, value: "file:SECRET"}
deployments:
  - {name: load, entrypoint: "jobs.py:load"}
  - {name: plain, entrypoint: "jobs.py:plain"}
  - {name: wait, entrypoint: "jobs.py:wait"}
"""
JOBS = """
import os, time
from datetime import datetime
from pathlib import Path
from whenthen import flow, get_client
from whenthen.artifacts import create_markdown_artifact, create_progress_artifact, create_table_artifact, update_progress_artifact
from whenthen.blocks.system import Secret
from whenthen.concurrency.sync import concurrency, rate_limit
from whenthen.variables import Variable

@flow
def load(rows: int):
    key = Secret.load("api-key").get()
    seen = Variable.get("region")
    Variable.set("rows", rows, overwrite=True)
    create_markdown_artifact(f"<script>alert(1)</script> {key}", key="summary", description="What was loaded.")
    create_table_artifact([{"table": "<b>orders</b>", "rows": rows}], key="loaded")
    progress = create_progress_artifact(10, key="progress")
    update_progress_artifact(progress, 50)
    with concurrency("database", strict=True):
        rate_limit("api", strict=True)
    with get_client(sync_client=True) as client:
        me = client.read_flow_run(os.environ["WHENTHEN_RUN_ID"])
    assert not [name for name in os.environ if "API_TOKEN" in name or "WHENTHEN_URL" in name]
    return [key, seen, me.deployment_id]

@flow
def wait():
    progress = create_progress_artifact(1, key="waiting")
    while Variable.get("go-on") is None:
        time.sleep(0.05)
    update_progress_artifact(progress, 100)

def plain(at: datetime, size: int = 0):
    return [type(at).__name__, at.year, size]
"""


@pytest.fixture
def served(tmp_path: Path) -> Any:
    (tmp_path / "secret").write_text("hunter2-hunter2\n")
    rules = RULES.replace("SECRET", str(tmp_path / "secret"))
    with serving(tmp_path, {"rules.yaml": rules, "jobs.py": JOBS}) as found:
        yield found


def command(served: Served, *words: str) -> Any:
    return forks.run(list(words), env=environment(WHENTHEN_URL=served.url, WHENTHEN_API_TOKEN=TOKEN), within_s=60)


def start(served: Served, deployment: str, **parameters: Any) -> str:
    body = {"parameters": parameters}
    made = served.http.post(f"/api/deployments/{deployment}/run", json=body).raise_for_status().json()
    return str(made["id"])


def ended(served: Served, run_id: str) -> Any:
    def found() -> Any:
        run = served.get(f"/api/runs/{run_id}")
        return run if run["ended"] else None

    return eventually(found, within_s=60)


def test_what_a_run_shares_and_shows(served: Served) -> None:
    assert command(served, "variables", "set", "region", "eu").returncode == 0
    run = ended(served, start(served, "load", rows="3"))
    assert run["state"] == "Completed", run["message"]
    assert run["result"] == ["***", "eu", "load"]

    listed = json.loads(command(served, "variables", "--json").stdout)
    assert [(each["name"], each["value"], each["by"]) for each in listed] == [
        ("region", "eu", "api"),
        ("rows", 3, f"run:{run['id']}"),
    ]
    assert command(served, "variables", "get", "rows").stdout == "3\n"
    refused = command(served, "variables", "set", "region", "us")
    assert (refused.returncode, "overwrite" in refused.stderr) == (1, True)
    assert command(served, "variables", "set", "region", '{"a": 1}', "--overwrite", "--tag", "t").returncode == 0
    assert served.get("/api/variables/region")["value"] == {"a": 1}
    assert command(served, "variables", "unset", "region").stdout == "region is unset\n"
    assert command(served, "variables", "get", "region").returncode == 1

    shown = served.get(f"/api/artifacts?run={run['id']}")
    assert {each["key"]: each["data"] for each in shown} == {
        "summary": "<script>alert(1)</script> ***",
        "loaded": '[{"table": "<b>orders</b>", "rows": 3}]',
        "progress": 50.0,
    }
    first = served.get("/api/artifacts?limit=1")
    assert first == shown[:1]
    assert served.get(f"/api/artifacts?limit=2&before={first[0]['seq']}") == shown[1:]
    assert "summary" in command(served, "artifacts", "--run", run["id"][:12]).stdout
    assert json.loads(command(served, "artifacts", "show", "progress", "--json").stdout)["data"] == 50.0
    assert f"whenthen artifacts --run {run['id']}" in command(served, "runs", "show", run["id"]).stdout

    page = served.http.get(f"/run?id={run['id']}", headers={"Accept": "text/html"}).text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script>alert" not in page
    assert "&lt;b&gt;orders&lt;/b&gt;" in page
    assert '<progress max="100" value="50.0"' in page
    assert "hunter2" not in page

    api, database, _ = served.get("/api/limits")
    assert (api["name"], database["name"], database["holders"]) == ("api", "database", [])
    assert "0 of 1" in command(served, "limits").stdout
    kinds = {each["kind"] for each in served.get("/api/audit?what=region")}
    assert {"variable-set", "variable-unset"} <= kinds


def test_artifacts_arrive_while_a_run_goes_on(served: Served) -> None:
    run_id = start(served, "wait")
    eventually(lambda: served.get(f"/api/artifacts?run={run_id}"), within_s=60)
    assert served.get(f"/api/runs/{run_id}")["ended"] is None
    served.http.post("/api/variables/go-on", json={"value": True}).raise_for_status()
    assert ended(served, run_id)["state"] == "Completed"
    assert [each["data"] for each in served.get("/api/artifacts?key=waiting")] == [100.0]


def test_a_plain_functions_parameters_are_converted(served: Served) -> None:
    run = ended(served, start(served, "plain", at="2026-03-01T00:00:00Z", size="7"))
    assert run["result"] == ["datetime", 2026, 7], run["message"]
    run = ended(served, start(served, "plain", at="soon", size=[]))
    assert (run["state"], run["attempt"]) == ("Failed", 1)
    message = run["message"]
    assert "plain does not take these parameters:" in message
    assert " - at: " in message
    assert " - size: " in message


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"value": "x" * 900_000}, 400, "5,000"),
        ({"value": 1, "overwrit": True}, 400, "unknown field"),
        ({"tags": ["a"]}, 400, "value"),
        ([], 400, "object"),
        (None, 400, "body"),
    ],
)
def test_what_is_no_variable_is_refused(served: Served, body: Any, status: int, said: str) -> None:
    content = b"" if body is None else json.dumps(body).encode()
    answer = served.http.post("/api/variables/x", content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, said in answer.text) == (status, True), answer.text
    assert served.http.get("/api/variables/x").status_code == 404


def test_names_with_slashes_are_refused_everywhere(served: Served) -> None:
    for path in ("/api/variables/a%2Fb", "/api/variables/..%2Fx"):
        answer = served.http.post(path, json={"value": 1})
        assert (answer.status_code, "lowercase letters" in answer.text) == (400, True), answer.text
    assert served.http.get("/api/artifacts?key=a/b").status_code == 400
    assert served.http.get("/api/artifacts?run=..").status_code in (400, 404)
    assert served.http.get("/api/artifacts/a.b").status_code == 400


PROGRAM = """
import sys
from whenthen import flow, get_client
from whenthen.artifacts import Artifact
from whenthen.blocks.system import JSON, Secret
from whenthen.concurrency.sync import concurrency, rate_limit
from whenthen.exceptions import NeedsServer
from whenthen.variables import Variable

@flow
def main():
    Variable.set("of-script", [1], tags=["a"])
    try:
        Variable.set("of-script", 2)
    except ValueError as error:
        print(type(error).__name__)
    print(Variable.get("of-script"), JSON.load("of-script").value, Variable.get("none", default=3))
    print(Variable.unset("of-script"), Variable.get("of-script"), Artifact.get("none"))
    try:
        Secret.load("api-key")
    except NeedsServer as error:
        print(error)
    for _ in range(3):
        rate_limit("api", strict=True)
    with concurrency("database", strict=True):
        with get_client(sync_client=True) as client:
            print([each.name for each in client.read_deployments()])
        try:
            with concurrency("database", timeout_seconds=0.2):
                print("two have it")
        except TimeoutError as error:
            print(error)
    with concurrency("database", timeout_seconds=20, raise_on_lease_renewal_failure=True):
        print("again")

main()
"""


def test_a_program_beside_the_runs_asks_the_server(served: Served, tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    done = run_program(file, cwd=tmp_path, WHENTHEN_URL=served.url, WHENTHEN_API_TOKEN=TOKEN)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[:3] == ["ObjectAlreadyExists", "[1] [1] 3", "True None None"]
    assert "Secret.load needs a server" in lines[3]
    assert lines[4:] == [
        "['load', 'plain', 'wait']",
        "concurrency: 1 slot(s) of database were not free within 0.2 second(s)",
        "again",
    ]


HOLDER = """
import sys
from whenthen.concurrency.sync import concurrency

with concurrency("held", occupy=3, lease_duration=5, strict=True, raise_on_lease_renewal_failure=sys.argv[1] == "raises"):
    print("held", flush=True)
    sys.stdin.readline()
"""


class Holder:
    """A program that holds slots until it is told to end."""

    def __init__(self, served: Served, folder: Path, name: str, *, raises: bool = False) -> None:
        (folder / "holder.py").write_text(HOLDER)
        self.said = folder / f"{name}.out"
        with self.said.open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "holder.py", "raises" if raises else "goes on"],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), "WHENTHEN_URL": served.url, "WHENTHEN_API_TOKEN": TOKEN},
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=subprocess.STDOUT,
            )

    def has_said(self, text: str) -> bool:
        return text in self.said.read_text()

    def end(self) -> int:
        self.process.communicate(b"\n", timeout=limit(30))
        return self.process.returncode


@pytest.mark.takes(20)
def test_slots_of_a_program_that_is_stopped_or_killed_go_to_others_when_its_lease_is_over(
    served: Served, tmp_path: Path
) -> None:
    holders: list[Holder] = []
    try:
        holders.append(stopped := Holder(served, tmp_path, "stopped", raises=True))
        eventually(lambda: stopped.has_said("held"), within_s=30)
        stopped.process.send_signal(signal.SIGSTOP)
        holders.append(killed := Holder(served, tmp_path, "killed"))
        eventually(lambda: killed.has_said("held"), within_s=30)
        killed.process.kill()
        holders.append(last := Holder(served, tmp_path, "last"))
        eventually(lambda: last.has_said("held"), within_s=30)
        stopped.process.send_signal(signal.SIGCONT)
        eventually(lambda: stopped.has_said("others may have them"), within_s=30)
        assert stopped.end() == 1
        assert stopped.has_said("the lease of the slots was lost")
        assert last.end() == 0
        eventually(lambda: {each["name"]: each["taken"] for each in served.get("/api/limits")}["held"] == 0)
    finally:
        for each in holders:
            each.process.kill()
            each.process.wait()


def test_a_server_that_is_away_is_said_with_the_remedy(tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text("from whenthen.variables import Variable\nVariable.set('a', 1)\n")
    done = run_program(file, cwd=tmp_path, WHENTHEN_URL="http://127.0.0.1:9", WHENTHEN_API_TOKEN=TOKEN)
    assert done.returncode == 1
    assert "no server answers at http://127.0.0.1:9" in done.stderr
    assert "whenthen serve" in done.stderr
