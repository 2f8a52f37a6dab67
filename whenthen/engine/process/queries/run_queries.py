"""Flow runs and what they wrote."""

from __future__ import annotations

from dataclasses import asdict

from whenthen.engine.http import Page
from whenthen.engine.http import answer_models as answers
from whenthen.engine.process.id_prefixes import IdPrefixes
from whenthen.runs import BuiltInOrchestrator
from whenthen.schemas import TERMINAL, FlowRun, InvalidInput, RunState

__all__ = ["RunQueries", "flow_run_detail"]


class RunQueries:
    def __init__(self, orchestrator: BuiltInOrchestrator, ids: IdPrefixes) -> None:
        self._orchestrator = orchestrator
        self._ids = ids

    async def list_runs(self, page: Page) -> list[answers.FlowRunDetail]:
        states = None
        if "state" in page.filters:
            states = frozenset({_run_state(page.filters["state"])})
        runs = await self._orchestrator.list_flow_runs(
            deployment=page.filters.get("deployment"), states=states, limit=page.limit
        )
        pool = page.filters.get("work_pool")
        return [flow_run_detail(run) for run in runs if pool is None or run.work_pool == pool]

    async def get_run(self, run_id: str) -> answers.FlowRunDetail:
        return flow_run_detail((await self._orchestrator.get_flow_run(await self._ids.run(run_id))).run)

    async def run_logs(self, run_id: str, *, after: int, limit: int) -> answers.LogPage:
        run_id = await self._ids.run(run_id)
        run = (await self._orchestrator.get_flow_run(run_id)).run
        lines = await self._orchestrator.logs(run_id)
        shown = lines[after : after + limit]
        following = after + len(shown)
        return answers.LogPage(
            lines=[answers.LogItem(**asdict(line)) for line in shown],
            next=following,
            done=run.state in TERMINAL and following >= len(lines),
        )


def flow_run_detail(run: FlowRun) -> answers.FlowRunDetail:
    """A flow run as it is answered."""
    return answers.FlowRunDetail.model_validate(run, from_attributes=True)


def _run_state(text: str) -> RunState:
    for state in RunState:
        if state.value.lower() == text.lower():
            return state
    raise InvalidInput(f"{text[:80]!r} is none of {', '.join(state.value for state in RunState)}", path=("state",))
