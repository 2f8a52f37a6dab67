"""The routes of the HTTP API that the code of one attempt may ask its worker for: runs and deployments, as `get_client` in a run does.

`{"method", "path", "query", "body"}` gives `{"value", "following"}`: what the API answers, as far as the SDK reads it, and the query of the page
after it. Called by `run_requests`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any, Final
from urllib.parse import unquote

import orjson

from whenthen import __version__
from whenthen.runs.limits.pause_flags import is_paused
from whenthen.runs.orchestrator import BuiltInOrchestrator
from whenthen.runs.run_states import shown_run
from whenthen.runs.stores import Flag, RunFilter, Stores
from whenthen.schemas.deployments import Deployment, FlowRun, RunState
from whenthen.schemas.errors import InvalidInput, NotFound, did_you_mean

__all__ = ["ApiRequests"]

MOST_ITEMS: Final = 1000  #: of one page
PAGE_BYTES: Final = 400_000  #: of one page: an answer is a line of 1 MiB at most
MOST_LINES: Final = 10_000

Start = Callable[[str, dict[str, Any]], Awaitable[FlowRun]]


class ApiRequests:
    """Answers one attempt."""

    def __init__(self, stores: Stores, orchestrator: BuiltInOrchestrator, *, start: Start) -> None:
        """`start` starts a run of a deployment for a body of `POST /api/deployments/{name}/run`."""
        self._stores = stores
        self._orchestrator = orchestrator
        self._start = start

    async def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """
        Raises:
            InvalidInput, NotFound, Conflict, BusUnavailable: said to who asked.
        """
        query, sent = body.get("query"), body.get("body")
        query, sent = (query if isinstance(query, dict) else {}), (sent if isinstance(sent, dict) else {})
        path = str(body.get("path"))
        match str(body.get("method")), *[unquote(step) for step in path.split("/")[1:]]:
            case "GET", "api", "status":
                return _value({"version": __version__})
            case "GET", "api", "deployments":
                return await self._deployments(query)
            case "GET", "api", "deployments", name:
                return await self._deployment(name)
            case "POST", "api", "deployments", name, "run":
                return _value(shown_run(await self._start(name, sent)))
            case "POST", "api", "deployments", name, "pause":
                await self._orchestrator.pause_deployment(name)
                return await self._deployment(name)
            case "POST", "api", "deployments", name, "resume":
                await self._orchestrator.resume_deployment(name)
                return await self._deployment(name)
            case "GET", "api", "runs":
                return await self._runs(query)
            case "GET", "api", "runs", run_id:
                return _value(await self._run(run_id))
            case "GET", "api", "runs", run_id, "logs":
                return _value(await self._logs(run_id, query))
            case "POST", "api", "runs", run_id, "cancel":
                await self._orchestrator.cancel_flow_run(run_id)
                return _value(await self._run(run_id))
        raise NotFound(f"a worker does not answer {body.get('method')} {path[:200]}; ask a server, at WHENTHEN_URL")

    async def _deployments(self, query: Mapping[str, Any]) -> dict[str, Any]:
        known, flags = self._orchestrator.deployments.current(), await self._stores.flags.all()
        found: list[dict[str, Any]] = []
        names, after, size = list(known), str(query.get("after") or ""), 0
        start = names.index(after) + 1 if after in known else 0
        for name in names[start:]:
            item = _summary(known[name], flags)
            size += len(orjson.dumps(item))
            if found and size > PAGE_BYTES:
                return _value(found, {"after": found[-1]["name"]})
            found.append(item)
        return _value(found)

    async def _deployment(self, name: str) -> dict[str, Any]:
        return _value(_detail(self._orchestrator.deployment(name), await self._stores.flags.all()))

    async def _run(self, run_id: str) -> dict[str, Any]:
        return shown_run((await self._orchestrator.get_flow_run(run_id)).run)

    async def _runs(self, query: Mapping[str, Any]) -> dict[str, Any]:
        state, before = query.get("state"), str(query.get("before") or "")
        created, _, run_id = before.partition("/")
        if state is not None and state not in set(RunState):
            raise InvalidInput(
                f"{str(state)[:80]!r} is no state{did_you_mean(str(state), list(RunState))}", path=("state",)
            )
        wanted = RunFilter(
            deployment=query.get("deployment"),
            states=None if state is None else frozenset({RunState(state)}),
            before=(created, run_id) if before else None,
        )
        page = await self._stores.runs.list(
            wanted, limit=_number(query, "limit", 50, MOST_ITEMS), most_bytes=PAGE_BYTES
        )
        last = page[-1].run if page.more and page else None
        return _value(
            [shown_run(stored.run) for stored in page],
            None if last is None else {"before": f"{last.created}/{last.id}"},
        )

    async def _logs(self, run_id: str, query: Mapping[str, Any]) -> dict[str, Any]:
        run = (await self._orchestrator.get_flow_run(run_id)).run
        found = await self._orchestrator.log_page(
            run.id,
            after=_number(query, "after", 0, 1 << 53),
            limit=_number(query, "limit", 1000, MOST_LINES),
            most_bytes=PAGE_BYTES,
        )
        return {
            "lines": [asdict(line) for line in found.lines],
            "next": found.next,
            "more": found.more,
        }


def _value(value: Any, following: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"value": value, "following": following}


def _summary(deployment: Deployment, flags: Mapping[str, Flag]) -> dict[str, Any]:
    return {
        "name": deployment.name,
        "description": deployment.description,
        "tags": deployment.tags,
        "work_pool": deployment.work_pool,
        "schedules": [
            {
                "name": schedule.name,
                "when": schedule.cron or schedule.rrule or f"every {schedule.interval}",
                "timezone": schedule.timezone,
                "paused": is_paused(deployment.name, schedule, flags),
            }
            for schedule in deployment.schedules
        ],
    }


def _detail(deployment: Deployment, flags: Mapping[str, Flag]) -> dict[str, Any]:
    limits = deployment.limits
    return {
        **_summary(deployment, flags),
        "entrypoint": deployment.entrypoint,
        "parameters": deployment.parameters,
        "concurrency_limit": None if limits is None or limits.key else limits.limit,
    }


def _number(query: Mapping[str, Any], name: str, otherwise: int, most: int) -> int:
    found = query.get(name, otherwise)
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= most:
        raise InvalidInput(f"a number up to {most}", path=(name,))
    return found
