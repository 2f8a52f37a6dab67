"""Flow runs and their logs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, asdict, fields, replace

from whenthen.engine.bus.streams import RUN_STATES
from whenthen.engine.http import Listing, Page
from whenthen.engine.http import answer_models as answers
from whenthen.engine.process.id_prefixes import IdPrefixes
from whenthen.engine.process.queries.lists.asked_list import AskedList, read_asked
from whenthen.engine.process.queries.lists.known_names import KnownNames
from whenthen.engine.process.queries.lists.merged_lists import MOST_SCANNED, STOPPED, MergedLists, without_history
from whenthen.engine.process.queries.lists.whole_ids import WholeIds
from whenthen.runs import BuiltInOrchestrator, RunFilter, attempt_logs
from whenthen.runs.reports import task_runs
from whenthen.schemas.deployments import (
    TERMINAL,
    FlowRun,
    RunState,
    is_run_id,
)
from whenthen.schemas.errors import BusUnavailable, InvalidInput, NotFound
from whenthen.schemas.history_rows import LEFT_OUT
from whenthen.schemas.times import parse_time, to_us

__all__ = ["RunQueries", "flow_run_detail"]

_COLUMNS = {"deployment": "deployment", "state": "state", "work_pool": "work_pool"}
_STREAM = f"KV_{RUN_STATES}"
_FIELDS = [each.name for each in fields(FlowRun)]
#: of what the history left out
_DEFAULTS = {each.name: each.default for each in fields(FlowRun) if each.default is not MISSING} | {"parameters": {}}
_MOST_ROWS = 1000  #: of one look into the history
_PAGE_BYTES = 4_000_000  #: of the text of a log in one answer


class RunQueries:
    def __init__(
        self, orchestrator: BuiltInOrchestrator, ids: IdPrefixes, lists: MergedLists, names: KnownNames, whole: WholeIds
    ) -> None:
        self._orchestrator = orchestrator
        self._ids = ids
        self._lists = lists
        self._whole = whole
        self._names = names

    async def list_runs(self, page: Page) -> Listing[answers.FlowRunDetail]:
        """Those that the bucket still has, by their creation; then those that only the history has, the last changed first."""
        state = page.choice("state", [state.value for state in RunState])
        if state is not None:
            page = page.with_filter("state", state)
        if "firing" in page.filters:
            page = page.with_filter("firing", await self._whole.firing(page.filters["firing"]))
        in_history = page.before is not None and page.before.isascii() and page.before.isdecimal()
        asked = read_asked(
            "runs",
            page if in_history else replace(page, before=None),
            columns=_COLUMNS,
            filters=_COLUMNS,
            now=self._lists.clock(),
        )
        found: Listing[answers.FlowRunDetail] = Listing()
        if not in_history:
            wanted = RunFilter(
                deployment=page.filters.get("deployment"),
                states=None if state is None else frozenset({RunState(state)}),
                work_pool=page.filters.get("work_pool"),
                before=None if page.before is None else _cursor(page.before),
                fits=_fits(asked),
            )
            runs = await self._orchestrator.flow_run_page(wanted, limit=page.limit)
            found.extend(flow_run_detail(stored.run) for stored in runs)
            if runs.more:
                found.following = {"before": f"{runs[-1].run.created}/{runs[-1].run.id}"}
                return found
        if len(found) < page.limit:
            await self._add_older(found, asked)
        if not found and found.following is None:
            found.notes = [*found.notes, *self._names.notes(page)]
        return found

    async def _add_older(self, found: Listing[answers.FlowRunDetail], asked: AskedList) -> None:
        """Add runs of the history that the bucket does not have any more."""
        before: int | str = (
            (await self._lists.stream_state(_STREAM))["first_seq"] if asked.before is None else asked.before
        )
        left_out = scanned = 0
        # they are in the order of their changes, and `until` is about their creation: there may be many to pass over
        limit = asked.limit - len(found)
        while True:
            try:
                rows = await self._lists.history_rows(
                    _STREAM, replace(asked, until_us=None), before=before, limit=limit
                )
            except BusUnavailable as error:
                found.notes = [without_history(error)]
                return
            following = rows["next"]
            for row in rows["rows"]:
                if not _in_range(row["created"], asked):
                    continue
                if len(found) == asked.limit:
                    following = before
                    break
                left_out += LEFT_OUT in row
                found.append(answers.FlowRunDetail.model_validate({**_DEFAULTS, **row}))
                before = str(row["pos"])
            scanned += rows["scanned"]
            if following is None or len(found) == asked.limit or scanned >= MOST_SCANNED:
                break
            before, limit = following, _MOST_ROWS
        if following is not None:
            found.following = {"before": str(following)}
            if scanned >= MOST_SCANNED:
                found.notes = [STOPPED % scanned]
        if left_out:
            found.notes = [*found.notes, f"of {left_out} runs the large parameters or results are not kept any more"]

    async def get_run(self, run_id: str) -> answers.FlowRunDetail:
        """A run; of one that the bucket does not have any more what the history has. Raises NotFound, Conflict."""
        try:
            return flow_run_detail((await self._orchestrator.get_flow_run(await self._ids.run(run_id))).run)
        except NotFound:
            row = await self._whole.row("runs", run_id)
            if row is None:
                raise
            return answers.FlowRunDetail.model_validate({**_DEFAULTS, **row})

    async def list_task_runs(self, run_id: str, *, after: int, limit: int) -> answers.TaskRunList:
        run_id = (await self._orchestrator.get_flow_run(await self._ids.run(run_id))).run.id
        found = await self._orchestrator.task_run_page(run_id, after=after, limit=limit)
        return answers.TaskRunList(task_runs=[_task_run_item(one) for one in found.task_runs], total=found.total)

    async def run_logs(self, run_id: str, *, after: int, limit: int) -> answers.LogPage:
        run = await self.get_run(run_id)
        return _log_page(
            run, await self._orchestrator.log_page(run.id, after=after, limit=limit, most_bytes=_PAGE_BYTES)
        )

    async def run_log_end(self, run_id: str, *, limit: int) -> answers.LogPage:
        """The last lines of its log."""
        run = await self.get_run(run_id)
        return _log_page(run, await self._orchestrator.log_end(run.id, limit=limit, most_bytes=_PAGE_BYTES))


def _log_page(run: answers.FlowRunDetail, found: attempt_logs.LogSlice) -> answers.LogPage:
    """A part of a log; `run` was read before it, so that nothing is missing of one that has ended."""
    return answers.LogPage(
        lines=[_log_item(line) for line in found.lines],
        next=found.next,
        more=found.more,
        done=run.state in TERMINAL and not found.more,
    )


def _log_item(line: attempt_logs.LogLine) -> answers.LogItem:
    if not line.level and not line.name:
        return answers.LogItem(at=line.at, stream=line.stream, text=line.text, attempt=line.attempt)
    return answers.LogItem(
        at=line.at, stream=line.stream, text=line.text, attempt=line.attempt, level=line.level, name=line.name
    )


def _task_run_item(run: task_runs.TaskRun) -> answers.TaskRunItem:
    fields = asdict(run)
    return answers.TaskRunItem(**{**fields, "type": run.state, "state": run.state_name})


def flow_run_detail(run: FlowRun) -> answers.FlowRunDetail:
    """A flow run as it is answered."""
    return answers.FlowRunDetail.model_validate(run, from_attributes=True)


def _fits(asked: AskedList) -> Callable[[FlowRun], bool]:
    wanted = replace(asked, equal={}).wanted("id")

    def fits(run: FlowRun) -> bool:
        return _in_range(run.created, asked) and wanted({name: getattr(run, name) for name in _FIELDS})

    return fits


def _in_range(created: str, asked: AskedList) -> bool:
    if asked.since_us is None and asked.until_us is None:
        return True
    at_us = to_us(parse_time(created))
    return (asked.since_us is None or at_us >= asked.since_us) and (asked.until_us is None or at_us < asked.until_us)


def _cursor(text: str) -> tuple[str, str]:
    """When the last run of the page before was created, and its id."""
    created, _, run_id = text.partition("/")
    if not created or not is_run_id(run_id):
        raise InvalidInput(f"{text[:80]!r} is no place in the list of runs; follow its `Link`", path=("before",))
    return created, run_id
