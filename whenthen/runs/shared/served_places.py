"""Who is about to work for a deployment that a script serves: from its registering until its worker is there.

A place is a flag of the pool of the deployment, taken by compare-and-set: of two programs that register one name at once, whichever process
of the server they ask, one has it and the other one is told who. A worker of the pool gives it back when it is there itself; where none
comes it is free after a time. Called for `serve(...)` and by `limits.pool_presence`. Meaning: docs/deployments.md, "From Python".
"""

from __future__ import annotations

import contextlib
import hashlib
from datetime import datetime, timedelta

import orjson

from whenthen.runs.stores import Flag, FlagStore
from whenthen.schemas.deployments import Deployment
from whenthen.schemas.errors import Conflict
from whenthen.schemas.times import format_time

__all__ = ["give_back", "take_place"]


async def take_place(
    flags: FlagStore, deployment: Deployment, *, place: str, now: datetime, lasts: timedelta
) -> str | None:
    """Take the place of a served deployment for its program, or renew it. `place` says for people where that is. None when it is taken; else
    the place of the other program that has it, and has had it for less than `lasts`."""
    key, program = _key(deployment.work_pool), _program(deployment)
    while True:
        found = await flags.get(key)
        if found is not None:
            flag, version = found
            if flag.by != program and now - datetime.fromisoformat(flag.changed) <= lasts:
                return flag.note
        taken = Flag(paused=False, changed=format_time(now), note=place, by=program)
        with contextlib.suppress(Conflict):
            await flags.put(key, taken, 0 if found is None else version)
            return None


async def give_back(flags: FlagStore, pool: str, *, of: Deployment | None = None) -> None:
    """Give back the place of a pool, if anybody has it: with `of` only where that is the program of this deployment."""
    found = await flags.get(_key(pool))
    if found is None or (of is not None and found[0].by != _program(of)):
        return
    with contextlib.suppress(Conflict):  # taken anew
        await flags.delete(_key(pool), found[1])


def _key(pool: str) -> str:
    return f"served/{pool}"


def _program(deployment: Deployment) -> str:
    """The same for all versions of one program, and another one for each other program."""
    code = None if deployment.code is None else deployment.code.model_dump(mode="json")
    text = orjson.dumps([deployment.entrypoint, deployment.command, code], option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(text, digest_size=16).hexdigest()
