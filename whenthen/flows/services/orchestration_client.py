"""`get_client`: runs and deployments, of the worker in a run, else of the server at `WHENTHEN_URL`. `SyncClient` asks; `AsyncClient` lets it ask in
a thread.

Deployments are known by their names: `read_deployment_by_name("flow/name")` looks for one of that name, and for `name` when there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Literal, NoReturn, Self, overload
from uuid import UUID

from whenthen.flows.argument_kinds import COUNT, ID, MAPPING, SIZE, TEXT, TRUTH, Kind, check, checked_arguments
from whenthen.flows.clock import utc_now
from whenthen.flows.flow_errors import ConfigurationError, FlowError, NotSupported, ObjectNotFound
from whenthen.flows.services.connected.run_filters import (
    DeploymentFilter,
    FlowRunFilter,
    asked_of,
    deployment_fits,
    run_fits,
)
from whenthen.flows.services.connected.worker_server import WorkerServer
from whenthen.flows.services.server_objects import KnownDeployment, KnownFlowRun, deployment_of, flow_run_of
from whenthen.flows.services.server_requests import ServerAddress, part
from whenthen.flows.services.sync_or_awaited import connected, in_thread
from whenthen.flows.states.state import State, StateType
from whenthen.flows.unsupported import not_supported

__all__ = ["AsyncClient", "SyncClient", "get_client", "refuse_run_options"]

DEFAULT_LIMIT = 200  #: Prefect's own
MAX_PAGE = 1000
NO_FILTERS = "get_client(): filters"
DEPLOYMENT = Kind("the name of a deployment", lambda value: isinstance(value, (str, UUID)))
OF_RUNS = Kind("a FlowRunFilter", lambda value: isinstance(value, FlowRunFilter)).or_none
OF_DEPLOYMENTS = Kind("a DeploymentFilter", lambda value: isinstance(value, DeploymentFilter)).or_none
STATE = Kind("a state, such as Cancelled()", lambda value: isinstance(value, State))


@overload
def get_client(httpx_settings: Any = None, sync_client: Literal[False] = False) -> AsyncClient: ...


@overload
def get_client(httpx_settings: Any = None, *, sync_client: Literal[True]) -> SyncClient: ...


@checked_arguments(sync_client=TRUTH)
def get_client(httpx_settings: Any = None, sync_client: bool = False) -> AsyncClient | SyncClient:
    """A client: `async with get_client() as client`, or `with get_client(sync_client=True) as client`. In a run it asks the run's worker, which
    needs no address and no token, else the server at `WHENTHEN_URL`.

    Raises:
        NeedsServer: this is no run, and `WHENTHEN_URL` is not set.
        NotSupported: `httpx_settings` are given: the client is not made of httpx.
    """
    if httpx_settings is not None:
        not_supported("get_client(httpx_settings=...)", f"{httpx_settings!r:.80}")
    client = SyncClient(WorkerServer() if connected("api") else ServerAddress.of_environment())
    return client if sync_client else AsyncClient(client)


class SyncClient:
    """Asks and waits for the answer.

    Raises, in every method:
        ObjectNotFound: there is no such run or deployment.
        ServerError: no server answers, or it refuses.
    """

    def __init__(self, server: ServerAddress | WorkerServer) -> None:
        self._server = server

    @property
    def api_url(self) -> str:
        return f"{self._server.url}/api"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...

    def api_healthcheck(self) -> Exception | None:
        """What is wrong with the server; None when it answers."""
        try:
            self.hello()
        except FlowError as error:
            return error
        return None

    def hello(self) -> dict[str, Any]:
        """How the server stands."""
        answer: dict[str, Any] = self._server.get("/api/status")
        return answer

    def read_deployment(self, deployment_id: UUID | str) -> KnownDeployment:
        return self.read_deployment_by_name(str(deployment_id))

    def read_deployment_by_name(self, name: str) -> KnownDeployment:
        return deployment_of(self._of_deployment(name, self._server.get))

    @checked_arguments(deployment_filter=OF_DEPLOYMENTS, limit=COUNT.or_none, offset=SIZE)
    def read_deployments(
        self,
        *,
        deployment_filter: DeploymentFilter | None = None,
        limit: int | None = None,
        offset: int = 0,
        sort: Any = None,
        **filters: Any,
    ) -> list[KnownDeployment]:
        """Deployments by name, those that the filter admits; these have no parameters, which `read_deployment` gives."""
        _no_filters(filters, sort)
        fitting = filter(
            deployment_fits(deployment_filter), map(deployment_of, self._server.listed("/api/deployments"))
        )
        return list(islice(fitting, offset, offset + (limit or DEFAULT_LIMIT)))

    def pause_deployment(self, deployment_id: UUID | str) -> None:
        """Pause the schedules of a deployment."""
        self._of_deployment(deployment_id, lambda path: self._server.post(f"{path}/pause"))

    def update_deployment(self, *args: Any, **options: Any) -> NoReturn:
        """Not supported.

        Raises:
            NotSupported: always.
        """
        not_supported("get_client(): update_deployment")

    def resume_deployment(self, deployment_id: UUID | str) -> None:
        """Let the schedules of a deployment go on."""
        self._of_deployment(deployment_id, lambda path: self._server.post(f"{path}/resume"))

    @checked_arguments(parameters=MAPPING.or_none, state=STATE.or_none, idempotency_key=TEXT.or_none)
    def create_flow_run_from_deployment(
        self,
        deployment_id: UUID | str,
        *,
        parameters: dict[str, Any] | None = None,
        context: dict[str, Any] | None = None,
        state: State[Any] | None = None,
        name: str | None = None,
        tags: Iterable[str] | None = None,
        idempotency_key: str | None = None,
        parent_task_run_id: UUID | None = None,
        work_queue_name: str | None = None,
        job_variables: dict[str, Any] | None = None,
        labels: Any = None,
    ) -> KnownFlowRun:
        """Start a run; at the time of a `Scheduled(scheduled_time=...)`, otherwise now.

        Raises:
            NotSupported: an option is given that runs of the server do not have.
        """
        refuse_run_options(flow_run_name=name, tags=tags, work_queue_name=work_queue_name, job_variables=job_variables)
        for option, value in {"context": context, "parent_task_run_id": parent_task_run_id, "labels": labels}.items():
            if value:
                not_supported("get_client(): options of a run", f"{option}={value!r:.80}")
        body: dict[str, Any] = {"parameters": parameters or {}}
        if idempotency_key is not None:
            body["key"] = idempotency_key
        if state is not None:
            if state.type is not StateType.SCHEDULED:
                raise ConfigurationError(f"a run begins as Scheduled; found {state}")
            at = state.state_details.scheduled_time
            body["delay"] = 0 if at is None else max(0.0, (at - utc_now()).total_seconds())
        return flow_run_of(self._of_deployment(deployment_id, lambda path: self._server.post(f"{path}/run", body)))

    def _of_deployment(self, name: UUID | str, ask: Callable[[str], Any]) -> Any:
        """The answer about a deployment, whether its name is the whole of `name` or the part behind the slash."""
        full, short = _deployment_paths(name)
        try:
            return ask(full)
        except ObjectNotFound:
            if full == short:
                raise
        return ask(short)

    def read_flow_run(self, flow_run_id: UUID | str) -> KnownFlowRun:
        return flow_run_of(self._server.get(_run(flow_run_id)))

    @checked_arguments(flow_run_filter=OF_RUNS, deployment_filter=OF_DEPLOYMENTS, limit=COUNT.or_none, offset=SIZE)
    def read_flow_runs(
        self,
        *,
        flow_run_filter: FlowRunFilter | None = None,
        deployment_filter: DeploymentFilter | None = None,
        limit: int | None = None,
        offset: int = 0,
        sort: Any = None,
        **filters: Any,
    ) -> list[KnownFlowRun]:
        """Runs, newest first, those that the filters admit."""
        _no_filters(filters, sort)
        wanted = offset + (limit or DEFAULT_LIMIT)
        asked = asked_of(flow_run_filter, deployment_filter)
        filtered = flow_run_filter is not None or deployment_filter is not None
        items = self._server.listed("/api/runs", limit=MAX_PAGE if filtered else min(wanted, MAX_PAGE), **asked)
        fitting = filter(run_fits(flow_run_filter, deployment_filter), map(flow_run_of, items))
        return list(islice(fitting, offset, wanted))

    @checked_arguments(after=SIZE, limit=COUNT)
    def read_flow_run_logs(self, flow_run_id: UUID | str, *, after: int = 0, limit: int = 1000) -> list[dict[str, Any]]:
        """What a run wrote, line by line. Here it asks for one run; Prefect's `read_logs` takes a filter."""
        page = self._server.get(f"{_run(flow_run_id)}/logs", after=after, limit=limit)
        lines: list[dict[str, Any]] = page["lines"]
        return lines

    @checked_arguments(flow_run_id=ID, state=STATE, force=TRUTH)
    def set_flow_run_state(self, flow_run_id: UUID | str, state: State[Any], force: bool = False) -> KnownFlowRun:
        """Ask a run to end, with `Cancelling()` or `Cancelled()`.

        Raises:
            NotSupported: another state is asked for.
        """
        if state.type not in (StateType.CANCELLING, StateType.CANCELLED):
            not_supported("get_client(): set_flow_run_state", str(state))
        return flow_run_of(self._server.post(f"{_run(flow_run_id)}/cancel"))

    def create_flow_run(self, *args: Any, **options: Any) -> NoReturn:
        """Not supported.

        Raises:
            NotSupported: always.
        """
        not_supported("get_client(): create_flow_run")

    def __getattr__(self, name: str) -> Any:
        raise _unknown(name)


