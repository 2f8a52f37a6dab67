"""What runs share, as the API asks for it: variables, artifacts, named limits and leases of their slots."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime

from whenthen.engine.http import Listing, Page, bounded
from whenthen.engine.http import answer_models as answers
from whenthen.engine.process.id_prefixes import IdPrefixes
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.runs import Stores
from whenthen.runs.shared import artifacts, named_limits, variables
from whenthen.schemas.deployments import is_run_id
from whenthen.schemas.errors import NotFound

__all__ = ["SharedQueries"]


class SharedQueries:
    def __init__(
        self, stores: Stores, rule_registry: RuleRegistry, ids: IdPrefixes, clock: Callable[[], datetime]
    ) -> None:
        self._artifacts = stores.artifacts
        self._ids = ids
        self._variables = variables.Variables(stores.variables, clock=clock)
        self._limits = named_limits.NamedLimits(stores, rule_registry, clock=clock)

    async def list_variables(self, after: str | None) -> Listing[answers.VariableItem]:
        found = {variable.name: variable for variable in await self._variables.all()}
        return bounded(list(found), lambda name: _variable(found[name]), after=after)

    async def get_variable(self, name: str) -> answers.VariableItem:
        return _variable(await self._variables.of_name(name))

    async def set_variable(self, name: str, wanted: answers.VariableRequest) -> answers.VariableItem:
        made = await self._variables.set(name, wanted.value, tags=wanted.tags, overwrite=wanted.overwrite, by="api")
        return _variable(made)

    async def unset_variable(self, name: str) -> answers.Unset:
        return answers.Unset(name=name, unset=await self._variables.unset(name))

    async def list_artifacts(self, page: Page) -> Listing[answers.ArtifactItem]:
        run, key = page.filters.get("run"), page.filters.get("key")
        found = await self._artifacts.page(
            run_id=None if run is None else await self._ids.run(run),
            key=key,
            limit=page.limit,
            before=page.position,
        )
        listing: Listing[answers.ArtifactItem] = Listing(map(_artifact, found))
        if found.next is not None:
            listing.following = {"before": str(found.next)}
        return listing

    async def get_artifact(self, artifact_id: str) -> answers.ArtifactItem:
        """One, by its id, else by its key."""
        found = None
        if is_run_id(artifact_id):
            found = await self._artifacts.get(artifact_id)
        if found is None:
            found = await self._artifacts.of_key(artifact_id)
        if found is None:
            raise NotFound(f"there is no artifact {artifact_id[:80]!r}; `whenthen artifacts` lists them")
        return _artifact(found)

    async def list_limits(self) -> list[answers.NamedLimitItem]:
        return [
            answers.NamedLimitItem(
                name=state.limit.name,
                description=state.limit.description,
                slots=state.limit.slots,
                per_second=state.limit.per_second,
                taken=state.taken,
                holders=list(state.holders),
            )
            for state in await self._limits.states()
        ]

    async def lease_slots(self, wanted: answers.LeaseRequest) -> answers.LeaseAnswer:
        asked = named_limits.read_wanted(wanted.model_dump())
        found = await self._limits.lease(asked, wanted.lease_s)
        if found is None:
            return answers.LeaseAnswer(in_process=True)
        return answers.LeaseAnswer(wait_s=found) if isinstance(found, float) else _lease(found)

    async def renew_lease(self, lease: str) -> answers.LeaseAnswer:
        return _lease(await self._limits.renew(lease))

    async def release_lease(self, lease: str) -> answers.LeaseAnswer:
        await self._limits.release(lease)
        return answers.LeaseAnswer()


def _variable(record: variables.VariableRecord) -> answers.VariableItem:
    return answers.VariableItem(**{**asdict(record), "tags": list(record.tags)})


def _artifact(record: artifacts.ArtifactRecord) -> answers.ArtifactItem:
    return answers.ArtifactItem(**asdict(record))


def _lease(found: named_limits.Lease) -> answers.LeaseAnswer:
    return answers.LeaseAnswer(lease=found.id, until=found.until)
