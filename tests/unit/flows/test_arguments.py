"""Arguments of the SDK's public functions are checked in one way: a wrong kind of value, or a name that is not there, is told at the call."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.unit.flows.asking import connected
from whenthen import Flow, Task, flow, serve, tags, task
from whenthen.client.orchestration import PrefectClient, SyncPrefectClient
from whenthen.deployments.runner import RunnerDeployment
from whenthen.exceptions import ArgumentError, NotSupported
from whenthen.flow_runs import wait_for_flow_run
from whenthen.flows.argument_kinds import COUNT, ID, MAPPING, NAMES, NUMBER, SECONDS, SIZE, TEXT, TRUTH
from whenthen.flows.services.server_objects import flow_run_of
from whenthen.flows.services.server_requests import ServerAddress
from whenthen.futures import as_completed, wait
from whenthen.schedules import Cron, Interval, Schedule
from whenthen.states import Cancelled
from whenthen.transactions import transaction

NOWHERE = ServerAddress("http://127.0.0.1:9", None)
MODULES = (
    "artifacts",
    "concurrency.sync",
    "concurrency.asyncio",
    "deployments",
    "events",
    "flow_runs",
    "input",
    "schedules",
    "transactions",
)


@flow
def load(day: str = "today") -> str:
    return day


class Strange:
    """What no argument can be."""


def called(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What it gives, entered or awaited where that is how it is used."""

    async def awaited(value: Any) -> Any:
        return await value

    async def entered(value: Any) -> Any:
        async with value:
            return None

    value = call(*args, **kwargs)
    if hasattr(value, "__aenter__"):
        return asyncio.run(entered(value))
    if inspect.isawaitable(value):
        return asyncio.run(awaited(value))
    if hasattr(value, "__enter__"):
        with value:
            return None
    return value


#: what a call needs besides the argument that is wrong
GIVEN: dict[str, Any] = {
    "names": "db",
    "flow_run_id": uuid4(),
    "deployment_id": "d",
    "name": "d",
    "markdown": "m",
    "table": [],
    "link": "l",
    "image_url": "i",
    "progress": 3,
    "artifact_id": uuid4(),
    "event": "a",
    "resource": {"id": "x"},
    "cron": "0 1 * * *",
    "interval": 60,
    "rrule": "FREQ=DAILY",
    "input_type": int,
    "run_input": 3,
    "state": Cancelled(),
    "backoff_factor": 1,
    "entrypoint": "f.py:f",
    "source": ".",
    "futures": [],
}
#: arguments that take anything: they are values of users, or belong to Prefect's server and change nothing here
ANYTHING = {
    "httpx_settings", "holder", "logger", "wait_for_input", "input_type", "run_input", "default", "value", "image", "version_type",
    "exclude_keys", "names", "validate", "context", "client",
}  # fmt: skip


#: what a message calls an argument
OTHERWISE = {"artifact_id": "id", "name": "flow_run_name"}


def public_calls() -> Iterator[tuple[str, Callable[..., Any]]]:
    for module in MODULES:
        found = importlib.import_module(f"whenthen.{module}")
        for name in found.__all__:
            if inspect.isfunction(value := getattr(found, name)) and name not in ("emit_event", "get_transaction"):
                yield f"{module}.{name}", value
    for kind in (SyncPrefectClient, PrefectClient):
        client = kind(NOWHERE if kind is SyncPrefectClient else SyncPrefectClient(NOWHERE))  # type: ignore[arg-type]  # as each takes it
        for name in (
            "create_flow_run_from_deployment",
            "read_flow_runs",
            "read_deployments",
            "read_flow_run_logs",
            "set_flow_run_state",
        ):
            yield f"{kind.__name__}.{name}", getattr(client, name)
    for name in ("to_deployment", "serve", "deploy", "ato_deployment"):
        yield f"Flow.{name}", getattr(load, name)


CASES = [
    pytest.param(call, name, id=f"{path}-{name}")
    for path, call in public_calls()
    for name, parameter in inspect.signature(call).parameters.items()
    if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and name not in ANYTHING
]


