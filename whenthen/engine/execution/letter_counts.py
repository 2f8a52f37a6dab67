"""How many dead letters are there? Counted without reading them.

A letter that was sent again or dropped leaves an empty message on its subject, which must outlive whatever brings the letter back: the
server keeps no record of what a newer message replaced, so after a crash, or from a backup, the older one is there again when the
newer one is not. The number of subjects is therefore too large; which of them are empty is known from the sizes of messages, each
read once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping

from whenthen.engine.bus.protocol import read_headers
from whenthen.engine.bus.request_client import RequestClient, stream_info
from whenthen.engine.bus.stream_reader import stored_messages
from whenthen.engine.bus.streams import ENGINE

__all__ = ["LetterCounts"]

_SUBJECTS = "engine.dead.>"
_SIZE = "Nats-Msg-Size"  #: in place of the data, where a consumer gives headers only


class LetterCounts:
    """The numbers of dead letters in `ENGINE`, with what is known of its empty messages."""

    def __init__(self, client: RequestClient) -> None:
        self._client = client
        self._empty: set[str] = set()  #: subjects whose letter was taken away
        self._read_to = 0  #: messages up to here are known
        self._created = ""  #: when the stream was made of which this is known
        self._one_at_a_time = asyncio.Lock()

    async def read(self) -> Mapping[str, int]:
        """How many there are, all of them, by the subject token of their automation (`short_token`).

        Raises:
            BusUnavailable: no answer.
        """
        async with self._one_at_a_time:
            subjects, last, created = await self._subjects()
            if created != self._created or last < self._read_to:
                self._empty, self._read_to, self._created = set(), 0, created
            if subjects:
                await self._read_sizes()
            self._read_to = last
            self._empty &= subjects
            return Counter(subject.split(".")[2] for subject in subjects - self._empty)

    async def _subjects(self) -> tuple[set[str], int, str]:
        found: set[str] = set()
        while True:
            answer = await stream_info(self._client, ENGINE, {"subjects_filter": _SUBJECTS, "offset": len(found)})
            page = answer["state"].get("subjects") or {}
            found |= page.keys()
            if not page or len(found) >= int(answer.get("total", 0)):
                return found, int(answer["state"]["last_seq"]), str(answer["created"])

    async def _read_sizes(self) -> None:
        config = {
            "filter_subject": _SUBJECTS,
            "headers_only": True,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._read_to + 1,
        }
        async with contextlib.aclosing(stored_messages(self._client, ENGINE, config)) as messages:
            async for message in messages:
                if read_headers(message.head).get(_SIZE) == "0":
                    self._empty.add(message.subject)
                else:
                    self._empty.discard(message.subject)
