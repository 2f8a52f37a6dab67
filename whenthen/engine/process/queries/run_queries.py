"""Flow runs and their logs."""

from __future__ import annotations

from dataclasses import asdict

from whenthen.engine.http import Listing, Page
from whenthen.engine.http import answer_models as answers
from whenthen.engine.process.id_prefixes import IdPrefixes
from whenthen.runs import BuiltInOrchestrator, RunFilter
from whenthen.schemas.deployments import (
    TERMINAL,
    FlowRun,
    RunState,
    is_run_id,
)
from whenthen.schemas.errors import InvalidInput

__all__ = ["RunQueries", "flow_run_detail"]

_PAGE_BYTES = 4_000_000  #: of the text of a log in one answer


class RunQueries:
    def __init__(self, orchestrator: BuiltInOrchestrator, ids: IdPrefixes) -> None:
        self._orchestrator = orchestrator
        self._ids = ids

    async def list_runs(self, page: Page) -> Listing[answers.FlowRunDetail]:
        state = page.choice("state", [state.value for state in RunState])
        states = None if state is None else frozenset({RunState(state)})
        wanted = RunFilter(
            deployment=page.filters.get("deployment"),
            states=states,
            work_pool=page.filters.get("work_pool"),
            before=None if page.before is None else _cursor(page.before),
        )
        runs = await self._orchestrator.flow_run_page(wanted, limit=page.limit)
        found = Listing(flow_run_detail(stored.run) for stored in runs)
        if runs.more:
            found.following = {"before": f"{runs[-1].run.created}/{runs[-1].run.id}"}
        return found

    async def get_run(self, run_id: str) -> answers.FlowRunDetail:
        return flow_run_detail((await self._orchestrator.get_flow_run(await self._ids.run(run_id))).run)

    async def run_logs(self, run_id: str, *, after: int, limit: int) -> answers.LogPage:
        run_id = await self._ids.run(run_id)
        run = (await self._orchestrator.get_flow_run(run_id)).run
        found = await self._orchestrator.log_page(run_id, after=after, limit=limit, most_bytes=_PAGE_BYTES)
        return answers.LogPage(
            lines=[answers.LogItem(**asdict(line)) for line in found.lines],
            next=found.next,
            more=found.more,
            done=run.state in TERMINAL and not found.more,
        )


def flow_run_detail(run: FlowRun) -> answers.FlowRunDetail:
    """A flow run as it is answered."""
    return answers.FlowRunDetail.model_validate(run, from_attributes=True)


def _cursor(text: str) -> tuple[str, str]:
    """When the last run of the page before was created, and its id."""
    created, _, run_id = text.partition("/")
    if not created or not is_run_id(run_id):
        raise InvalidInput(f"{text[:80]!r} is no place in the list of runs; follow its `Link`", path=("before",))
    return created, run_id
