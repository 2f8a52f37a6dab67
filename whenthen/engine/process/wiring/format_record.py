"""Which format the stored data has: one record in the bus, which every process compares with its own at start and goes on watching.

It is the key `format` of the bucket `WT_state`, written by compare-and-set. A newer process raises it; an older one that still runs sees
that within a second, stops, and says why. What it has under way until then can not do harm: no older process can read the offset of a
shard that a newer one has taken over (`engine.bus.records`). What each format is: docs/reliability.md, "Formats".

Called by `server` and `wiring.nats_start`.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from whenthen import __version__
from whenthen.engine.bus.protocol import encode_headers
from whenthen.engine.bus.records import FORMAT, LOWEST_READER
from whenthen.engine.bus.request_client import (
    BusReason,
    RequestClient,
    refusal,
    unavailable,
)
from whenthen.engine.bus.streams import ENGINE, LEASES, STATE
from whenthen.schemas.errors import BusUnavailable, SetupError

__all__ = ["FormatRecord", "FormatWatch"]

log = logging.getLogger(__name__)

KEY = "format"
SUBJECT = f"$KV.{STATE}.{KEY}"
LOOK_EVERY_S = 1.0
LEASE_BEAT_S = 1.5  #: longer than evaluators of format 1 wait between two beats, a third of a lease of 3 s
ATTEMPTS = 20  #: of a compare-and-set
_WRONG_SEQUENCE = frozenset({10071, 10164})  #: JetStream's error codes of a failed compare-and-set
_ABSENT = frozenset({10037, 10059})  #: no such message; no such stream
_CONSUMER = "actions"  #: of executors of format 1, and of today's


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatRecord:
    """What the bus says of its data."""

    format: int  #: of the newest version that has run on it
    lowest_reader: int  #: the lowest format that a process has to know to work on it
    written_by: str  #: the version of whenthen that raised it

    def encode(self) -> bytes:
        return orjson.dumps(asdict(self))

    @classmethod
    def decode(cls, data: bytes) -> FormatRecord:
        """Fields that a later version added are left out.

        Raises:
            SetupError: it is no such record.
        """
        try:
            fields = orjson.loads(data)
            record = cls(
                format=fields["format"], lowest_reader=fields["lowest_reader"], written_by=fields["written_by"]
            )
            if not (isinstance(record.format, int) and isinstance(record.lowest_reader, int)):
                raise TypeError("a format is no number")
        except (ValueError, KeyError, TypeError) as error:
            raise SetupError(
                f"the record of the data's format ({SUBJECT}) can not be read: {data[:100]!r}; restore a backup"
            ) from error
        return record


OWN = FormatRecord(format=FORMAT, lowest_reader=LOWEST_READER, written_by=__version__)


class FormatWatch:
    """The record of one bus, for a process that writes `own`. A process that may not write the record waits for one that may."""

    def __init__(self, client: RequestClient, *, may_write: bool = True, own: FormatRecord = OWN) -> None:
        self._client = client
        self._may_write = may_write
        self._own = own

    async def check(self) -> None:
        """Refuse what this process can not work on, before anything is changed.

        Raises:
            SetupError: the data are of a newer format, or processes of format 1 are at work, which know no record.
            BusUnavailable: no answer, or the record is not raised yet and this process may not do it.
        """
        found, _ = await self._read()
        self._refuse(found)
        if self._may_write:
            if found is None and (working := await self._older_at_work()) and (await self._read())[0] is None:
                raise SetupError(
                    f"{working} of an earlier version of whenthen (format 1) is at work on this NATS server, and would not "
                    f"understand what this version (format {self._own.format}) stores; stop all processes of it, then start again"
                )
        elif found is None or found.format < self._own.format:
            raise unavailable(
                f"the stored data are not of format {self._own.format} yet, and this process has no right to raise it; start one "
                "of this version with the role api or evaluator",
                BusReason.REFUSED,
            )

    async def claim(self) -> None:
        """Raise the record to this version's format where it is lower, or write the first. Called again it changes nothing.

        Raises:
            SetupError: the data are of a newer format by now. BusUnavailable: no answer.
        """
        if not self._may_write:
            return
        for _ in range(ATTEMPTS):
            found, revision = await self._read()
            self._refuse(found)
            if found is not None and found.format >= self._own.format:
                return
            if await self._write(revision):
                if found is not None or await self._has_data():
                    log.warning(
                        "the stored data were of format %d and are carried forward to %d; no earlier version can work on them now",
                        1 if found is None else found.format,
                        self._own.format,
                    )
                return
        raise unavailable("the record of the data's format keeps changing", BusReason.TIMEOUT)

    async def run(self) -> None:
        """Watch the record until cancelled.

        Raises:
            SetupError: a newer process has raised it beyond what this one knows.
        """
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                found, _ = await self._read()
            except BusUnavailable as error:
                log.debug("the record of the data's format was not read: %s", error)
                continue
            self._refuse(found)

    def _refuse(self, found: FormatRecord | None) -> None:
        own = self._own
        if found is not None and found.lowest_reader > own.format:
            raise SetupError(
                f"the stored data were written by whenthen {found.written_by} (format {found.format}), and this is whenthen "
                f"{own.written_by} (format {own.format}): start that version, or restore a backup of before. Nothing was changed"
            )

    async def _read(self) -> tuple[FormatRecord | None, int]:
        """The record and its revision; None and 0 when there is none."""
        answer = await self._client.api(f"STREAM.MSG.GET.KV_{STATE}", {"last_by_subj": SUBJECT})
        if error := answer.get("error"):
            if error.get("err_code") in _ABSENT:
                return None, 0
            raise refusal("the record of the data's format can not be read", error)
        message: dict[str, Any] = answer["message"]
        return FormatRecord.decode(base64.b64decode(message.get("data") or "")), int(message["seq"])

    async def _write(self, revision: int) -> bool:
        """Write this version's record after `revision`; False when another process was faster."""
        head = encode_headers({"Nats-Expected-Last-Subject-Sequence": str(revision)})
        answer = orjson.loads((await self._client.request(SUBJECT, self._own.encode(), head)).data)
        error = answer.get("error")
        if error is not None and error.get("err_code") not in _WRONG_SEQUENCE:
            raise refusal("the record of the data's format was not stored", error)
        return error is None

    async def _older_at_work(self) -> str:
        """What an earlier version does here; empty when nothing of it is seen. Nobody of this version is at work before there is a
        record."""
        consumer = await self._client.api(f"CONSUMER.INFO.{ENGINE}.{_CONSUMER}")
        if consumer.get("num_waiting", 0):
            return "an executor"
        before = await self._beats()
        if before:
            await asyncio.sleep(LEASE_BEAT_S)
            after = await self._beats()
            if any(before.get(member, beat) != beat for member, beat in after.items()):
                return "an evaluator"
        return ""

    async def _beats(self) -> dict[str, bytes]:
        """The members that evaluate, and how often each has told that it lives."""
        found: dict[str, bytes] = {}
        request = {"seq": 1, "next_by_subj": f"$KV.{LEASES}.member.>", "batch": 10_000}
        try:
            await self._client.read_stored(
                f"KV_{LEASES}", request, lambda message: found.update({message.headers["Nats-Subject"]: message.data})
            )
        except BusUnavailable as error:
            if error.reason != BusReason.NO_STREAM:
                raise
        return found

    async def _has_data(self) -> bool:
        answer = await self._client.api(f"STREAM.MSG.GET.{ENGINE}", {"seq": 1, "next_by_subj": "engine.>"})
        return "message" in answer
