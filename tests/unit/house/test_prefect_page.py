"""docs/prefect.md and the code agree: every name can be imported, everything that is said not to be here says so itself."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import whenthen
from tools.prefect_page import names_by_module, with_tables
from whenthen import flow, get_client, task
from whenthen.blocks.system import Secret
from whenthen.client.schemas.objects import ConcurrencyLimitConfig
from whenthen.concurrency.sync import concurrency
from whenthen.deployments import run_deployment
from whenthen.exceptions import NeedsServer, NotSupported
from whenthen.flows.execution.reporter import REPORTER, SilentReporter
from whenthen.flows.unsupported import NEEDS_SERVER, NOT_SUPPORTED, needs_server
from whenthen.input import receive_input
from whenthen.runner.storage import GitRepository
from whenthen.schedules import Cron
from whenthen.states import Running

PAGE = Path(__file__).parents[3] / "docs" / "prefect.md"


@flow
def nothing() -> None: ...


@task
def nothing_either() -> None: ...


def client() -> Any:
    return get_client(sync_client=True)


#: of what is neither a module nor a name in one: how it is used
USED = {
    "Flow.from_source(<bucket>)": lambda: flow.from_source("s3://bucket/flows", "a.py:f"),  # type: ignore[attr-defined]
    "GitRepository(directories=...)": lambda: GitRepository("https://x/r.git", directories=["a"]),
    "deploy(image=...)": lambda: nothing.deploy("d", image="i"),
    "deploy(job_variables=...)": lambda: nothing.to_deployment("d", job_variables={"image": "i"}).as_rule(),
    "to_deployment(version_type=...)": lambda: nothing.to_deployment("d", version_type="GIT"),
    "ConcurrencyLimitConfig(grace_period_seconds=...)": lambda: nothing.to_deployment(
        "d", concurrency_limit=ConcurrencyLimitConfig(limit=1, grace_period_seconds=9)
    ).as_rule(),
    "Flow.visualize": lambda: nothing.visualize(),
    "RunnerDeployment.apply(version_info=...)": lambda: nothing.to_deployment("d").apply(version_info=1),
    "serve(webserver=True)": lambda: nothing.serve("d", webserver=True),
    "receive_input(exclude_keys=...)": lambda: receive_input(int, flow_run_id=uuid4(), exclude_keys={"k"}),
    "receive_input(with_metadata=True)": lambda: receive_input(int, flow_run_id=uuid4(), with_metadata=True),
    "get_client(httpx_settings=...)": lambda: get_client(httpx_settings={"timeout": 3}),
    "get_client(): options of a run": lambda: client().create_flow_run_from_deployment("d", labels={"a": "b"}),
    "Task.apply_async": lambda: nothing_either.apply_async(),
    "Task.delay": lambda: nothing_either.delay(),
    "Task.serve": lambda: nothing_either.serve(),
    "schedules.Cron(day_or=False)": lambda: Cron("0 8 * * 5", day_or=False),
    "concurrency(max_retries=...)": lambda: concurrency("x", max_retries=3).__enter__(),
    "run_deployment(flow_run_name=...)": lambda: run_deployment("x", flow_run_name="y"),
    "run_deployment(job_variables=...)": lambda: run_deployment("x", job_variables={"y": 1}),
    "run_deployment(tags=...)": lambda: run_deployment("x", tags=["y"]),
    "run_deployment(work_queue_name=...)": lambda: run_deployment("x", work_queue_name="y"),
    "get_client(): filters": lambda: client().read_flow_runs(flow_filter=object()),
    "get_client(): set_flow_run_state": lambda: client().set_flow_run_state(str(uuid4()), Running()),
    "get_client(): update_deployment": lambda: client().update_deployment("x", paused=True),
    "get_client(): create_flow_run": lambda: client().create_flow_run(nothing),
}


def use(name: str) -> None:
    """Use what is not here, as a program would."""
    if name in USED:
        USED[name]()
        return
    module, _, last = f"whenthen.{name}".rpartition(".")
    exec(f"from {module} import {last}")


def test_the_package_lists_each_of_its_names_once_and_no_helper() -> None:
    assert whenthen.flow is flow  # what was asked for is kept
    listed = dir(whenthen)
    assert len(listed) == len(set(listed))
    assert {name for name in listed if not name.startswith("__")} == {*whenthen.NAMES, *whenthen.MODULES}


def test_the_page_has_the_tables_and_names_of_the_code() -> None:
    assert PAGE.read_text(encoding="utf-8") == with_tables(PAGE.read_text(encoding="utf-8")), "run `make docs`"


@pytest.mark.parametrize("module", names_by_module())
def test_every_name_of_the_page_can_be_imported(module: str) -> None:
    found = importlib.import_module(f"whenthen.{module}" if module else "whenthen")
    assert [name for name in names_by_module()[module] if not hasattr(found, name)] == []


@pytest.mark.parametrize("name", NOT_SUPPORTED)
def test_what_is_not_here_says_so_and_what_to_do_instead(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHENTHEN_URL", "http://127.0.0.1:1")
    with pytest.raises(NotSupported, match=re.escape(name.rpartition(".")[2])) as caught:
        use(name)
    assert NOT_SUPPORTED[name] in str(caught.value)


@pytest.mark.parametrize("name", [name for name in NOT_SUPPORTED if name not in USED])
def test_a_module_that_is_not_here_says_so_on_every_import(name: str) -> None:
    file = Path(whenthen.__file__).parent / f"{name.replace('.', '/')}.py"
    if file.exists():
        for _ in range(2):
            with pytest.raises(NotSupported):
                importlib.import_module(f"whenthen.{name}")
            with pytest.raises(NotSupported):
                importlib.import_module(f"whenthen.{name}.utilities")


@pytest.mark.parametrize("name", NEEDS_SERVER)
def test_what_needs_a_server_says_so_by_name(name: str) -> None:
    error = needs_server(name)
    assert isinstance(error, NeedsServer)
    assert str(error).startswith(f"{name} needs a server")
    assert NEEDS_SERVER[name] in str(error)


def test_an_address_that_is_set_is_said_to_be_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHENTHEN_URL", "http://127.0.0.1:1")
    with pytest.raises(
        NeedsServer,
        match=r"a script is connected to none \(WHENTHEN_URL is not used for this\)",
    ):
        Secret(value="x").save("y")
    monkeypatch.delenv("WHENTHEN_URL")
    with pytest.raises(NeedsServer, match=r"connected to none: secrets are kept outside"):
        Secret(value="x").save("y")


def test_of_a_worker_that_does_not_answer_that_is_said() -> None:
    class Hears(SilentReporter):
        def can_answer(self, kind: str) -> bool:
            return False

    token = REPORTER.set(Hears())
    try:
        with pytest.raises(
            NeedsServer, match=r"Secret.save needs a server, and the worker of this run does not answer this: secrets"
        ):
            Secret(value="x").save("y")
    finally:
        REPORTER.reset(token)


def test_unknown_names_lead_to_the_page() -> None:
    for module in ("", ".events", ".deployments", ".blocks.system"):
        with pytest.raises(AttributeError, match=r"docs/prefect.md lists"):
            importlib.import_module(f"whenthen{module}").no_such_name  # noqa: B018
