"""The artifacts that one attempt of a run tells of: the newest version of each is stored, however often it is told, and of further ones
than are kept the log says how many. Called by `run_reports`.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Final

import orjson

from whenthen.runs.reports.report_lines import ToldArtifact
from whenthen.runs.run_output import RunLog
from whenthen.runs.shared.artifacts import MAX_DATA_BYTES, MOST_ARTIFACTS, MOST_BYTES, ArtifactRecord
from whenthen.runs.stores import ArtifactStore
from whenthen.schemas.deployments import FlowRun
from whenthen.schemas.errors import BusUnavailable, InvalidInput

__all__ = ["ToldArtifacts"]

SHOWN_CHARS: Final = 200  #: of an artifact in a line of the log


class ToldArtifacts:
    """What the attempt has to show."""

    def __init__(self, run: FlowRun, store: ArtifactStore, output: RunLog, *, retry_pause_s: float) -> None:
        self._run = run
        self._store = store
        self._output = output
        self._retry_pause_s = retry_pause_s
        self._known: dict[str, tuple[ArtifactRecord, int]] = {}  #: without their data, of which the bytes are counted
        self._waiting: dict[str, ArtifactRecord] = {}
        self._bytes = 0
        self._left_out: set[int] = set()  #: hashes of ids

    async def take(self, told: ToldArtifact) -> bool:
        """Take an artifact or a new version of one. Gives whether there is something to be stored."""
        size = len(orjson.dumps([told.data, told.description, told.metadata], default=str))
        if told.id not in self._known and self._is_too_much(told):
            return False
        before = await self._before(told)
        old_size = 0 if told.id not in self._known else self._known[told.id][1]
        if size > MAX_DATA_BYTES or self._bytes - old_size + size > MOST_BYTES:
            await self._output.write_system_line(
                f"artifact {told.key or told.id} is not kept: it has {size:,} bytes; one has at most {MAX_DATA_BYTES:,}, and all of an "
                f"attempt {MOST_BYTES:,}; write it into a file, and show where that is"
            )
            return False
        record = self._record(told, before)
        if before is None:
            await self._output.write_logged(_shown(record), at=told.at, level=logging.INFO, name="")
        self._bytes += size - old_size
        self._known[told.id] = (replace(record, data=None), size)
        self._waiting[told.id] = record
        return True

    async def flush(self) -> None:
        """Returns when all that were taken are stored."""
        while self._waiting:
            record = self._waiting.pop(next(iter(self._waiting)))
            while True:
                try:
                    await self._store.put(record)
                    break
                except BusUnavailable:
                    await asyncio.sleep(self._retry_pause_s)
                except InvalidInput as error:  # it would be refused for ever
                    await self._output.write_system_line(f"artifact {record.key or record.id} is not kept: {error}")
                    break

    async def tell_left_out(self) -> None:
        """Say in the log how many artifacts are not kept."""
        if self._left_out:
            await self._output.write_system_line(
                f"{len(self._left_out)} further artifacts are not kept: of one attempt these are {MOST_ARTIFACTS:,}"
            )

    async def _before(self, told: ToldArtifact) -> ArtifactRecord | None:
        """The artifact of which this is a new version, without its data; None for one that is new."""
        if told.id in self._known:
            return self._known[told.id][0]
        if told.key or told.kind != "progress":
            return None
        # an update has no key, and may be of one that was made before this worker had the run
        try:
            return await self._store.get(told.id, run_id=self._run.id)
        except BusUnavailable:
            return None

    def _is_too_much(self, told: ToldArtifact) -> bool:
        if len(self._known) < MOST_ARTIFACTS:
            return False
        if len(self._left_out) < 10 * MOST_ARTIFACTS:
            self._left_out.add(hash(told.id))
        return True

    def _record(self, told: ToldArtifact, before: ArtifactRecord | None) -> ArtifactRecord:
        mask = self._output.mask
        if before is None:
            return ArtifactRecord(
                id=told.id,
                run=self._run.id,
                deployment=self._run.deployment,
                key=told.key,
                type=told.kind,
                description=mask(told.description),
                data=self._output.mask_value(told.data),
                metadata={mask(name): mask(value) for name, value in told.metadata.items()},
                task_run=told.task_run,
                created=told.at,
                updated=told.at,
            )
        return replace(
            before,
            description=mask(told.description) or before.description,
            data=self._output.mask_value(told.data),
            updated=told.at,
        )


def _shown(artifact: ArtifactRecord) -> str:
    """An artifact as a line of the log."""
    data = artifact.data if isinstance(artifact.data, str) else orjson.dumps(artifact.data, default=str).decode()
    text = data if len(data) <= SHOWN_CHARS else f"{data[:SHOWN_CHARS]}... ({len(data):,} characters)"
    return f"artifact {artifact.key or artifact.id} ({artifact.type or 'unknown'}): {text}"
