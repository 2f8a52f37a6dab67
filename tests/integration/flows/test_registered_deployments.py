"""`flow.deploy(...)`, `whenthen deploy` and `whenthen deployments remove` against a server, and what becomes of the rules' files beside them."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import forks
from tests.integration.flows.programs import run_program
from tests.integration.served import TOKEN, Served, environment
from tests.patience import eventually
from tests.unit.flows.repositories import git, git_repository

pytestmark = pytest.mark.takes(2)

RULES = """
deployments:
  - {name: filed, command: "true"}
"""
FLOWS = """
from whenthen import flow

@flow
def etl(day: int, where: str = "here") -> dict:
    return {"day": day, "where": where}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("server")
    (folder / "rules").mkdir()
    (folder / "rules" / "rules.yaml").write_text(RULES)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Served]:
    served = Served(folder)
    try:
        served.wait_until_ready()
        yield served
    finally:
        served.kill()


def command(server: Served, *words: str, cwd: Path, code: int = 0) -> str:
    done = forks.run(
        words,
        env=environment(WHENTHEN_URL=server.url, WHENTHEN_API_TOKEN=TOKEN, COLUMNS="200"),
        cwd=cwd,
        within_s=60,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def names(server: Served) -> set[str]:
    return {each["name"] for each in server.get("/api/deployments")}


def result_of(server: Served, deployment: str, **parameters: Any) -> Any:
    path = f"/api/deployments/{deployment.replace('/', '%2F')}/run"
    run = server.http.post(path, json={"parameters": parameters}).raise_for_status().json()
    ended = eventually(
        lambda: (found := server.get(f"/api/runs/{run['id']}"))["state"] in ("Completed", "Failed") and found,
        within_s=30,
    )
    return ended["result"] if ended["state"] == "Completed" else ended["message"]


def project(tmp_path: Path, more: str = "") -> Path:
    file = tmp_path / "flows.py"
    file.write_text(FLOWS + textwrap.dedent(more))
    return file


def test_a_script_deploys_a_flow_and_the_output_says_what_changed(server: Served, tmp_path: Path) -> None:
    told = {"WHENTHEN_URL": server.url, "WHENTHEN_API_TOKEN": TOKEN}
    more = """
    if __name__ == "__main__":
        import sys
        print(etl.deploy("from-python", parameters={"day": int(sys.argv[1])}, cron="0 6 * * *", tags=["t"], version="1"))
    """
    file = project(tmp_path, more)
    first = run_program(file, "3", cwd=tmp_path, **told)
    assert "+ deployment etl/from-python: new\n" in first.stdout, first.stderr
    assert first.stdout.endswith("\netl/from-python\n")
    assert "= deployment etl/from-python: as it was\n" in run_program(file, "3", cwd=tmp_path, **told).stdout
    assert "~ deployment etl/from-python: changed\n" in run_program(file, "4", cwd=tmp_path, **told).stdout
    assert result_of(server, "etl/from-python", where="x") == {"day": 4, "where": "x"}
    detail = server.get("/api/deployments/etl%2Ffrom-python")
    assert (detail["code"], detail["version"], detail["tags"]) == ({"folder": str(tmp_path)}, "1", ["t"])
    assert detail["parameter_schema"]["required"] == ["day"]


def test_the_command_reads_the_flow_without_importing_it(server: Served, tmp_path: Path) -> None:
    (tmp_path / "named.py").write_text(
        'raise SystemExit("imported")\nfrom whenthen import flow\n@flow(name="My ETL")\ndef f(a: int): ...\n'
    )
    said = command(
        server, "deploy", "named.py:f", "-n", "d", "-p", "b=1", "--interval", "15m", "--preview", cwd=tmp_path
    )
    assert "note: function f takes no parameter 'b'" in said
    assert "+ deployment My ETL/d: new" in said
    assert "nothing was changed" in said
    assert "My ETL/d" not in names(server)


def test_deploy_and_remove_by_command(server: Served, tmp_path: Path) -> None:
    project(tmp_path)
    said = command(server, "deploy", "flows.py:etl", "-n", "by-command", "-p", "day=7", "--cron", "0 6 * * *", "--timezone",
                   "Europe/Paris", "--limit", "2", "--tag", "a", "--paused", cwd=tmp_path)  # fmt: skip
    assert "+ deployment etl/by-command: new" in said
    detail = server.get("/api/deployments/etl%2Fby-command")
    assert (detail["concurrency_limit"], detail["tags"], detail["parameters"]) == (2, ["a"], {"day": 7})
    assert [(each["when"], each["timezone"], each["paused"]) for each in detail["schedules"]] == [
        ("0 6 * * *", "Europe/Paris", True)
    ]
    assert result_of(server, "etl/by-command") == {"day": 7, "where": "here"}
    shown = json.loads(command(server, "deployments", "remove", "etl/by-command", "--preview", "--json", cwd=tmp_path))
    assert [(each["change"], each["name"]) for each in shown["changes"]] == [("removed", "etl/by-command")]
    assert "- deployment etl/by-command: removed" in command(
        server, "deployments", "remove", "etl/by-command", cwd=tmp_path
    )
    assert "etl/by-command" not in names(server)
    assert "is in the rules file rules.yaml" in command(server, "deployments", "remove", "filed", cwd=tmp_path, code=1)


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (("nope.py:f",), "there is no file 'nope.py'", 2),
        (("flows.py",), "is not path/to/file.py:function", 2),
        (("flows.py:etl", "--cron", "61 * * * *"), "is not a cron expression", 1),
        (("flows.py:etl", "--interval", "soon"), "soon", 1),
        (("flows.py:etl", "--ref", "main"), "--ref and --token belong to a repository", 2),
        (("flows.py:etl", "--git", "https://x:y@h/r.git"), "the address holds a secret", 1),
    ],
)  # fmt: skip
def test_what_can_be_no_deployment_is_refused(
    server: Served, tmp_path: Path, words: tuple[str, ...], said: str, code: int
) -> None:
    project(tmp_path)
    before = server.get("/api/rules/revisions")[0]["number"]
    assert said in command(server, "deploy", *words, cwd=tmp_path, code=code)
    assert server.get("/api/rules/revisions")[0]["number"] == before


