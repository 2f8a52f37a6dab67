"""Which rules a process starts with: its files, or a stored revision.

Files are published only when they never were. Files that were published before and are not current any more (of an older deploy) do not
come back into force by a restart: the current revision is followed, and `whenthen apply` or `rollback` says otherwise. Files that are
broken or missing leave the stored revision in force. Called by `engine.process.server`. Meaning: docs/rules.md, "One rule set for all".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from whenthen.engine.process.revisions.compiled_revisions import read_revision
from whenthen.engine.process.revisions.rule_publishing import RulePublisher, absolute
from whenthen.engine.rule_sets import Revision, RevisionHow, RevisionStore, RevisionTaken, RevisionUnusable, RulesFull
from whenthen.rules import Rules, compile_files
from whenthen.rules.registering import registration
from whenthen.schemas.errors import InvalidRules, Problem, SetupError

__all__ = ["StartingRules", "rules_at_start"]

log = logging.getLogger(__name__)

WAIT_S = 30.0  #: of a process without files, until somebody publishes the first revision
LOOK_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class StartingRules:
    """The rules in force from the start."""

    rules: Rules
    number: int  #: of their revision; 0 when none is published yet, and this process may not
    files: Rules | None  #: what the files hold; None when there are none, or they are refused
    refused: Sequence[Problem] = ()  #: the problems of the files
    kept_since: str | None = None  #: when the rules were published, if the files are refused


async def rules_at_start(
    store: RevisionStore,
    files: Rules | InvalidRules | None,
    *,
    path: Path | None,
    publisher: RulePublisher | None,
    own_path_only: bool,
) -> StartingRules:
    """Decide, and publish what was never published. `files` are those at `path`, or why they are refused. With `own_path_only` refused
    files are made good by a revision that came from the same path alone: another path is more likely a mistake.

    Raises:
        InvalidRules: the files are refused, and there is nothing to go on with.
        RulesFull: there is no room for the first revision.
        SetupError: there are neither files nor a revision.
        BusUnavailable: NATS does not answer.
    """
    current = await store.current()
    while isinstance(files, Rules):
        try:
            return await _with_files(store, files, current, publisher)
        except RevisionTaken as taken:
            log.info("%s; looking again", taken)
            current = await store.current()
        except InvalidRules as refused:  # by themselves they are sound
            files = refused
    base = None if path is None else _base(path)
    if files is None:
        return await _without_files(store, current or await _first(store, 0.0 if own_path_only else WAIT_S))
    if current is None or (own_path_only and await _path_of(store, current) != absolute(path)):
        raise files
    rules, revision = await _newest_usable(store, current, base=base, kept=None)
    if rules is None or revision is None:
        raise files
    return StartingRules(
        rules=rules, number=revision.number, files=None, refused=files.problems, kept_since=revision.at
    )


async def _with_files(
    store: RevisionStore, files: Rules, current: Revision | None, publisher: RulePublisher | None
) -> StartingRules:
    rules = await _with_registered(store, files, current)
    if current is not None and not current.trouble and current.digest == rules.revision:
        return StartingRules(rules=rules, number=current.number, files=files)
    earlier = await store.published_as(files.revision)
    if publisher is not None and not earlier:
        try:
            revision = await publisher.publish(rules, RevisionHow.START, after=current)
            return StartingRules(rules=rules, number=revision.number, files=files)
        except RulesFull as error:
            if current is None:
                raise
            log.error("%s; the stored rules stay in force", error)
    if current is None:
        return StartingRules(rules=files, number=0, files=files)
    usable, found = await _newest_usable(store, current, base=files.base, kept=files)
    if usable is None or found is None:
        log.error("no stored revision of the rules can be used; the files are in force in this process")
        return StartingRules(rules=files, number=earlier, files=files)
    return StartingRules(rules=usable, number=found.number, files=files)


async def _with_registered(store: RevisionStore, files: Rules, current: Revision | None) -> Rules:
    """The rules on disk with the deployments that scripts have registered in the current revision.

    Raises:
        InvalidRules: they do not go together, as when a file has a deployment of the same name by now.
    """
    if current is None or not current.own:
        return files
    try:
        stored = await store.files(current, known=files.files_read)
    except RevisionUnusable as error:
        log.error("%s; what scripts have registered is not known", error)
        return files
    together = registration.with_registered(files.files_read, stored)
    return await asyncio.to_thread(compile_files, files.base, together, kept=files)


async def _without_files(store: RevisionStore, current: Revision) -> StartingRules:
    rules, revision = await _newest_usable(store, current, base=None, kept=None)
    if rules is None or revision is None:
        raise SetupError(
            "no stored revision of the rules can be used, and this process has no rules folder; the log says what is "
            "wrong with each. Publish the rules with `whenthen apply`, or name the folder"
        )
    return StartingRules(rules=rules, number=revision.number, files=None)


async def _first(store: RevisionStore, wait_s: float) -> Revision:
    """The current revision, once there is one."""
    deadline = asyncio.get_running_loop().time() + wait_s
    while (current := await store.current()) is None:
        if asyncio.get_running_loop().time() > deadline:
            raise SetupError(
                "no rules are published in this NATS, and this process has no rules folder; start a process with one "
                "(`whenthen serve RULES`) first"
            )
        await asyncio.sleep(LOOK_S)
    return current


async def _path_of(store: RevisionStore, current: Revision) -> str:
    """Where the files of the current revision came from; of the one before, if its record can not be read."""
    if not current.trouble:
        return current.path
    return next((revision.path for revision in await store.revisions() if not revision.trouble), "")


async def _newest_usable(
    store: RevisionStore, current: Revision, *, base: Path | None, kept: Rules | None
) -> tuple[Rules | None, Revision | None]:
    """The current revision, else the newest one before it that can be used."""
    try:
        return await read_revision(store, current, base=base, kept=kept), current
    except RevisionUnusable as error:
        log.error("%s; an older revision is looked for", error)
    for revision in await store.revisions():
        if revision.number < current.number:
            try:
                return await read_revision(store, revision, base=base, kept=kept), revision
            except RevisionUnusable as error:
                log.error("%s", error)
    return None, None


def _base(path: Path) -> Path:
    """What entry points are relative to, also when there is nothing at the path."""
    return path.parent if path.suffix in (".yaml", ".yml") and not path.is_dir() else path
