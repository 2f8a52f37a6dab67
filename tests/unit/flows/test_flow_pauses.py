"""Runs that wait for a person, and input of runs: what is checked here, what is asked of a server, and what its answers mean."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel

from tests.unit.flows.asking import connected
from whenthen import flow, pause_flow_run, resume_flow_run, suspend_flow_run, task
from whenthen.exceptions import (
    ArgumentError,
    ConfigurationError,
    FlowInputTimeout,
    FlowPauseTimeout,
    MissingContextError,
    NeedsServer,
    NotPausedError,
    NotSupported,
    ParameterTypeError,
)
from whenthen.flows.flow_errors import Pause
from whenthen.input import RunInput, receive_input, send_input
from whenthen.runtime import flow_run


class Approval(RunInput):
    approved: bool
    note: str = ""


@flow
def ask(kind: Any = None) -> Any:
    return pause_flow_run(wait_for_input=kind, timeout=60, key="k")


def test_without_a_server_a_pause_says_what_it_needs() -> None:
    for call in (ask, flow(lambda: suspend_flow_run(), name="s"), lambda: resume_flow_run(uuid4())):
        with pytest.raises(NeedsServer, match="a server"):
            call()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (pause_flow_run, "Flow runs can only be paused from within a flow run"),
        (suspend_flow_run, "Flow runs can only be suspended from within a flow run"),
        (task(pause_flow_run), "can only be paused from within a flow run"),
        (flow(lambda: task(suspend_flow_run)(), name="b"), "Cannot suspend task runs"),
        (flow(lambda: flow(suspend_flow_run)(), name="c"), "Cannot suspend subflows"),
    ],
)
def test_where_nothing_can_be_paused_that_is_said(call: Any, said: str) -> None:
    with connected(), pytest.raises(RuntimeError, match=said):
        call()


def test_a_task_pauses_the_run_of_its_flow() -> None:
    @flow
    def outer() -> tuple[Any, str]:
        return task(pause_flow_run)(wait_for_input=int), flow_run.id

    with connected(pause_flow_run={"input": 3}) as server:
        found, run = outer()
    assert (found, server.requests[0][1]["flow_run_id"]) == (3, run)


def test_a_resumed_run_gets_its_input() -> None:
    with connected(pause_flow_run={"input": {"approved": "yes"}}) as server:
        found = ask(Approval.with_initial_data(description="Look at it", note="n"))
        assert (found.approved, found.note) == (True, "n")
        assert ask() is None
    kind, body = server.requests[0]
    assert kind == "pause_flow_run"
    assert (body["timeout_s"], body["key"], body["description"]) == (60, "k", "Look at it")
    assert set(body["schema"]["properties"]) == {"approved", "note"}
    with connected(pause_flow_run={"input": 3}):
        assert ask(int) == 3
        assert ask(list[int] | int) == 3
    with connected(pause_flow_run={"input": {"n": 3}}), pytest.raises(ParameterTypeError, match="input of the run"):
        ask(Approval)
    with connected(pause_flow_run={"timed_out": True}), pytest.raises(FlowPauseTimeout):
        ask()


def test_an_async_run_waits_without_keeping_the_loop() -> None:
    @flow
    async def wait() -> tuple[Any, int]:
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while not answered:
                turns += 1
                await asyncio.sleep(0)

        answered: list[int] = []

        async def answer() -> Any:
            found = await pause_flow_run(wait_for_input=int)
            answered.append(found)
            return found

        return (await asyncio.gather(answer(), turn()))[0], turns

    with connected(pause_flow_run={"input": 3}):
        found, turns = asyncio.run(wait())
    assert found == 3
    assert turns > 0


def test_a_suspended_run_ends_its_process() -> None:
    @flow
    def wait() -> Any:
        return suspend_flow_run(wait_for_input=Approval)

    with connected(suspend_flow_run={"suspended": True}), pytest.raises(Pause):
        wait()
    with connected(suspend_flow_run={"input": {"approved": False}}):
        assert wait() == Approval(approved=False)
    other = uuid4()
    with connected(suspend_flow_run={}) as server:
        suspend_flow_run(flow_run_id=other)
    assert server.requests[0][1]["flow_run_id"] == str(other)


def test_resuming_says_what_became_of_it() -> None:
    run = uuid4()
    with connected(resume_flow_run={}) as server:
        assert resume_flow_run(run, {"approved": True}) is None
    assert server.requests == [("resume_flow_run", {"flow_run_id": str(run), "input": {"approved": True}})]
    with connected(resume_flow_run={"not_paused": True}), pytest.raises(NotPausedError):
        resume_flow_run(run)
    with connected(resume_flow_run={"timed_out": True}), pytest.raises(FlowPauseTimeout):
        resume_flow_run(run)
    with pytest.raises(ValueError, match="flow_run_id is the id of a run, a UUID or its text; found 'x'"):
        resume_flow_run("x")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [3, "x", Approval(approved=True), object()])
def test_input_has_a_type(kind: Any) -> None:
    with connected(), pytest.raises(ConfigurationError, match="input of a run has a type"):
        ask(kind)


@pytest.mark.parametrize("timeout", [-1, "1h"])
def test_a_time_out_is_seconds(timeout: Any) -> None:
    for call in (pause_flow_run, suspend_flow_run):
        with pytest.raises(ValueError, match=r"timeout is a number of seconds from 0.*; found"):
            call(timeout=timeout)


def test_initial_data_are_fields_of_the_model() -> None:
    made = Approval.with_initial_data(description="d", note="n")
    assert (made.__name__, made(approved=True).note, made._description, Approval._description) == (
        "Approval",
        "n",
        "d",
        None,
    )
    with pytest.raises(ConfigurationError, match="Approval has no field 'nte'; it has approved, note"):
        Approval.with_initial_data(nte="n")


def test_input_is_sent_and_received_one_after_the_other() -> None:
    class Item(BaseModel):
        n: int

    sent = [{"key": "a", "value": {"n": 1}}, {"key": "b", "value": {"n": 2}}, None]

    @flow
    def read() -> list[int]:
        return [item.n for item in receive_input(Item, timeout=5)]

    @flow
    async def aread() -> list[int]:
        return [item.n async for item in receive_input(Item, timeout=5)]

    for run in (read, lambda: asyncio.run(aread())):
        left = list(sent)
        with connected(receive_input=lambda body, left=left: left.pop(0)) as server:
            assert run() == [1, 2]
        assert [body["after"] for _, body in server.requests] == [None, "a", "b"]
    receiver = uuid4()
    with connected(send_input=None) as server:
        send_input(Item(n=3), receiver, sender="me")
        Approval(approved=True).send_to(receiver)
    assert [body["value"] for _, body in server.requests] == [{"n": 3}, {"approved": True, "note": ""}]


def test_input_that_does_not_come_ends_the_loop_or_raises() -> None:
    @flow
    def read() -> UUID:
        assert list(Approval.receive(timeout=0)) == []
        with pytest.raises(FlowInputTimeout):
            next(iter(Approval.receive(timeout=0, raise_timeout_error=True)))
        return UUID(flow_run.id)

    with connected(receive_input=None) as server:
        run = read()
    assert server.requests[0][1]["flow_run_id"] == str(run)
    with pytest.raises(MissingContextError, match="elsewhere give flow_run_id"):
        receive_input(int)
    for call in (
        lambda: receive_input(int, flow_run_id=uuid4()).next(),
        lambda: send_input(3, uuid4()),
        lambda: Approval(approved=True).send_to(uuid4()),
    ):
        with pytest.raises(NeedsServer, match=r"RunInput needs a server, .*: give it as a parameter of the flow"):
            call()


def test_an_answer_goes_to_the_run_that_sent_the_input() -> None:
    sender = uuid4()

    @flow
    def host() -> Approval:
        given: Approval = Approval.receive(timeout=1).next()
        given.respond(Approval(approved=False, note=given.note))
        return given

    sent = {"key": "k-1", "value": {"approved": True, "note": "n"}, "sender": f"prefect.flow-run.{sender}"}
    with connected(receive_input=sent, send_input=None) as server:
        given = host()
    received, answered = (body for _, body in server.requests)
    assert (given.metadata.key, given.metadata.sender) == ("k-1", sent["sender"])
    assert str(given.metadata.receiver) == received["flow_run_id"]
    assert answered == {
        "flow_run_id": str(sender),
        "value": {"approved": False, "note": "n"},
        "sender": f"prefect.flow-run.{received['flow_run_id']}",
        "key_prefix": None,
    }


@pytest.mark.parametrize(("sender", "found"), [(None, "None"), ("ada", "'ada'")])
def test_what_no_run_sent_can_not_be_answered(sender: str | None, found: str) -> None:
    with connected(receive_input={"key": "k", "value": {"approved": True}, "sender": sender}):
        given: Approval = Approval.receive(flow_run_id=uuid4()).next()
    with pytest.raises(MissingContextError, match=f"not sent by a flow run: its sender is {found}"):
        given.respond(given)
    with pytest.raises(MissingContextError, match="Approval was not received"):
        Approval(approved=True).respond(given)


def test_what_input_can_not_do_is_refused_by_name() -> None:
    with pytest.raises(NotSupported, match=r"receive_input\(with_metadata=True\).*receive a RunInput"):
        receive_input(int, flow_run_id=uuid4(), with_metadata=True)
    with pytest.raises(NotSupported, match=r"receive_input\(exclude_keys=...\)"):
        Approval.receive(flow_run_id=uuid4(), exclude_keys={"k"})
    with connected(), pytest.raises(ArgumentError, match="input of a run is JSON; found <object object"):
        send_input(object(), uuid4())
