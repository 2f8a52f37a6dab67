"""A project of Prefect's, imported by the command, served, and run: two deployments of one name, a chain, a secret parameter."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests import forks
from tests.integration.served import Served, environment
from tests.patience import eventually, limit

pytestmark = [pytest.mark.requires("nats-server"), pytest.mark.takes(10)]

PROJECT = """
pull:
  - prefect.deployments.steps.set_working_directory: {directory: /app}
deployments:
  - name: prod
    entrypoint: flows/load.py:load
    parameters: {key: "{{ prefect.blocks.secret.load-key }}"}
    concurrency_limit: {limit: 1, collision_strategy: CANCEL_NEW}
    schedules: [{cron: "0 2 1 * 1", day_or: false}]
    triggers:
      - {expect: [s3.uploaded], parameters: {size: "{{ event.payload.size }}"}}
  - name: prod
    entrypoint: flows.report.report
    triggers:
      - expect: [prefect.flow-run.Completed]
        match_related: {prefect.resource.role: flow, prefect.resource.name: loader}
        parameters: {found: "{{ event.payload.result }}", whole: "{{ event }}"}
"""
LOAD = """
from flows.shared import doubled

from whenthen import flow


@flow(name="loader")
def load(key: str, size: int) -> dict:
    return {"key": len(key), "size": doubled(size)}
"""
REPORT = """
from whenthen import flow


@flow
def report(found: dict, whole: dict) -> list:
    return [found, whole["event"]]
"""


def imported(folder: Path, *options: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return forks.run(["import", "prefect", *options], env=environment(), cwd=folder, stdin=stdin, within_s=30)


def test_an_imported_project_runs_as_it_did(tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    (rules / "flows").mkdir(parents=True)
    (rules / "flows" / "load.py").write_text(LOAD)
    (rules / "flows" / "report.py").write_text(REPORT)
    (rules / "flows" / "shared.py").write_text("def doubled(n):\n    return 2 * n\n")
    (tmp_path / "rules" / "prefect.txt").write_text(PROJECT)
    result = imported(rules, "prefect.txt")
    assert result.returncode == 0, result.stderr
    (rules / "prefect.txt").unlink()
    (rules / "prefect.yaml").write_text(result.stdout)
    served = Served(tmp_path, {"WHENTHEN_SECRET_LOAD_KEY": "four-four"})
    try:
        served.wait_until_ready()
        names = {one["name"] for one in served.http.get("/api/deployments").json()}
        assert names == {"loader/prod", "report/prod"}
        served.emit("s3.uploaded", {"size": 21})

        def ended() -> bool:
            runs = served.http.get("/api/runs", params={"deployment": "report/prod"}).json()
            return bool(runs) and runs[0]["state"] == "Completed"

        eventually(ended, within_s=limit(60))
        (run,) = served.http.get("/api/runs", params={"deployment": "report/prod"}).json()
        assert run["result"] == [{"key": 9, "size": 42}, "flow-run.Completed"]
        (first,) = served.http.get("/api/runs", params={"deployment": "loader/prod"}).json()
        assert first["parameters"] == {"size": 21}
    finally:
        served.kill()


def test_the_options_of_the_import_are_checked(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("{name: x, trigger: {expect: [prefect.flow-run.Failed]}, actions: []}")
    (tmp_path / "ids.json").write_text("[]")
    assert "flow-run.Failed" in imported(tmp_path, "one.yaml").stdout
    assert "prefect.flow-run.Failed" in imported(tmp_path, "one.yaml", "--runs", "prefect").stdout
    assert "prefect.flow-run" not in imported(tmp_path, "-", stdin=(tmp_path / "one.yaml").read_text()).stdout
    for options, said in (
        ((), "give a file, or --score with a folder"),
        (("one.yaml", "--score", "."), "give a file, or --score with a folder"),
        (("one.yaml", "--runs", "there"), "here or prefect; found 'there'"),
        (("one.yaml", "--ids", "ids.json"), "ids.json: it has no ids"),
        (("--score", "nowhere"), "there is no such folder"),
        (("nowhere.yaml",), "nowhere.yaml"),
    ):
        refused = imported(tmp_path, *options)
        assert refused.returncode != 0
        assert said in " ".join(refused.stderr.split())
    score = imported(tmp_path, "--score", ".", "--json")
    assert json.loads(score.stdout)["automations"] == 1
    assert "1 automations" in imported(tmp_path, "--score", ".").stdout