class AsyncClient:
    """`SyncClient` for async code: the same methods, awaited."""

    def __init__(self, client: SyncClient) -> None:
        self._client = client

    @property
    def as_sync(self) -> SyncClient:
        """The client that does the asking."""
        return self._client

    @property
    def api_url(self) -> str:
        return self._client.api_url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None: ...

    async def api_healthcheck(self) -> Exception | None:
        return await in_thread(self._client.api_healthcheck)

    async def hello(self) -> dict[str, Any]:
        return await in_thread(self._client.hello)

    async def read_deployment(self, deployment_id: UUID | str) -> KnownDeployment:
        return await in_thread(lambda: self._client.read_deployment(deployment_id))

    async def read_deployment_by_name(self, name: str) -> KnownDeployment:
        return await in_thread(lambda: self._client.read_deployment_by_name(name))

    async def read_deployments(self, **options: Any) -> list[KnownDeployment]:
        return await in_thread(lambda: self._client.read_deployments(**options))

    async def pause_deployment(self, deployment_id: UUID | str) -> None:
        await in_thread(lambda: self._client.pause_deployment(deployment_id))

    async def resume_deployment(self, deployment_id: UUID | str) -> None:
        await in_thread(lambda: self._client.resume_deployment(deployment_id))

    async def create_flow_run_from_deployment(self, deployment_id: UUID | str, **options: Any) -> KnownFlowRun:
        return await in_thread(lambda: self._client.create_flow_run_from_deployment(deployment_id, **options))

    async def read_flow_run(self, flow_run_id: UUID | str) -> KnownFlowRun:
        return await in_thread(lambda: self._client.read_flow_run(flow_run_id))

    async def read_flow_runs(self, **options: Any) -> list[KnownFlowRun]:
        return await in_thread(lambda: self._client.read_flow_runs(**options))

    async def read_flow_run_logs(self, flow_run_id: UUID | str, **options: Any) -> list[dict[str, Any]]:
        return await in_thread(lambda: self._client.read_flow_run_logs(flow_run_id, **options))

    @checked_arguments()
    async def set_flow_run_state(self, flow_run_id: UUID | str, state: State[Any], force: bool = False) -> KnownFlowRun:
        return await in_thread(lambda: self._client.set_flow_run_state(flow_run_id, state, force))

    async def update_deployment(self, *args: Any, **options: Any) -> NoReturn:
        not_supported("get_client(): update_deployment")

    async def create_flow_run(self, *args: Any, **options: Any) -> NoReturn:
        not_supported("get_client(): create_flow_run")

    def __getattr__(self, name: str) -> Any:
        raise _unknown(name)


