"""Rule sets on request: which there are, what another one would change, putting one in force, and going back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from whenthen.engine.http import answer_models as answers
from whenthen.engine.http import request_models as requests
from whenthen.engine.process.revisions.rules_in_force import RulesInForce
from whenthen.engine.process.revisions.setting_checks import Checker
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.engine.rule_sets import Revision, RevisionStore
from whenthen.rules import Rules, SourceFile, compile_files, load_rules
from whenthen.rules.changes import RuleChange, planned_changes
from whenthen.rules.registering import registered_names
from whenthen.schemas.errors import Conflict, InvalidInput, NotFound, Refused

__all__ = ["RuleSetCommands"]

log = logging.getLogger(__name__)

MOST_COUNTED = 200  #: automations of a plan whose windows are counted


class RulesFromFilesAlone(Refused):
    """A request may not put rules in force here."""

    reason = "rules_from_files"


class RuleSetCommands:
    """`path` is the rules folder or file of this process; None when it has none. `from_api`: whether rules may come from requests.
    `also` as of `load_rules`, `open_windows` counts the windows of triggers by their ids."""

    def __init__(
        self,
        in_force: RulesInForce,
        store: RevisionStore,
        rule_registry: RuleRegistry,
        *,
        path: Path | None,
        from_api: bool = True,
        also: Sequence[Checker] = (),
        open_windows: Callable[[Sequence[str]], Awaitable[int]],
    ) -> None:
        self._open_windows = open_windows
        self._from_api = from_api
        self._also = also
        self._in_force = in_force
        self._store = store
        self._rule_registry = rule_registry
        self._path = path
        self._compiling = asyncio.Lock()  #: one set at a time: threads that compile take turns with the event loop

    async def list_revisions(self) -> list[answers.RuleRevision]:
        found = await self._store.revisions()
        newest = found[0].number if found else 0
        return [_described(each, newest) for each in found]

    async def rule_texts(self, number: int) -> answers.RuleTexts:
        revision = await self._store.revision(number)
        if revision is None:
            raise NotFound(f"there is no revision {number} of the rules any more; `whenthen revisions` lists them")
        files = await self._store.files(revision, known=self._rule_registry.now.rules.files_read)
        return answers.RuleTexts(
            number=number,
            digest=revision.digest,
            files=[answers.RuleText(name=file.name, text=file.raw.decode("utf-8", "replace")) for file in files],
        )

    async def plan_rules(self, request: requests.RuleSetRequest) -> answers.RulePlan:
        rules = await self._rules(request)
        now = self._rule_registry.now
        earlier = await self._store.published_as(rules.revision)
        return answers.RulePlan(
            number=now.number,
            in_force=now.rules.own_revision,
            digest=rules.revision,
            published_before=earlier or None,
            changes=await self._with_windows(planned_changes(now.rules, await self._in_force.with_registered(rules))),
            notes=self._in_force.notes(),
        )

    async def _with_windows(self, changes: Sequence[RuleChange]) -> list[answers.PlannedChange]:
        """Changes with the number of windows that are open for each automation they are about."""
        triggers = {
            name: [*(node.id for node in compiled.composites), *(leaf.id for leaf in compiled.leaves)]
            for shard in self._rule_registry.now.shards
            for name, compiled in shard.automations.items()
        }
        found, counted = [], 0
        for change in changes:
            fields = change._asdict() | {"fields": list(change.fields)}
            ids = triggers.get(change.name) if change.kind == "automation" and change.change != "new" else None
            if ids and counted < MOST_COUNTED:
                counted += 1
                fields["windows"] = await self._open_windows(ids)
            found.append(answers.PlannedChange(**fields))
        return found

    async def apply_rules(self, request: requests.RuleSetRequest) -> answers.RuleRevision:
        if request.files is not None:  # those on disk are files
            self.check_from_api()
        rules = await self._rules(request)
        revision = await self._in_force.apply(rules, who=request.who, expected=request.expected)
        return _described(revision, revision.number)

    async def roll_back_rules(self, number: int, request: requests.RollbackRequest) -> answers.RuleRevision:
        self.check_from_api()
        revision = await self._in_force.rollback(number, who=request.who, expected=request.expected)
        return _described(revision, revision.number)

    def check_from_api(self) -> None:
        """
        Raises:
            RulesFromFilesAlone: rules may not come from requests.
        """
        if not self._from_api:
            raise RulesFromFilesAlone(
                f"rules come from files alone here (rules_from); change those at {self._path or 'the rules folder of a process'}, which are "
                'then published, or start the server with `rules_from: "files, api"` (WHENTHEN_RULES_FROM): who has the API token can '
                "then run any command. A server with `public_url`, `open_loopback` or another address than loopback is not asked without it",
                status=403,
            )

    async def _rules(self, request: requests.RuleSetRequest) -> Rules:
        async with self._compiling:
            return await self._compiled(request)

    async def _compiled(self, request: requests.RuleSetRequest) -> Rules:
        kept = self._rule_registry.now.rules
        if request.files is None:
            if self._path is None:
                raise Conflict("this server has no rules folder of its own; name the rules: `whenthen apply RULES`")
            return await asyncio.to_thread(load_rules, self._path, also=self._also, kept=kept)
        if not request.files:
            raise InvalidInput("no rules files; name a folder that has some", path=("files",))
        for index, each in enumerate(request.files):
            if registered_names.is_registered(each.name):
                raise InvalidInput(
                    "what scripts have registered is no file of a rules folder, and stays; leave it out",
                    path=("files", index, "name"),
                )
        files = [SourceFile(name=file.name, raw=file.text.encode("utf-8", "surrogatepass")) for file in request.files]
        files.sort(key=lambda file: file.name)
        return await asyncio.to_thread(compile_files, kept.base, files, also=self._also, kept=kept)


def _described(revision: Revision, newest: int) -> answers.RuleRevision:
    return answers.RuleRevision(
        number=revision.number,
        current=revision.number == newest,
        digest=revision.digest,
        at=revision.at,
        who=revision.who,
        host=revision.host,
        pid=revision.pid,
        how="" if revision.trouble else revision.how.value,
        path=revision.path,
        rolled_back_to=revision.rolled_back_to or None,
        trouble=revision.trouble or None,
        **{kind: revision.counts.get(kind, 0) for kind in ("automations", "webhooks", "deployments", "notifiers")},
    )
