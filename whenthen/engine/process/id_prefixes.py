"""Shortened ids: which of the ids that are kept a text stands for.

Called by the HTTP API wherever a request names a run, an event or a dead letter, so that every client may send what a
listing of the command line shows. An exact id comes first. Otherwise a text stands for an id that begins with it, or,
where an id has a generated part (that of a run, a firing, or a UUID), for one whose generated part alone is shortened:
`e7f44713-4` for `e7f447132cef5e9d9bdc7165ad3093f1-4`. A text that ends in `…` is never an id by itself. More than one
such id is an error that lists them.

Runs and dead letters are looked up by the subjects of their messages, of which the server keeps an index; no message is
read. NATS has no filter for the beginning of a token, so all subjects of the kind are listed, up to `MAX_IDS`; where there
are more, only whole ids are taken, which need no look-up at all. Events have their ids in the messages, so the last 50,000
are read, as they are for a whole id whose position is not known.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from typing import Any

from whenthen.engine.bus.request_client import RequestClient, stream_info
from whenthen.engine.bus.stream_pages import StoredMessage, newest
from whenthen.engine.bus.streams import ENGINE, EVENTS, RUN_STATES
from whenthen.engine.process.queries.stored_events import event_fields
from whenthen.schemas.errors import (
    Conflict,
    InvalidInput,
    NotFound,
)

__all__ = ["MAX_IDS", "MIN_CHARS", "IdPrefixes", "candidates", "choose"]

MIN_CHARS = 6  #: of the generated part, or of the whole text where there is none
MAX_IDS = 200_000  #: that are looked through; 15 MB of subjects
MAX_NEAR = 1000  #: events that a text may stand for; further ones are not looked at, it is ambiguous anyway
MAX_NAMED = 8  #: candidates in a message
_ELLIPSIS = "…"
_WHOLE = re.compile(r"[0-9a-f]{32}")
_SHORTENED = re.compile(r"([0-9a-f]{6,31})(\.[0-9]{1,6})?")
_INDEX = re.compile(r"[0-9]{1,6}")
_GENERATED = re.compile(
    r"(?<![0-9a-z])(?:[0-9a-f]{32}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(?![0-9a-z])"
)


def candidates(text: str, ids: Iterable[str]) -> list[str]:
    """Those of `ids` that `text` may stand for, in order and each once; the exact one alone when it is among them."""
    every = set(ids)
    if text in every and not text.endswith(_ELLIPSIS):
        return [text]
    return sorted(full for full in every if stands_for(text, full))


def stands_for(text: str, full: str) -> bool:
    """Whether `text` is a shortened form of `full`."""
    begin = text.removesuffix(_ELLIPSIS)
    if len(begin) >= MIN_CHARS and full.startswith(begin):
        return True
    match = _GENERATED.search(full)
    if match is None or begin != text:
        return False
    head, tail = full[: match.start()], full[match.end() :]
    kept = len(text) - len(head) - len(tail)
    return (
        kept >= MIN_CHARS
        and text.startswith(head)
        and text.endswith(tail)
        and match[0].startswith(text[len(head) :][:kept])
    )


def choose(text: str, ids: Iterable[str], what: str, *, listed_by: str) -> str:
    """The one id that `text` stands for. `what` is its kind, `listed_by` says how all are listed.

    Raises:
        NotFound: none, or `text` is too short to be looked for.
        Conflict: several; names them.
    """
    found = candidates(text, ids)
    if len(found) == 1:
        return found[0]
    if found:
        named = ", ".join(full[:200] for full in found[:MAX_NAMED])
        more = f" and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else ""
        raise Conflict(f"{text[:200]!r} is the beginning of {len(found)} ids: {named}{more}; give more of the id")
    if len(text) < MIN_CHARS:
        raise NotFound(f"there is no {what} {text!r}; a shortened id has at least {MIN_CHARS} characters; {listed_by}")
    raise NotFound(f"there is no {what} {text[:200]!r}; {listed_by}")


class IdPrefixes:
    """Look-ups in what the streams keep now."""

    def __init__(self, client: RequestClient) -> None:
        self._client = client

    async def run(self, text: str) -> str:
        """The id of the flow run; one that is whole is given back as it is. Errors: see `choose` and `_subjects`."""
        if _WHOLE.fullmatch(text):
            return text
        stream, prefix = f"KV_{RUN_STATES}", f"$KV.{RUN_STATES}."
        kept = (await stream_info(self._client, stream))["state"].get("num_subjects", 0)  # left out when there is none
        ids = (
            [] if not kept else [subject[len(prefix) :] for subject in await self._subjects(stream, f"{prefix}>", kept)]
        )
        return choose(text, ids, "flow run", listed_by="`whenthen runs` lists them")

    async def firing(self, text: str) -> str:
        """The id of the firing; one that is whole is given back as it is. Errors: see `choose` and `_subjects`."""
        if _WHOLE.fullmatch(text):
            return text
        ids = [subject.rpartition(".")[2] for subject in await self._subjects(ENGINE, "engine.firing.>")]
        return choose(text, ids, "firing", listed_by="`whenthen firings` lists them")

    async def firing_action_or_run(self, text: str) -> str | None:
        """The whole id of the firing, action (`<firing>.<index>`) or run that a shortened one stands for; None when it can be none.

        Errors: see `choose` and `_subjects`."""
        shortened = _SHORTENED.fullmatch(text)
        if shortened is None:
            return None
        begin, index = shortened[1], shortened[2] or ""
        found: list[str] = []
        for look in (self.firing, self.run) if not index else (self.firing,):
            with contextlib.suppress(NotFound, InvalidInput):  # too many to look through: it may still be an event
                found.append(await look(begin))
        return choose(begin, found, "firing or run", listed_by="") + index if found else None

    async def dead_letter(self, text: str) -> str:
        """The key of the dead letter; one that is whole is given back as it is. Errors: see `choose` and `_subjects`."""
        firing, _, index = text.rpartition(".")
        if _WHOLE.fullmatch(firing) and _INDEX.fullmatch(index):
            return text
        # engine.dead.<automation>.<firing>.<index>; the id of a firing is its token
        keys = [".".join(subject.split(".")[-2:]) for subject in await self._subjects(ENGINE, "engine.dead.>")]
        return choose(text, keys, "dead letter", listed_by="`whenthen actions dead` lists them")

    async def event(self, text: str) -> dict[str, Any]:
        """The stored event, with its position as `seq`. Errors: see `choose`, and `BusUnavailable`."""
        near: dict[str, dict[str, Any] | None] = {}

        def pick(kept: StoredMessage) -> dict[str, Any] | None:
            event = {**event_fields(kept), "seq": kept.seq}
            event_id = event.get("id")
            if not isinstance(event_id, str):
                return None
            if event_id == text and not text.endswith(_ELLIPSIS):
                return event
            if len(near) < MAX_NEAR and event_id not in near and stands_for(text, event_id):
                near[event_id] = None if near else event
            return None

        for exact in await newest(self._client, EVENTS, "events.>", limit=1, pick=pick):
            return exact
        found = near[choose(text, near, "event", listed_by="the last 50,000 were looked through")]
        assert found is not None  # the only one
        return found

    async def _subjects(self, stream: str, subject: str, kept: int = 0) -> list[str]:
        """The subjects below `subject` that have a message. `kept` is how many there are, when that is known.

        Raises:
            InvalidInput: more than `MAX_IDS`.
            BusUnavailable: no answer.
        """
        found: list[str] = []
        total = kept or 1
        while len(found) < total:
            if total > MAX_IDS:
                raise InvalidInput(f"{total} ids are kept, too many to look for a shortened one; give the whole id")
            info = await stream_info(self._client, stream, {"subjects_filter": subject, "offset": len(found)})
            total = info.get("total", 0)
            page = info["state"].get("subjects")
            if not page:  # the last ones went meanwhile
                break
            found += page
        return found
