"""Deployments that scripts register, `serve(...)` and `deploy(...)`: made a part of the rules in force, and taken out again.

Rules come in here, so it is refused where rules come from files alone. Meaning: docs/deployments.md, "From Python".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from whenthen.engine.http import answer_models as answers
from whenthen.engine.http import request_models as requests
from whenthen.engine.process.revisions.rules_in_force import RulesInForce
from whenthen.rules import Rules, explain
from whenthen.rules.changes import planned_changes
from whenthen.rules.registering import registered_names, registered_triggers, registration
from whenthen.runs import Stores
from whenthen.runs.shared import served_places
from whenthen.schemas.deployments import Deployment
from whenthen.schemas.errors import BusUnavailable, InvalidInput
from whenthen.schemas.work_pools import served_pool

__all__ = ["RegistrationCommands"]


class RegistrationCommands:
    """`check_allowed` raises `Refused` where requests may not put rules in force; `lost_after` is when a worker that is silent counts as gone."""

    def __init__(
        self,
        in_force: RulesInForce,
        stores: Stores,
        clock: Callable[[], datetime],
        *,
        check_allowed: Callable[[], None],
        lost_after: timedelta,
    ) -> None:
        self._in_force = in_force
        self._stores = stores
        self._clock = clock
        self._check_allowed = check_allowed
        self._lost_after = lost_after

    async def register_deployments(self, request: requests.RegistrationRequest) -> answers.Registration:
        """Register deployments of a script, and take out those that are named; with `preview` only say what would change."""
        if not request.preview:
            self._check_allowed()
        notes: list[str] = []
        new = [_new(item, index, request.served, notes) for index, item in enumerate(request.deployments)]
        names = [one.model.name for one in new]
        if twice := sorted({name for name in names if names.count(name) > 1})[:1]:
            raise InvalidInput(f"two deployments have the name {twice[0]!r}; rename one", path=("deployments",))
        if request.served and not request.preview:
            async with self._places_of(new):
                return await self._amend(request, new, notes)
        return await self._amend(request, new, notes)

    async def _amend(
        self, request: requests.RegistrationRequest, new: Sequence[registration.NewDeployment], notes: list[str]
    ) -> answers.Registration:
        names = [one.model.name for one in new]
        at_work = await self._pools_at_work()

        def amended(before: Rules) -> Sequence[Any]:
            if request.remove:
                return registration.without_registered(before, request.remove)
            return registration.registered(before, new, script=request.script, served=request.served, at_work=at_work)

        before, after = await self._in_force.amend(amended, who=request.who, publish=not request.preview)
        changes = planned_changes(before, after)
        changed = {change.name for change in changes if change.kind == "deployment"}
        warnings = [str(warning) for warning in after.warnings if _is_about(warning.file, names)]
        return answers.Registration(
            number=self._in_force.number,
            changes=[answers.PlannedChange(**change._asdict() | {"fields": list(change.fields)}) for change in changes],
            unchanged=[name for name in names if name not in changed],
            notes=[*notes, *warnings],
        )

    @asynccontextmanager
    async def _places_of(self, new: Sequence[registration.NewDeployment]) -> AsyncIterator[None]:
        """Have the places of all these served deployments, which their workers give back; with an error in the block none.

        Raises:
            NameTaken: another program has just registered one, and its worker is not there yet.
        """
        taken: list[Deployment] = []
        try:
            for one in sorted((each.model for each in new), key=lambda model: model.name):
                place = registration.place_of(one)
                other = await served_places.take_place(
                    self._stores.flags, one, place=place, now=self._clock(), lasts=self._lost_after
                )
                if other is not None:
                    raise registration.NameTaken(
                        f"deployment {one.name!r} was registered a moment ago by {other}, whose worker begins; stop that, or give "
                        "this one another name"
                    )
                taken.append(one)
            yield
        except BaseException:
            with suppress(BusUnavailable):  # then they are free after a time
                for one in taken:
                    await served_places.give_back(self._stores.flags, one.work_pool, of=one)
            raise

    async def _pools_at_work(self) -> Collection[str]:
        now = self._clock()
        return {
            worker.pool
            for worker in await self._stores.workers.all()
            if now - datetime.fromisoformat(worker.seen) <= self._lost_after
        }


def _new(item: requests.GivenDeployment, index: int, served: bool, notes: list[str]) -> registration.NewDeployment:
    """A deployment of the request, read. What is said of its triggers is added to `notes`."""
    written = {name: value for name, value in item.rule.items() if name != "triggers"}
    name = str(written.get("name"))
    of_rule = item.rule.get("triggers")
    if of_rule is not None and not isinstance(of_rule, list):
        raise InvalidInput(
            f"deployment {name!r}: wanted a list of triggers, found {str(of_rule)[:80]!r}",
            path=("deployments", index, "rule", "triggers"),
        )
    given = [*(of_rule or ()), *item.triggers]
    try:
        triggers, said = registered_triggers.own_triggers(given, name)
    except InvalidInput as error:
        raise InvalidInput(error.detail, path=("deployments", index, *error.path)) from None
    notes += said
    if triggers:
        written["triggers"] = triggers
    if served:
        written["work_pool"] = served_pool(name)
    try:
        return registration.NewDeployment(written=written, model=Deployment.model_validate(written))
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        first = next(iter(explain(errors, written, Deployment)))
        raise InvalidInput(
            f"deployment {name!r}: {first.detail}", path=("deployments", index, "rule", *first.path)
        ) from None


def _is_about(file: str, names: Collection[str]) -> bool:
    found = registered_names.registered_name(file)
    return found is not None and found.deployment in names
