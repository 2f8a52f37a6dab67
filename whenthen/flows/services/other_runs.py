"""`run_deployment` and `wait_for_flow_run`: runs of other deployments, started through the reporter or over HTTP, and waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from whenthen.flows.argument_kinds import (
    ID,
    MAPPING,
    SECONDS,
    TEXT,
    TIME,
    TRUTH,
    Kind,
    bound_arguments,
    check,
    checked_arguments,
)
from whenthen.flows.clock import sleep, steady
from whenthen.flows.execution.run_contexts import FLOW, place_given_away
from whenthen.flows.execution.run_logging import engine_logger
from whenthen.flows.flow_errors import FlowRunWaitTimeout
from whenthen.flows.services.orchestration_client import DEPLOYMENT, AsyncClient, SyncClient, refuse_run_options
from whenthen.flows.services.server_objects import KnownFlowRun, flow_run_of
from whenthen.flows.services.server_requests import ServerAddress
from whenthen.flows.services.sync_or_awaited import asked, connected, in_thread, sync_or_awaited
from whenthen.flows.states.state import Scheduled

__all__ = ["arun_deployment", "run_deployment", "wait_for_flow_run"]

POLL_S = 5.0
LONGEST_WAIT_S = 10_800

CLIENT = Kind("a client, as get_client() gives it", lambda value: isinstance(value, (SyncClient, AsyncClient))).or_none
OF_RUN_DEPLOYMENT = {
    "name": DEPLOYMENT,
    "client": CLIENT,
    "parameters": MAPPING.or_none,
    "scheduled_time": TIME.or_none,
    "timeout": SECONDS.or_none,
    "poll_interval": SECONDS.or_none,
    "idempotency_key": TEXT.or_none,
    "as_subflow": TRUTH.or_none,
}


@checked_arguments()
def run_deployment(
    name: str | UUID,
    client: Any = None,
    parameters: dict[str, Any] | None = None,
    scheduled_time: datetime | None = None,
    flow_run_name: str | None = None,
    timeout: float | None = None,
    poll_interval: float | None = POLL_S,
    tags: Iterable[str] | None = None,
    idempotency_key: str | None = None,
    work_queue_name: str | None = None,
    as_subflow: bool | None = True,
    job_variables: dict[str, Any] | None = None,
) -> Any:
    """Start a run of a deployment and wait for its end, for `timeout` seconds at most; 0 does not wait. Gives the run as it then is.

    In an async run a coroutine of it. The server is that of `client`, else the one that a reporter connects the run to, else the one at
    `WHENTHEN_URL`. Runs of the server have no parent, whatever `as_subflow` says.

    Raises:
        ObjectNotFound: there is no such deployment.
        NotSupported: an option is given that runs of the server do not have.
        NeedsServer: there is no server.
    """
    given = dict(locals())
    return sync_or_awaited(_start(given))


async def arun_deployment(name: str | UUID, **options: Any) -> KnownFlowRun:
    """`run_deployment` for async callers."""
    return await in_thread(_start(bound_arguments(run_deployment, name, **options)))


@checked_arguments(
    flow_run_id=ID,
    timeout=SECONDS.or_none,
    poll_interval=SECONDS.or_none,
    client=CLIENT,
    log_states=TRUTH,
)
def wait_for_flow_run(
    flow_run_id: UUID,
    timeout: int | None = LONGEST_WAIT_S,
    poll_interval: int | None = None,
    client: Any = None,
    log_states: bool = False,
) -> Any:
    """A run when it has ended; in an async run a coroutine of it. `log_states` logs each state that it is found in.

    Raises:
        FlowRunWaitTimeout: it has not ended within `timeout` seconds.
        NeedsServer: there is no server.
    """

    def wait() -> KnownFlowRun:
        found = _waited(_reader(client), flow_run_id, timeout, poll_interval or POLL_S, log_states=log_states)
        if not found.state.is_final():
            raise FlowRunWaitTimeout(f"run {flow_run_id} has not ended within {timeout} seconds: {found.state}")
        return found

    return sync_or_awaited(wait)


class _ByReporter:
    """Reads runs through the reporter."""

    def read_flow_run(self, flow_run_id: UUID) -> KnownFlowRun:
        return flow_run_of(asked("read_flow_run", {"id": UUID(str(flow_run_id)).hex}))


def _reader(client: SyncClient | AsyncClient | None) -> _ByReporter | SyncClient:
    if client is not None:
        return client.as_sync if isinstance(client, AsyncClient) else client
    return _ByReporter() if connected("run_deployment") else SyncClient(ServerAddress.of_environment("run_deployment"))


def _start(given: Mapping[str, Any]) -> Callable[[], KnownFlowRun]:
    """What starts the run and waits, once the arguments of `run_deployment` are checked."""
    check("run_deployment", OF_RUN_DEPLOYMENT, given)
    refuse_run_options(**{name: given[name] for name in ("flow_run_name", "tags", "work_queue_name", "job_variables")})
    timeout, at = given["timeout"], given["scheduled_time"]
    if at is not None and at.tzinfo is None:
        at = at.replace(tzinfo=UTC)

    def run() -> KnownFlowRun:
        reader = _reader(given["client"])
        started = _started(reader, str(given["name"]), given["parameters"] or {}, at, given["idempotency_key"])
        return started if timeout == 0 else _waited(reader, started.id, timeout, given["poll_interval"] or POLL_S)

    return run


def _started(
    reader: _ByReporter | SyncClient, name: str, parameters: dict[str, Any], at: datetime | None, key: str | None
) -> KnownFlowRun:
    if isinstance(reader, SyncClient):
        state = None if at is None else Scheduled(scheduled_time=at)
        return reader.create_flow_run_from_deployment(name, parameters=parameters, state=state, idempotency_key=key)
    body = {
        "name": name,
        "parameters": parameters,
        "scheduled_time": None if at is None else at.isoformat(),
        "key": key,
    }
    return flow_run_of(asked("run_deployment", body))


def _waited(
    reader: _ByReporter | SyncClient, run_id: UUID, timeout: float | None, poll_s: float, *, log_states: bool = False
) -> KnownFlowRun:
    """The run, ended or not, after `timeout` seconds at the latest."""
    until = None if timeout is None else steady() + timeout
    flow = FLOW.get()
    shown: str | None = None
    while True:
        run = reader.read_flow_run(run_id)
        if log_states and run.state_name != shown:
            shown = run.state_name
            engine_logger().info("run %s is in state %s", run_id, run.state)
        left_s = poll_s if until is None else until - steady()
        if run.state.is_final() or left_s <= 0:
            return run
        with place_given_away():
            if flow is None:
                sleep(min(poll_s, left_s))
            else:
                flow.scope.sleep(min(poll_s, left_s))