@pytest.mark.parametrize(("call", "name"), CASES)
def test_a_value_that_an_argument_can_not_be_is_refused_by_its_name(call: Callable[..., Any], name: str) -> None:
    parameters = inspect.signature(call).parameters
    given = {
        key: GIVEN[key]
        for key, one in parameters.items()
        if one.default is one.empty and key in GIVEN and one.kind is not one.VAR_KEYWORD
    }
    positional = [key for key, one in parameters.items() if one.kind is one.POSITIONAL_ONLY]
    given[name] = Strange()
    with (
        connected(),
        pytest.raises((ValueError, NotSupported), match=rf"\b({name}|{OTHERWISE.get(name, name)})\b"),
    ):
        called(call, *(given.pop(key) for key in positional), **given)


@pytest.mark.parametrize("call", [pytest.param(call, id=path) for path, call in public_calls()])
def test_a_name_that_a_function_does_not_have_is_refused(call: Callable[..., Any]) -> None:
    parameters = inspect.signature(call).parameters
    given = {
        key: GIVEN[key]
        for key, one in parameters.items()
        if one.default is one.empty and key in GIVEN and one.kind is not one.VAR_KEYWORD
    }
    positional = [key for key, one in parameters.items() if one.kind is one.POSITIONAL_ONLY]
    with connected(), pytest.raises((ArgumentError, NotSupported), match="no_such_argument"):
        called(call, *(given.pop(key) for key in positional), **given, no_such_argument=1)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: serve(load.to_deployment("d"), limt=3), r"serve: there is no argument 'limt'; did you mean 'limit'\? There are"),
        (lambda: load.to_deployment("d", work_pool_name=3), "deployment 'd': work_pool_name is a text, or None; found 3"),
        (lambda: load.to_deployment("d", paused="no"), "deployment 'd': paused is True or False; found 'no'"),
        (lambda: load.to_deployment("d", tags=iter(["a", 3])), "tags is a list of texts"),
        (lambda: load.to_deployment("d", schedules=[{"schedule": {"cron": "0 1 * * *"}, "actve": False}]), "schedule: there is no field 'actve'; did you mean 'active'"),
        (lambda: Cron("0 1 * * *", active="no"), "schedule: active is True or False.*; found 'no'"),
        (lambda: Cron("0 1 * * *", tz="UTC"), "Cron: there is no argument 'tz'; .*There are cron, timezone|Cron: there is no argument 'tz'; there are cron, timezone"),
        (lambda: Interval(60, anchor_date="2026"), "schedule: anchor_date is a datetime.*; found '2026'"),
        (lambda: Schedule(cron=3), "schedule: cron is a text, or None; found 3"),
        (lambda: RunnerDeployment(name="d", description=3), "description is a text"),
        (lambda: flow(log_prints="no")(load.fn), "log_prints is True or False, or None; found 'no'"),
        (lambda: flow(version=2)(load.fn), "version is a text, or None; found 2"),
        (lambda: task(persist_result="false")(load.fn), "persist_result is True or False"),
        (lambda: task(cache_expiration=60)(load.fn), "task 'load': cache_expiration is a timedelta, or None; found 60"),
        (lambda: task(name=3)(load.fn), "task 'load': name is a text"),
        (lambda: task(tags=3)(load.fn), "tags is a list of texts"),
        (lambda: task(tags=["a", 3])(load.fn), "tags is a list of texts"),
        (lambda: called(tags, "a", 3), "tags: new_tags is a list of texts"),
        (lambda: called(transaction, commit_mode="SOMETIMES"), "commit_mode is one of CommitMode: EAGER, LAZY, OFF, or None; found 'SOMETIMES'"),
        (lambda: called(transaction, key=3), "transaction: key is a text"),
        (lambda: wait(3), "wait: futures is a list of futures; found 3"),
        (lambda: wait([3]), r"wait: futures are what \.submit"),
        (lambda: wait([], timeout="5"), "wait: timeout is a number of seconds from 0, or None; found '5'"),
        (lambda: next(as_completed([3])), "as_completed: futures are what"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_shown_with_what_was_found(call: Callable[[], Any], said: str) -> None:
    with pytest.raises(ArgumentError, match=said) as error:
        call()
    assert isinstance(error.value, TypeError)
    assert isinstance(error.value, ValueError)


@pytest.mark.parametrize("timeout", ["5", -1, True, float("nan")])
def test_a_future_takes_seconds_alone(timeout: Any) -> None:
    @flow
    def run() -> None:
        future = task(load.fn).submit()
        for call in (future.wait, future.result):
            with pytest.raises(ArgumentError, match="timeout is a number of seconds"):
                call(timeout=timeout)

    run()


def test_what_prefect_takes_is_taken() -> None:
    made = load.to_deployment(
        "d",
        tags=("b", "a"),
        paused=None,
        parameters=None,
        schedules=(one for one in [Cron("0 1 * * *", parameters=None)]),
    )
    assert (made.tags, made.paused, made.parameters, len(made.schedules)) == (["b", "a"], False, {}, 1)
    assert isinstance(flow(log_prints=1, persist_result=0)(load.fn), Flow)
    assert isinstance(task(tags={"a"}, cache_expiration=timedelta(1), name=None)(load.fn), Task)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (TEXT, ["", "a"], [3, b"a", None]),
        (TRUTH, [True, False, 0, 1], ["no", "True", None, 2, 1.0]),
        (NUMBER, [3, -0.5, float("inf")], ["3", True, float("nan"), 1j]),
        (SECONDS, [0, 0.5, 10**9], [-1, "1", True, float("nan"), None, timedelta(1)]),
        (COUNT, [1, 10**30], [0, -1, 1.0, True, "1"]),
        (SIZE, [0, 3], [-1, 0.0, False]),
        (NAMES, [[], ("a",), {"a"}, iter("ab")], ["a", b"a", {"a": 1}, [3], 3]),
        (MAPPING, [{}, {"a": 1}], [[("a", 1)], {3: 1}, "a"]),
        (ID, [UUID(int=3), UUID(int=3).hex, str(UUID(int=3))], ["x", 3, "", None]),
    ],
    ids=lambda one: "",
)
def test_kinds(kind: Any, good: list[Any], bad: list[Any]) -> None:
    assert [value for value in good if not kind.fits(value)] == []
    assert [value for value in bad if kind.fits(value)] == []
    assert kind.or_none.fits(None)


