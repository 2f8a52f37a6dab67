"""Deployments of a test: what `runs.stores.Deployments` asks for, without rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from whenthen.schemas.deployments import Deployment
from whenthen.schemas.work_pools import NamedLimit, NamedSecret, WorkPool, same_name

__all__ = ["DeploymentSet"]


class DeploymentSet:
    """Deployments that are replaced as a whole, as when rules are loaded again."""

    def __init__(self, deployments: Sequence[Deployment] = ()) -> None:
        self._current: Mapping[str, Deployment] = {}
        self.pools: dict[str, WorkPool] = {}
        self.limits: list[NamedLimit] = []
        self.secrets: list[NamedSecret] = []
        self.replace(deployments)

    def current(self) -> Mapping[str, Deployment]:
        return self._current

    def work_pools(self) -> Mapping[str, WorkPool]:
        named = {deployment.work_pool for deployment in self._current.values()}
        return {**{name: WorkPool(name=name) for name in named}, **self.pools}

    def named_limits(self) -> Mapping[str, NamedLimit]:
        return {same_name(limit.name): limit for limit in self.limits}

    def named_secrets(self) -> Mapping[str, NamedSecret]:
        return {same_name(secret.name): secret for secret in self.secrets}

    def replace(self, deployments: Sequence[Deployment]) -> None:
        self._current = {deployment.name: deployment for deployment in deployments}
