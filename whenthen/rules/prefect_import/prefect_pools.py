"""The work pools of imported deployments: queues that the workers of their pool take, and pools whose runs are containers.

Called by `importer`, when all deployments are known. Meaning: docs/prefect.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from whenthen.rules.prefect_import.import_notes import Aspect, ImportNotes
from whenthen.rules.prefect_import.prefect_deployments import ImportedDeployment

__all__ = ["import_pools"]

MOST_QUEUES = 20  #: of a pool, as the rules have it
_DEFAULT = "default"


def import_pools(deployments: Iterable[ImportedDeployment], notes: ImportNotes) -> list[dict[str, Any]]:
    """The `work_pools` that the rules of these deployments need. An image that no container would be made of is taken out of its deployment."""
    kept = [one for one in deployments if one.rule is not None]
    pools: dict[str, dict[str, Any]] = {}
    for name, members in _by_pool(kept).items():
        if _are_containers(name, members, notes):
            pools[name] = {"name": name, "type": "docker"}
    for one in kept:
        if one.queue_of is None:
            continue
        queue = _pool_of(one)
        queues = pools.setdefault(one.queue_of, {"name": one.queue_of}).setdefault("queues", [])
        if queue in queues:
            continue
        if len(queues) == MOST_QUEUES:
            notes.add(
                f"deployment {one.name!r}",
                f"a pool has at most {MOST_QUEUES} queues here; start workers for {queue!r}",
                Aspect.POOL,
            )
            continue
        queues.append(queue)
    for pool in pools.values():
        if len(pool.get("queues", ())) > 1:
            notes.add(
                f"pool {pool['name']!r}",
                "the file does not say the priorities of its queues; those that stand first in `queues` are served first",
            )
    return list(pools.values())


def _by_pool(deployments: Iterable[ImportedDeployment]) -> dict[str, list[ImportedDeployment]]:
    pools: dict[str, list[ImportedDeployment]] = {}
    for one in deployments:
        pools.setdefault(_pool_of(one), []).append(one)
    return pools


def _pool_of(one: ImportedDeployment) -> str:
    return str((one.rule or {}).get("work_pool", _DEFAULT))


def _are_containers(pool: str, members: list[ImportedDeployment], notes: ImportNotes) -> bool:
    having = [one.rule for one in members if one.rule is not None and "image" in one.rule]
    if having and len(having) == len(members) and pool != _DEFAULT:
        notes.add(
            f"pool {pool!r}",
            "its runs are containers of `docker`, which its workers need; the rules folder lies in them, and an image needs "
            "Python with pydantic",
        )
        return True
    why = "those of `default` are processes" if pool == _DEFAULT else "another deployment of its pool has none"
    for one in members:
        if one.rule is not None and one.rule.pop("image", None) is not None:
            notes.add(
                f"deployment {one.name!r}",
                f"work_pool.job_variables.image: a pool is one of containers when all its runs have an image, and {why}; left out",
            )
    return False
