"""Flow runs and their logs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, fields, replace
from typing import Any

import orjson

from whenthen.engine.bus.stream_pages import StoredMessage
from whenthen.engine.bus.streams import RUN_STATES
from whenthen.engine.http import Listing, Page
from whenthen.engine.http import answer_models as answers
from whenthen.engine.process.id_prefixes import IdPrefixes
from whenthen.engine.process.queries.lists.asked_list import AskedList, read_asked
from whenthen.engine.process.queries.lists.known_names import KnownNames
from whenthen.engine.process.queries.lists.merged_lists import MOST_SCANNED, STOPPED, MergedLists, without_history
from whenthen.engine.process.queries.lists.whole_ids import WholeIds
from whenthen.runs import (
    PAGE_BYTES,
    BuiltInOrchestrator,
    RunFilter,
    RunPageCollector,
    Stored,
    attempt_logs,
)
from whenthen.runs.reports import task_runs
from whenthen.runs.run_states import run_from_record
from whenthen.schemas.deployments import (
    TERMINAL,
    FlowRun,
    RunState,
    is_run_id,
)
from whenthen.schemas.errors import BusUnavailable, InvalidInput, NotFound
from whenthen.schemas.history_rows import LEFT_OUT
from whenthen.schemas.times import format_us, parse_us

__all__ = ["RunQueries", "flow_run_detail"]

_COLUMNS = {"deployment": "deployment", "state": "state", "work_pool": "work_pool"}
_STREAM = f"KV_{RUN_STATES}"
_EVERY_RUN = f"$KV.{RUN_STATES}.>"
_Place = tuple[int, str]  #: when a run was created, in microseconds, and its id
_FIELDS = [each.name for each in fields(FlowRun)]
#: of what the history left out
_DEFAULTS = {each.name: each.default for each in fields(FlowRun) if each.default is not MISSING} | {"parameters": {}}
_FILLED = "the history is being filled; until then the runs that changed last are looked through"
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
        """By their creation, the newest first: those of the history, and of the bucket what changed since. Without a history those that
        changed last of the bucket."""
        state = page.choice("state", [state.value for state in RunState])
        if state is not None:
            page = page.with_filter("state", state)
        if "firing" in page.filters:
            page = page.with_filter("firing", await self._whole.firing(page.filters["firing"]))
        before = None if page.before is None else _place(page.before)
        asked = read_asked(
            "runs", replace(page, before=None), columns=_COLUMNS, filters=_COLUMNS, now=self._lists.clock()
        )
        changed: Sequence[FlowRun] | None = None
        note = _FILLED
        try:
            rows = await self._lists.history_rows(_STREAM, asked, before=page.before)
            changed = await self._lists.behind(_STREAM, _EVERY_RUN, rows["cursor"], _stored_run)
        except BusUnavailable as error:
            note = without_history(error)
        if changed is not None:
            found = await self._merged(asked, before, rows, changed)
        else:
            found = await self._of_bucket(page, asked, before)
            found.notes = [note, *found.notes]
        if not found and found.following is None:
            found.notes = [*found.notes, *self._names.notes(page)]
        return found

    async def _merged(
        self, asked: AskedList, before: _Place | None, rows: Mapping[str, Any], changed: Sequence[FlowRun]
    ) -> Listing[answers.FlowRunDetail]:
        """Runs of the history, and in their places those that changed behind it."""
        newer: dict[str, FlowRun] = {}
        for run in changed:  # the newest revision comes first
            newer.setdefault(run.id, run)
        end = None if rows["next"] is None else _place(rows["next"])
        fits = _fits(asked, before)
        listed: list[tuple[_Place, FlowRun | Mapping[str, Any]]] = [
            *((_place_of(run), run) for run in newer.values() if fits(run) and (end is None or _place_of(run) >= end)),
            *(((row["created_us"], row["id"]), row) for row in rows["rows"] if row["id"] not in newer),
        ]
        listed.sort(key=lambda each: each[0], reverse=True)
        shown = listed[: asked.limit]
        found, left_out = await self._details([each for _, each in shown])
        following = _place_text(shown[-1][0]) if len(listed) > len(shown) else rows["next"]
        if following is not None:
            found.following = {"before": following}
            if rows["scanned"] >= MOST_SCANNED:
                found.notes = [STOPPED % rows["scanned"]]
        if left_out:
            found.notes = [*found.notes, f"of {left_out} runs the large parameters or results are left out"]
        return found

    async def _details(
        self, shown: Sequence[FlowRun | Mapping[str, Any]]
    ) -> tuple[Listing[answers.FlowRunDetail], int]:
        """Runs as they are answered, and of how many something is left out. What the history does not keep comes from the bucket."""
        found: Listing[answers.FlowRunDetail] = Listing()
        left_out, room = 0, PAGE_BYTES
        for each in shown:
            if isinstance(each, FlowRun):
                found.append(flow_run_detail(each))
                continue
            size = int(each.get(LEFT_OUT, 0))
            if size and room > 0:
                try:
                    found.append(flow_run_detail((await self._orchestrator.get_flow_run(each["id"])).run))
                    room -= size
                    continue
                except NotFound:
                    pass
            left_out += bool(size)
            found.append(answers.FlowRunDetail.model_validate({**_DEFAULTS, **each}))
        return found, left_out

    async def _of_bucket(self, page: Page, asked: AskedList, before: _Place | None) -> Listing[answers.FlowRunDetail]:
        """Of the runs that changed last those that were created last."""
        older_than = None if before is None else (format_us(before[0]), before[1])
        collector = RunPageCollector(RunFilter(before=older_than, fits=_fits(asked)), page.limit, PAGE_BYTES)

        def take(message: StoredMessage) -> None:
            run = _stored_run(message)
            if run is not None:
                collector.take(Stored(run, message.seq), len(message.data))

        cut = (await self._lists.look(_STREAM, _EVERY_RUN, take, limit=1)).next is not None
        runs = collector.page()
        found = Listing(flow_run_detail(stored.run) for stored in runs)
        if cut:
            found.notes = ["there are more runs than are looked through: those that changed last were"]
        if runs.more:
            found.following = {"before": _place_text(_place_of(runs[-1].run))}
        return found

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


def _stored_run(message: StoredMessage) -> FlowRun | None:
    """A run of the bucket; None for the marker of a deletion, and what can not be read."""
    try:
        if not message.data:
            return None
        run = run_from_record(orjson.loads(message.data))
        parse_us(run.created)
        return run
    except (ValueError, KeyError, TypeError):
        return None


def _fits(asked: AskedList, before: _Place | None = None) -> Callable[[FlowRun], bool]:
    wanted = asked.wanted("id")

    def fits(run: FlowRun) -> bool:
        place = _place_of(run)
        return (
            (asked.since_us is None or place[0] >= asked.since_us)
            and (asked.until_us is None or place[0] < asked.until_us)
            and (before is None or place < before)
            and wanted({name: getattr(run, name) for name in _FIELDS})
        )

    return fits


def _place_of(run: FlowRun) -> _Place:
    """Where a run is in the list, as the history has it."""
    return parse_us(run.created), run.id


def _place_text(place: _Place) -> str:
    return f"{place[0]}.{place[1]}"


def _place(text: str) -> _Place:
    """When the last run of the page before was created, and its id."""
    created, _, run_id = text.partition(".")
    if not (created.isascii() and created.isdecimal() and len(created) < 18 and is_run_id(run_id)):
        raise InvalidInput(f"{text[:80]!r} is no place in the list of runs; follow its `Link`", path=("before",))
    return int(created), run_id
