"""`GET /api/stream`: what is happening now, as server-sent events, with the filters of the lists.

Called by `app`. Meaning: docs/live.md.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from fastapi.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from whenthen.engine.http.access.route_scopes import ScopedRoute, until_refused
from whenthen.engine.http.api_port import Api, LiveStream
from whenthen.engine.http.models import answer_models as answers
from whenthen.engine.http.models.known_parameters import check_parameters
from whenthen.engine.http.models.list_parameters import Filter, Pairs, given
from whenthen.engine.http.models.request_models import read_key

__all__ = ["stream_router"]


class EventStream(StreamingResponse):
    """Server-sent events, until the client goes or may not have them any more. Its place is given back however the answer ends, also when it
    never began."""

    media_type = "text/event-stream"

    def __init__(self, stream: LiveStream, status_code: int = 200) -> None:
        # nothing between here and the client may keep or gather what is sent
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(stream.frames(), status_code, headers)
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def pass_on(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        answering = asyncio.ensure_future(super().__call__(scope, receive, pass_on))
        refused = asyncio.ensure_future(until_refused(scope))
        try:
            await asyncio.wait({answering, refused}, return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
                return
        finally:
            for task in (answering, refused):
                task.cancel()
            await asyncio.gather(answering, refused, return_exceptions=True)
            self._stream.close()
        if begun:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def stream_router(api: Api) -> APIRouter:
    """The route `/api/stream`."""
    router = APIRouter(
        prefix="/api", tags=["history"], route_class=ScopedRoute, dependencies=[Depends(check_parameters)]
    )

    @router.get("/stream", response_class=EventStream)
    async def stream(
        of: Annotated[
            list[answers.HistoryKind] | None,
            Query(
                max_length=16, description="Kinds; several times for several. All that the filters fit, without one."
            ),
        ] = None,
        last_event_id: Annotated[
            str | None, Header(alias="Last-Event-ID", description="The last id that was given: goes on behind it.")
        ] = None,
        id: Filter = None,
        name: Filter = None,
        label: Pairs = None,
        related: Filter = None,
        automation: Filter = None,
        reason: Filter = None,
        event: Filter = None,
        firing: Filter = None,
        key: Filter = None,
        state: Filter = None,
        type: Filter = None,
        deployment: Filter = None,
        work_pool: Filter = None,
        kind: Filter = None,
        who: Filter = None,
        text: Filter = None,
    ) -> EventStream:
        """What happens, as it happens: server-sent events of the kinds, and `gap` where something is missing. Filters are those of
        `/api/history`; each narrows the kinds that have it."""
        equal = given(
            name=name, automation=automation, reason=reason, event=event, firing=firing, key=key, state=state, type=type,
            deployment=deployment, work_pool=work_pool, kind=kind, who=who,
        )  # fmt: skip
        found = await api.stream(
            of or [],
            equal=equal,
            labels=read_key(label or [], "label"),
            related=related or "",
            id_prefix=id or "",
            text=text or "",
            last_id=last_event_id,
        )
        return EventStream(found)

    return router