def refuse_run_options(**options: Any) -> None:
    """
    Raises:
        NotSupported: one is given; runs of the server have none of them.
    """
    for option, value in options.items():
        if value:
            not_supported(f"run_deployment({option}=...)", f"{value!r:.80}")


def _unknown(name: str) -> Exception:
    if name.startswith("_"):
        return AttributeError(name)
    there = ", ".join(key for key in vars(SyncClient) if not key.startswith("_"))
    return NotSupported(f"get_client().{name} is not supported; the client has {there}")


def _no_filters(filters: dict[str, Any], sort: Any) -> None:
    for name, value in {**filters, "sort": sort}.items():
        if value is not None:
            not_supported(NO_FILTERS, f"{name}={value!r:.80}")


def _deployment_paths(name: UUID | str) -> tuple[str, str]:
    """The paths of a deployment of this name, and of one that is named by the part behind the slash."""
    check("get_client()", {"deployment_id": DEPLOYMENT}, {"deployment_id": name})
    short = str(name).rpartition("/")[2]
    if not short:
        raise ConfigurationError(f"{name!r:.80} is no name of a deployment; write flow/deployment or deployment")
    return f"/api/deployments/{part(str(name))}", f"/api/deployments/{part(short)}"


def _run(flow_run_id: UUID | str) -> str:
    """The path of a run."""
    check("get_client()", {"flow_run_id": ID}, {"flow_run_id": flow_run_id})
    return f"/api/runs/{UUID(str(flow_run_id)).hex}"
