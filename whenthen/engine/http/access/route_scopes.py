"""What each route needs: the one table, and the kind of route that does not exist without a line in it.

    router = APIRouter(prefix="/api", route_class=ScopedRoute)

A route that is not in `ROUTES` can not be built. `app` looks up here what it answers itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from fastapi import Request, Response
from fastapi.routing import APIRoute

from whenthen.engine.access import AccessScope
from whenthen.engine.http.access.admission import Admission, Entry
from whenthen.engine.http.answers import Scope
from whenthen.engine.http.models.known_parameters import check_repeated, single_parameters
from whenthen.schemas.errors import BusUnavailable, WhenthenError

__all__ = ["ADMISSION", "ENTRY", "ROUTES", "Need", "ScopedRoute", "need_of", "until_refused"]

#: in the scope of a request: its `Entry`, and the `Admission` that makes it
ENTRY = "whenthen.entry"
ADMISSION = "whenthen.admission"


LOOK_AGAIN_S = 1.0  #: at who listens to an answer that goes on


class Need(StrEnum):
    """What a route needs beside a scope."""

    NOTHING = "nothing"  #: answers everybody; or, as a webhook does, proves by itself who sends
    TOKEN = "token"  #: any token, whatever its scopes


_READ, _EMIT, _OPERATE, _ADMIN = AccessScope.READ, AccessScope.EMIT, AccessScope.OPERATE, AccessScope.ADMIN

ROUTES: Final[Mapping[tuple[str, str], Need | AccessScope]] = MappingProxyType(
    {
        ("POST", "/hooks/{name}"): Need.NOTHING,
        ("GET", "/healthz"): Need.NOTHING,
        ("GET", "/readyz"): Need.NOTHING,
        ("GET", "/metrics"): Need.NOTHING,
        ("GET", "/asyncapi.json"): Need.NOTHING,
        ("GET", "/openapi.json"): Need.NOTHING,
        ("GET", "/login"): Need.NOTHING,
        ("POST", "/login"): Need.NOTHING,
        ("POST", "/logout"): Need.TOKEN,
        ("GET", "/ui/{name}"): Need.NOTHING,
        ("GET", "/"): _READ,
        ("GET", "/automations"): _READ,
        ("GET", "/automation"): _READ,
        ("POST", "/automation/pause"): _OPERATE,
        ("POST", "/automation/resume"): _OPERATE,
        ("GET", "/why"): _READ,
        ("GET", "/trace"): _READ,
        ("GET", "/system"): _READ,
        ("GET", "/events"): _READ,
        ("GET", "/event"): _READ,
        ("GET", "/recorded"): _READ,
        ("GET", "/firings"): _READ,
        ("GET", "/firing"): _READ,
        ("GET", "/actions"): _READ,
        ("GET", "/actions/dead"): _READ,
        ("POST", "/actions/dead"): _OPERATE,
        ("GET", "/runs"): _READ,
        ("GET", "/run"): _READ,
        ("POST", "/run/cancel"): _OPERATE,
        ("POST", "/run/again"): _OPERATE,
        ("POST", "/run/resume"): _OPERATE,
        ("POST", "/run/suspend"): _OPERATE,
        ("POST", "/run/delete"): _OPERATE,
        ("GET", "/sources"): _READ,
        ("GET", "/sources/resend"): _READ,
        ("POST", "/sources/resend"): _OPERATE,
        ("GET", "/try"): _READ,
        # touches nothing
        ("POST", "/try"): _READ,
        ("GET", "/api/session"): Need.TOKEN,
        ("POST", "/api/login-addresses"): Need.TOKEN,
        ("GET", "/api/tokens"): _ADMIN,
        ("POST", "/api/tokens"): _ADMIN,
        ("POST", "/api/tokens/{name}/revoke"): _ADMIN,
        ("GET", "/api/status"): _READ,
        ("GET", "/api/backup"): _ADMIN,
        ("POST", "/api/events"): _EMIT,
        ("GET", "/api/events"): _READ,
        ("GET", "/api/log"): _READ,
        ("GET", "/api/stream"): _READ,
        ("GET", "/api/events/{event_id:path}"): _READ,
        ("GET", "/api/automations"): _READ,
        ("GET", "/api/automations/{name}"): _READ,
        ("GET", "/api/automations/{name}/decisions"): _READ,
        ("GET", "/api/automations/{name}/windows"): _READ,
        ("POST", "/api/automations/{name}/pause"): _OPERATE,
        ("POST", "/api/automations/{name}/resume"): _OPERATE,
        ("GET", "/api/orphans"): _READ,
        ("POST", "/api/orphans/{name}/forget"): _OPERATE,
        ("GET", "/api/firings"): _READ,
        ("GET", "/api/firings/{firing_id}"): _READ,
        ("GET", "/api/deployments"): _READ,
        ("GET", "/api/deployments/{name}"): _READ,
        ("POST", "/api/deployments/{name}/run"): _OPERATE,
        ("POST", "/api/deployments/{name}/pause"): _OPERATE,
        ("POST", "/api/deployments/{name}/resume"): _OPERATE,
        ("GET", "/api/deployments/{name}/backfill"): _READ,
        ("POST", "/api/deployments/{name}/backfill"): _OPERATE,
        ("GET", "/api/work-pools"): _READ,
        ("POST", "/api/work-pools/{name}/pause"): _OPERATE,
        ("POST", "/api/work-pools/{name}/resume"): _OPERATE,
        ("GET", "/api/workers"): _READ,
        ("GET", "/api/runs"): _READ,
        ("GET", "/api/runs/{run_id}"): _READ,
        ("GET", "/api/runs/{run_id}/task-runs"): _READ,
        ("GET", "/api/runs/{run_id}/logs"): _READ,
        ("POST", "/api/runs/{run_id}/cancel"): _OPERATE,
        ("POST", "/api/runs/{run_id}/retry"): _OPERATE,
        ("POST", "/api/runs/{run_id}/resume"): _OPERATE,
        ("POST", "/api/runs/{run_id}/pause"): _OPERATE,
        ("POST", "/api/runs/{run_id}/suspend"): _OPERATE,
        ("POST", "/api/runs/{run_id}/state"): _OPERATE,
        ("POST", "/api/runs/{run_id}/delete"): _OPERATE,
        ("GET", "/api/variables"): _READ,
        ("GET", "/api/variables/{name}"): _READ,
        ("POST", "/api/variables/{name}"): _OPERATE,
        ("POST", "/api/variables/{name}/unset"): _OPERATE,
        ("GET", "/api/artifacts"): _READ,
        ("GET", "/api/artifacts/{artifact_id}"): _READ,
        ("GET", "/api/limits"): _READ,
        ("POST", "/api/leases"): _OPERATE,
        ("POST", "/api/leases/{lease}/renew"): _OPERATE,
        ("POST", "/api/leases/{lease}/release"): _OPERATE,
        ("GET", "/api/actions"): _READ,
        ("GET", "/api/actions/{key}"): _READ,
        ("GET", "/api/actions/dead/count"): _READ,
        ("POST", "/api/actions/{key}/redrive"): _OPERATE,
        ("POST", "/api/actions/{key}/drop"): _OPERATE,
        ("GET", "/api/record"): _READ,
        ("GET", "/api/trace/{wanted:path}"): _READ,
        ("GET", "/api/why"): _READ,
        ("GET", "/api/audit"): _READ,
        ("GET", "/api/sources"): _READ,
        ("GET", "/api/sources/refused"): _READ,
        ("POST", "/api/sources/resend"): _OPERATE,
        ("POST", "/api/sources/try"): _OPERATE,  # it says whether a proof holds
        ("GET", "/api/history"): _READ,
        ("GET", "/api/history/{of}"): _READ,
        ("GET", "/api/history/{of}/counts"): _READ,
        ("GET", "/api/rules/revisions"): _READ,
        ("GET", "/api/rules/revisions/{number}"): _READ,
        ("POST", "/api/rules/reload"): _OPERATE,
        ("POST", "/api/rules/plan"): _OPERATE,
        # rules start commands
        ("POST", "/api/rules/apply"): _ADMIN,
        ("POST", "/api/rules/deployments"): _ADMIN,
        ("POST", "/api/rules/revisions/{number}/rollback"): _ADMIN,
    }
)


def need_of(method: str, path: str) -> Need | AccessScope:
    """What the route needs that takes `method` at `path`, a template.

    Raises:
        LookupError: there is no line for it.
    """
    try:
        return ROUTES[method, path]
    except KeyError:
        raise LookupError(f"{method} {path} has no line in whenthen.engine.http.access.route_scopes.ROUTES") from None


async def until_refused(request: Scope) -> None:
    """Return when a request that was admitted would not be any more: its token was revoked, or its session is over.

    For answers that go on for as long as somebody listens. While NATS is away they do.
    """
    admission: Admission = request[ADMISSION]
    need = need_of(request["method"], request["route"].path)
    while True:
        await asyncio.sleep(LOOK_AGAIN_S)
        try:
            admission.check(await admission.enter(request), need if isinstance(need, AccessScope) else None)
        except BusUnavailable:
            continue
        except WhenthenError:
            return


class ScopedRoute(APIRoute):
    """A route that is answered to whoever has what its line in `ROUTES` says."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        for method in self.methods or ():
            need_of(method, self.path)
        self._single = single_parameters(self)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def admitted(request: Request) -> Response:
            need = need_of(request.method, self.path)
            if need is not Need.NOTHING:
                admission: Admission = request.scope[ADMISSION]
                entry: Entry | None = request.scope.get(ENTRY)
                if entry is None:  # below /api `app` has asked already
                    entry = request.scope[ENTRY] = await admission.enter(request.scope)
                await admission.check_route(entry, need if isinstance(need, AccessScope) else None, request)
            check_repeated(request, self._single)
            return await handle(request)

        return admitted