def test_a_value_whose_repr_raises_is_named_by_its_class() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    with pytest.raises(ArgumentError, match="timeout is a number of seconds from 0, or None; found a Broken"):
        wait([], timeout=Broken())


def test_what_an_option_says_is_done(caplog: pytest.LogCaptureFixture) -> None:
    run = uuid4()
    states = iter(["Scheduled", "Running", "Running", "Completed"])

    def read(body: dict[str, Any]) -> dict[str, Any]:
        return {"id": body["id"], "deployment": "d", "state": next(states)}

    with connected(read_flow_run=read, run_deployment={}), caplog.at_level("INFO", "whenthen.flows"):
        assert wait_for_flow_run(run, poll_interval=0.001, log_states=True).state_name == "Completed"  # type: ignore[arg-type]
    assert [record.getMessage().rpartition(" in state ")[2] for record in caplog.records] == [
        "Scheduled()",
        "Running()",
        "Completed()",
    ]

    class Elsewhere(SyncPrefectClient):
        def read_flow_run(self, flow_run_id: Any) -> Any:
            return flow_run_of({"id": run.hex, "deployment": "elsewhere", "state": "Completed"})

    with connected():
        assert wait_for_flow_run(run, client=Elsewhere(NOWHERE)).deployment_id == "elsewhere"

    with connected(deploy=[str(run)]) as server:
        assert load.to_deployment("d", cron="0 1 * * *").apply(schedules=[{"cron": "0 2 * * *"}]) == run
    assert server.requests[0][1]["deployments"][0]["rule"]["schedules"][0]["cron"] == "0 2 * * *"

    used = logging.getLogger("of the user")
    with caplog.at_level("DEBUG", "of the user"), transaction(logger=used) as txn:
        txn.stage(1, on_commit_hooks=[lambda _: None])
    assert caplog.records[-1].name == "of the user"
