"""What a process does first that was started again after a hang or a crash: it says so, and counts it, before it works."""

from __future__ import annotations

import logging
import os
import signal

from whenthen.engine.hangs import HangCounts
from whenthen.supervision import Cause, SharedPage, Work

__all__ = ["note_hang"]

log = logging.getLogger(__name__)


async def note_hang(hangs: HangCounts, page: SharedPage) -> None:
    """Deal with what the process before left on the page. May be called again when it failed.

    Raises:
        BusUnavailable: not counted yet.
    """
    before = page.before
    if before is None:
        return
    item = before.item
    tries = 0
    if item is not None and item.kind in (Work.EVENT, Work.ACTION):
        tries = await hangs.add(item, before, machine=os.uname().nodename)
    how = "hung" if before.cause is Cause.HUNG else f"crashed ({signal.Signals(before.signal).name})"
    log.error(
        "the process before this one (%d) %s on %s%s%s; this one goes on in its place",
        before.pid,
        how,
        item or "nothing that is known",
        f", at automation {before.automation}" if before.automation else "",
        f", as {tries} did" if tries > 1 else "",
        extra={"restarts": page.restarts},
    )
    page.forget_before()
