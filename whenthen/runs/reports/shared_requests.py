"""What runs share, as the code of one attempt asks its worker for it: variables, secrets of the rules, artifacts.

A secret is masked in everything that the run tells before it is handed out. Called by `run_requests`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from whenthen.runs.shared.artifacts import ArtifactRecord
from whenthen.runs.shared.variables import Variables
from whenthen.runs.stores import Deployments, Stores
from whenthen.schemas.deployments import FlowRun
from whenthen.schemas.errors import NotFound, did_you_mean
from whenthen.schemas.work_pools import NamedSecret, same_name

__all__ = ["SHARED_KINDS", "SharedRequests", "artifact_item", "may_read"]

SHARED_KINDS: Final = ("variable.get", "variable.set", "variable.unset", "secret.get", "json.get", "artifact.get")


class SharedRequests:
    """Answers one attempt."""

    def __init__(
        self,
        run: FlowRun,
        stores: Stores,
        deployments: Deployments,
        *,
        clock: Callable[[], datetime],
        resolve: Callable[[str], str],
        hide: Callable[[str], None],
    ) -> None:
        """`resolve` gives the value of a reference, and raises NotFound; `hide` masks it in all that the run tells from then on."""
        self._run = run
        self._artifacts = stores.artifacts
        self._variables = Variables(stores.variables, clock=clock)
        self._deployments = deployments
        self._resolve = resolve
        self._hide = hide

    async def answer(self, kind: str, body: dict[str, Any]) -> Any:
        """
        Raises:
            InvalidInput, NotFound, Conflict, BusUnavailable: said to who asked.
        """
        name: Any = body.get("name")
        if kind == "variable.get":
            found = await self._variables.get(name)
            return None if found is None else {"value": found.value, "tags": list(found.tags)}
        if kind == "variable.set":
            await self._variables.set(
                name,
                body.get("value"),
                tags=body.get("tags") or (),
                overwrite=body.get("overwrite") is True,
                by=f"run:{self._run.id}",
            )
            return None
        if kind == "variable.unset":
            return await self._variables.unset(name)
        if kind == "json.get":
            return (await self._variables.of_name(name)).value
        if kind == "artifact.get":
            key = body.get("key")
            artifact = await self._artifacts.of_key(key if isinstance(key, str) else "")
            return None if artifact is None else artifact_item(artifact)
        return self._secret(str(name))

    def _secret(self, name: str) -> str:
        known = self._deployments.named_secrets()
        secret = known.get(same_name(name))
        if secret is None or not may_read(secret, self._run.deployment):
            readable = {each.name for each in known.values() if may_read(each, self._run.deployment)}
            raise NotFound(
                f"there is no secret {name[:80]!r} that runs of {self._run.deployment!r} may read{did_you_mean(name, readable)}; "
                "write it into `secrets:` of the rules"
            )
        value = self._resolve(secret.value)
        self._hide(value)
        return value


def may_read(secret: NamedSecret, deployment: str) -> bool:
    """Whether runs of a deployment may read a secret."""
    return secret.deployments is None or deployment in secret.deployments


def artifact_item(artifact: ArtifactRecord) -> dict[str, Any]:
    """An artifact for the code of a run."""
    return {
        "id": artifact.id,
        "key": artifact.key or None,
        "type": artifact.type or None,
        "description": artifact.description or None,
        "data": artifact.data,
        "metadata": artifact.metadata,
        "run": artifact.run,
        "task_run": artifact.task_run or None,
        "created": artifact.created,
        "updated": artifact.updated,
    }
