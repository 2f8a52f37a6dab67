"""What an interpreter is started with that waits for runs: nothing that is a run's own, and no secret."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from whenthen.runs import runner
from whenthen.runs.commands import warm_start_of
from whenthen.schemas.deployments import Deployment
from whenthen.schemas.errors import NotFound


def deployment(root: Path, **fields: object) -> Deployment:
    (root / "job.py").write_text("def main(): pass\n")
    return Deployment.model_validate({"name": "d", "entrypoint": "job.py:main"} | fields)


def test_secrets_and_variables_of_the_worker_are_left_out(tmp_path: Path) -> None:
    given = deployment(
        tmp_path,
        env={"PLAIN": "x", "DB": "env:DB_PASSWORD"},
        secret_parameters={"key": "env:KEY"},
        preload=["decimal", "package.module"],
    )
    inherited = {"HOME": "/home/worker", "WHENTHEN_API_TOKEN": "t", "TRACEPARENT": "00-1", "DB": "the worker's own"}
    found = warm_start_of(given, root=tmp_path, inherited=inherited)
    assert found is not None
    assert found.env.items() >= {"HOME": "/home/worker", "PLAIN": "x", "PYTHONUNBUFFERED": "1"}.items()
    assert not found.env.keys() & {"DB", "KEY", "WHENTHEN_API_TOKEN", "TRACEPARENT"}
    assert (found.python, found.where, found.preload) == (
        sys.executable,
        str(tmp_path / "job.py"),
        ("decimal", "package.module"),
    )


@pytest.mark.parametrize("name", ["PYTHONPATH", "LD_PRELOAD", "LC_ALL", "TZ", "PATH"])
def test_none_waits_where_a_secret_is_among_what_an_interpreter_is_started_with(tmp_path: Path, name: str) -> None:
    assert warm_start_of(deployment(tmp_path, env={name: "env:SECRET"}), root=tmp_path, inherited={}) is None
    assert warm_start_of(deployment(tmp_path, env={name: "plain"}), root=tmp_path, inherited={}) is not None


def test_none_waits_for_a_command_or_where_the_list_is_empty(tmp_path: Path) -> None:
    command = Deployment.model_validate({"name": "d", "command": "true"})
    assert warm_start_of(command, root=tmp_path, inherited={}) is None
    assert warm_start_of(deployment(tmp_path, preload=[]), root=tmp_path, inherited={}) is None


def test_an_interpreter_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"python '\./gone' is not there"):
        warm_start_of(deployment(tmp_path, python="./gone"), root=tmp_path, inherited={})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"entrypoint": "job.py:main", "preload": ["jobs/load.py"]}, "'jobs/load.py' is no name of a module"),
        ({"entrypoint": "job.py:main", "preload": ["a b"]}, "'a b' is no name of a module"),
        ({"command": "true", "preload": ["pandas"]}, "`preload` names modules for the function of an `entrypoint`"),
    ],
)
def test_what_names_no_module_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Deployment.model_validate({"name": "d", **fields})


@pytest.mark.parametrize(
    ("path", "is_library"),
    [
        (str(Path(runner.os.__file__).parent / "json" / "__init__.py"), True),
        ("/srv/rules/.venv/lib/python3.11/site-packages/yaml/__init__.py", True),
        ("/usr/lib/python3/dist-packages/yaml/__init__.py", True),
        (str(Path(runner.__file__).parents[1] / "flows" / "__init__.py"), True),
        ("/srv/rules/jobs/load.py", False),
        ("/srv/site-packages.py", False),
    ],
)
def test_a_library_is_what_is_installed(path: str, is_library: bool) -> None:
    assert runner.is_library(path) is is_library


def test_libraries_are_learnt_in_the_order_in_which_they_came() -> None:
    names = runner.imported_libraries(as_given=True)
    assert {"json", "pydantic", "pytest"} <= set(names)
    assert not {"__main__", __name__} & set(names)
    loaded = list(sys.modules)
    assert [loaded.index(name) for name in names] == sorted(loaded.index(name) for name in names)


def test_of_a_program_that_changes_its_environment_the_libraries_are_not_learnt() -> None:
    names = runner.imported_libraries(as_given=False)
    assert {"json", "pydantic"} <= set(names)
    assert "pytest" not in names


def test_nothing_is_learnt_from_a_program_that_patches_its_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gevent", sys)
    assert runner.imported_libraries(as_given=True) == []
