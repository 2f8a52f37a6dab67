"""The words of a command: what a parameter becomes in one."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from whenthen.runs.commands import launch_of, read_secret, render_words
from whenthen.runs.run_states import new_run, run_from_record
from whenthen.schemas.deployments import Deployment
from whenthen.schemas.errors import NotFound, RenderError

NOW = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("a b", "n=a b"),
        ("", "n="),
        (True, "n=true"),
        (1.5, "n=1.5"),
        ([1, None], "n=[1,null]"),
        ({"a": 1}, 'n={"a":1}'),
    ],
)
def test_parameter_is_one_word_with_text_as_it_is_and_other_values_as_json(value: Any, word: str) -> None:
    assert render_words(["echo", "n={{ name }}"], {"name": value}) == ["echo", word]


def test_null_parameter_is_an_error_that_names_it() -> None:
    with pytest.raises(RenderError) as caught:
        render_words(["rm", "-r", "/backups/{{ day }}"], {"day": None})
    assert str(caught.value).startswith("parameter 'day' is null")


def test_a_runs_trace_is_in_its_environment_and_the_workers_is_not(tmp_path: Path) -> None:
    deployment = Deployment.model_validate({"name": "d", "command": "true"})
    inherited = {"PATH": os.environ["PATH"], "TRACEPARENT": "stale", "TRACESTATE": "stale"}
    trace = {"id": "1" * 32, "parent": "2" * 16, "flags": "01", "state": "a=1"}

    def environment(deployment: Deployment, trace: dict[str, str] | None) -> dict[str, str]:
        run = new_run(deployment, key="k", parameters={}, now=NOW, trace=trace)
        launch = launch_of(deployment, run, root=tmp_path, scratch=tmp_path, inherited=inherited, resolve=read_secret)
        return {name: value for name, value in launch.env.items() if name.startswith("TRACE")}

    assert environment(deployment, trace) == {"TRACEPARENT": f"00-{'1' * 32}-{'2' * 16}-01", "TRACESTATE": "a=1"}
    assert environment(deployment, None) == {}
    own = Deployment.model_validate({"name": "d", "command": "true", "env": {"TRACEPARENT": "own"}})
    assert environment(own, None) == {"TRACEPARENT": "own"}


def test_a_run_keeps_its_trace_in_its_record() -> None:
    deployment = Deployment.model_validate({"name": "d", "command": "true"})
    run = new_run(
        deployment, key="k", parameters={}, now=NOW, trace={"id": "1" * 32, "parent": "2" * 16, "flags": "01"}
    )
    assert run_from_record(orjson.loads(orjson.dumps(run))).trace == run.trace
    assert run_from_record({k: v for k, v in orjson.loads(orjson.dumps(run)).items() if k != "trace"}).trace is None


@pytest.mark.parametrize("fields", [{"command": "true", "working_dir": "out"}, {"entrypoint": "out/flow.py:f"}])
def test_a_path_that_a_link_leads_out_of_the_rules_folder_by_now_is_not_followed(
    tmp_path: Path, fields: dict[str, str]
) -> None:
    outside, rules = tmp_path / "outside", tmp_path / "rules"
    outside.mkdir()
    rules.mkdir()
    (outside / "flow.py").write_text("def f(): ...")
    (rules / "out").symlink_to(outside)
    deployment = Deployment.model_validate({"name": "d", **fields})
    run = new_run(deployment, key="k", parameters={}, now=NOW)
    with pytest.raises(NotFound, match="leads out of the rules folder"):
        launch_of(deployment, run, root=rules, scratch=tmp_path, inherited={}, resolve=read_secret)


def launch(tmp_path: Path, **fields: Any) -> Any:
    deployment = Deployment.model_validate({"name": "d", **fields})
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    run = new_run(deployment, key="k", parameters={}, now=NOW)
    return launch_of(
        deployment,
        run,
        root=tmp_path / "rules",
        scratch=scratch,
        inherited={"PATH": os.environ["PATH"]},
        resolve=lambda reference: f"value-of-{reference}",
    )


def test_code_in_a_folder_of_its_own_is_what_paths_are_relative_to(tmp_path: Path) -> None:
    (tmp_path / "etl" / "jobs").mkdir(parents=True)
    (tmp_path / "etl" / "main.py").write_text("")
    made = launch(tmp_path, entrypoint="main.py:f", code={"folder": str(tmp_path / "etl")}, working_dir="jobs")
    assert made.words[-3:-1] == [str(tmp_path / "etl" / "main.py"), "f"]
    assert made.cwd == tmp_path / "etl" / "jobs"
    assert str(tmp_path / "etl") in made.env["PYTHONPATH"].split(os.pathsep)
    with pytest.raises(NotFound, match="the code folder '/nonexistent' is not on this machine"):
        launch(tmp_path, entrypoint="main.py:f", code={"folder": "/nonexistent"})
    with pytest.raises(NotFound, match="leads out"):
        launch(tmp_path, entrypoint="../x.py:f", code={"folder": str(tmp_path / "etl")})


def test_code_of_a_repository_is_cloned_by_the_run_itself_which_alone_has_the_token(tmp_path: Path) -> None:
    code = {"git": "https://host/o/r.git", "ref": "main", "token": "env:GIT_TOKEN"}
    made = launch(tmp_path, entrypoint="flows/main.py:f", code=code, working_dir="flows", python=".venv/bin/python")
    checkout = made.words.index(str(tmp_path / "scratch" / "code"))
    assert made.words[checkout + 1 : checkout + 3] == ["flows", "--"]
    assert made.words[checkout + 3] == str(tmp_path / "scratch" / "code" / ".venv/bin/python")
    assert made.cwd == tmp_path / "scratch"
    assert orjson.loads(made.env["WHENTHEN_CHECKOUT"]) == {
        **code,
        "token": "value-of-env:GIT_TOKEN",
        "submodules": False,
    }
    assert made.secrets == ("value-of-env:GIT_TOKEN",)
    assert not any("value-of" in word for word in made.words)
    assert made.arguments == []  # no interpreter waits for it
    assert launch(tmp_path, command="make all", code={"git": "git@host:o/r"}).words[-2:] == ["make", "all"]