def test_code_of_a_repository_is_that_of_its_branch_at_the_time_of_the_run(server: Served, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    text = "from whenthen import flow\nimport helper\n@flow\ndef f(): return helper.VALUE\n"
    first = git_repository(repository, {"jobs/main.py": text, "jobs/helper.py": "VALUE = 1\n"})
    words = ("deploy", "jobs/main.py:f", "--git", f"file://{repository}")
    command(server, *words, "-n", "main", cwd=tmp_path)
    assert result_of(server, "f/main") == 1
    git_repository(repository, {"jobs/helper.py": "VALUE = 2\n"})
    git(repository, "branch", "other", first)
    command(server, *words, "-n", "at-first", "--ref", first, cwd=tmp_path)
    command(server, *words, "-n", "at-branch", "--ref", "other", cwd=tmp_path)
    command(server, *words, "-n", "at-none", "--ref", "none", cwd=tmp_path)
    assert result_of(server, "f/main") == 2
    assert result_of(server, "f/at-first") == 1
    assert result_of(server, "f/at-branch") == 1
    assert f"the code can not be cloned from file://{repository} at none" in result_of(server, "f/at-none")


def test_what_is_registered_outlives_changed_files_and_a_restart(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    rules = tmp_path / "rules" / "rules.yaml"
    rules.write_text(RULES)
    project(tmp_path)
    server = Served(tmp_path)
    try:
        server.wait_until_ready()
        command(server, "deploy", "flows.py:etl", "-n", "kept", cwd=tmp_path)
        rules.write_text(RULES + '  - {name: further, command: "true"}\n')
        eventually(lambda: names(server) == {"filed", "further", "etl/kept"})
        assert "notes" not in server.get("/api/status") or server.get("/api/status")["notes"] == []
        said = command(server, "plan", "rules", cwd=tmp_path)
        assert "these rules are in force" in said
        # files that take its name are refused, and what was there stays
        rules.write_text(RULES + '  - {name: etl/kept, command: "true"}\n')
        problem = eventually(lambda: server.get("/api/status")["problems"])[0]
        assert 'deployment "etl/kept" is defined twice' in problem["message"]
        assert ".registered/deploy/" in problem["message"]
        assert server.stop() == 0
        server = Served(tmp_path)
        server.wait_until_ready()
        assert names(server) == {"filed", "further", "etl/kept"}
        rules.write_text(RULES)
        eventually(lambda: names(server) == {"filed", "etl/kept"})
        number = server.get("/api/rules/revisions")[0]["number"]
        assert server.stop() == 0
        server = Served(tmp_path)
        server.wait_until_ready()
        assert server.get("/api/rules/revisions")[0]["number"] == number
        assert names(server) == {"filed", "etl/kept"}
        # the set of another revision comes back whole
        first = server.get("/api/rules/revisions")[-1]["number"]
        command(server, "rollback", str(first), cwd=tmp_path)
        assert names(server) == {"filed"}
    finally:
        server.kill()


def test_rules_that_come_from_files_alone_take_none_from_scripts(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "rules.yaml").write_text(RULES)
    project(tmp_path)
    server = Served(tmp_path, {"WHENTHEN_RULES_FROM": "files"})
    try:
        server.wait_until_ready()
        assert "rules come from files alone here" in command(server, "deploy", "flows.py:etl", cwd=tmp_path, code=1)
        assert names(server) == {"filed"}
    finally:
        server.kill()
