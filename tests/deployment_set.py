"""Deployments of a test: what `runs.stores.Deployments` asks for, without rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from whenthen.schemas.deployments import Deployment

__all__ = ["DeploymentSet"]


class DeploymentSet:
    """Deployments that are replaced as a whole, as when rules are loaded again."""

    def __init__(self, deployments: Sequence[Deployment] = ()) -> None:
        self._current: Mapping[str, Deployment] = {}
        self.replace(deployments)

    def current(self) -> Mapping[str, Deployment]:
        return self._current

    def replace(self, deployments: Sequence[Deployment]) -> None:
        self._current = {deployment.name: deployment for deployment in deployments}
