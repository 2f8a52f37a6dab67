"""What the parts of a set of rules refer to: names that come twice, names that nothing has, and paths that lead out of its folder.

Called by `folder` once all files are read.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from whenthen.rules.validation_messages import nearest
from whenthen.schemas.actions import (
    ActionBase,
    PauseAutomation,
    PauseDeployment,
    PauseSchedule,
    PauseWorkPool,
    ResumeAutomation,
    ResumeDeployment,
    ResumeSchedule,
    ResumeWorkPool,
    RunDeployment,
    SendNotification,
)
from whenthen.schemas.automations import Automation, automations_of
from whenthen.schemas.deployments import Deployment
from whenthen.schemas.entry_points import entry_point
from whenthen.schemas.errors import FieldPath
from whenthen.schemas.work_pools import WorkPool, same_name

__all__ = [
    "Finding",
    "Names",
    "Part",
    "duplicates",
    "is_constant",
    "names_of",
    "stray_images",
    "stray_paths",
    "unknown_names",
    "with_owned",
    "written_actions",
]

SINGULAR = {
    "automations": "automation",
    "webhooks": "webhook",
    "deployments": "deployment",
    "notifiers": "notifier",
    "providers": "provider",
    "work_pools": "work pool",
    "sources": "source",
    "limits": "limit",
    "secrets": "secret",
}
_LISTS = ("actions", "actions_on_trigger", "actions_on_resolve")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One automation, webhook, deployment, ..., and where it was written."""

    file: str
    path: FieldPath  #: of the whole thing in its file
    model: BaseModel
    kind: str  #: a key of `SINGULAR`

    @property
    def name(self) -> str:
        return str(getattr(self.model, "name", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A problem of a part. `path` starts at the part; `other` is a second part that it is about. `warning`: see `Problem`."""

    part: Part
    path: FieldPath
    detail: str
    other: Part | None = None
    warning: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The names that references may use. `schedules` is by deployment, where they are known."""

    automations: frozenset[str]
    deployments: frozenset[str]
    notifiers: frozenset[str]
    work_pools: frozenset[str]  #: also those that only deployments name
    schedules: dict[str, frozenset[str]]


def duplicates(parts: Iterable[Part]) -> Iterator[Finding]:
    """Each part whose name another part of its kind had before."""
    first: dict[tuple[str, str], Part] = {}
    for part in parts:
        name = same_name(part.name) if part.kind in ("limits", "secrets") else part.name
        earlier = first.setdefault((part.kind, name), part)
        if earlier is not part:
            detail = f'{SINGULAR[part.kind]} "{part.name}" is defined twice; rename or remove one'
            yield Finding(part=part, path=("name",), detail=detail, other=earlier)


def with_owned(parts: Iterable[Part]) -> Iterator[Part]:
    """The parts, and the automations that belong to deployments among them, which are where their triggers are written."""
    for part in parts:
        yield part
        if isinstance(part.model, Deployment):
            for index, automation in enumerate(automations_of(part.model)):
                yield Part(file=part.file, path=(*part.path, "triggers", index), model=automation, kind="automations")


def stray_paths(parts: Iterable[Part], base: Path) -> Iterator[Finding]:
    """Each path of a deployment that leads out of `base`, the rules folder, by `..`, by a link, or as it is written; or out of the place of
    its code."""
    for part in parts:
        if not isinstance(part.model, Deployment):
            continue
        code = part.model.code
        outside = "the rules folder" if code is None else "the folder of its code"
        # links of a repository, or of a folder of another machine, are not to be seen here
        root = base.resolve() if code is None else Path(os.path.normpath(code.folder or "/repository"))
        entrypoint = None if part.model.entrypoint is None else entry_point(part.model.entrypoint).file
        for field, text in (("working_dir", part.model.working_dir), ("entrypoint", entrypoint)):
            if text is None:
                continue
            try:
                found = (root / text).resolve() if code is None else Path(os.path.normpath(root / text))
            except (OSError, RuntimeError, ValueError) as error:
                yield Finding(part=part, path=(field,), detail=f"{text[:200]!r} is no path: {error}")
                continue
            if not found.is_relative_to(root):
                through = "" if ".." in Path(text).parts or Path(text).is_absolute() else " (through a link)"
                detail = (
                    f"{text[:200]!r} leads out of {outside}{through}; move it there, or serve a folder that has both"
                )
                if field == "working_dir" and part.model.command is not None:
                    detail += "; a command runs elsewhere with `env -C /folder program`"
                yield Finding(part=part, path=(field,), detail=detail)


def stray_images(parts: Sequence[Part]) -> Iterator[Finding]:
    """Each deployment with an image in a work pool whose runs are no containers, and one without any in a pool whose are."""
    pools = {part.name: part.model for part in parts if isinstance(part.model, WorkPool)}
    for part in parts:
        if not isinstance(part.model, Deployment):
            continue
        pool = pools.get(part.model.work_pool) or WorkPool(name=part.model.work_pool)
        if part.model.image is not None and pool.type != "docker":
            detail = f'the work pool "{pool.name}" is not of `type: docker`, so that its runs have no image'
            yield Finding(part=part, path=("image",), detail=detail)
        elif pool.type == "docker" and (part.model.image or pool.image) is None:
            detail = f'runs in the work pool "{pool.name}" are containers; give the deployment an `image`, or the pool'
            yield Finding(part=part, path=("work_pool",), detail=detail)


def unknown_names(parts: Iterable[Part], names: Names, unread: Collection[str] = ()) -> Iterator[Finding]:
    """Each constant name in an action, and each queue of a work pool, that nothing in the set has. Templates are left to run time.

    Kinds in `unread` are not looked at: some of their names are not known, because a file could not be read.
    """
    for part in parts:
        if isinstance(part.model, Automation):
            for path, action in written_actions(part.model):
                for field, detail in _unknown(action, names, unread):
                    yield Finding(part=part, path=(*path, field), detail=detail)
        elif isinstance(part.model, WorkPool) and {"work_pools", "deployments"}.isdisjoint(unread):
            for index, queue in enumerate(part.model.queues):
                if queue not in names.work_pools:
                    detail = f'no work pool is named "{queue}"' + nearest(queue, names.work_pools, what="work pools")
                    yield Finding(part=part, path=("queues", index), detail=detail)


def written_actions(automation: Automation) -> Iterator[tuple[FieldPath, ActionBase]]:
    """Every action of an automation with its path."""
    for field in _LISTS:
        for index, action in enumerate(getattr(automation, field)):
            yield (field, index), action


def is_constant(text: str) -> bool:
    """Whether a templated field's text stands for itself: neither JSONPath nor Jinja."""
    return not (text == "$" or text.startswith(("$.", "$[")) or "{{" in text or "{%" in text)


def _unknown(action: ActionBase, names: Names, unread: Collection[str]) -> Iterator[tuple[str, str]]:
    if isinstance(action, (RunDeployment, PauseDeployment, ResumeDeployment, PauseSchedule, ResumeSchedule)):
        deployment = action.deployment
        if deployment is None or not is_constant(deployment) or "deployments" in unread:
            return
        if deployment not in names.deployments:
            yield (
                "deployment",
                f'no deployment is named "{deployment}"' + nearest(deployment, names.deployments, what="deployments"),
            )
        elif isinstance(action, (PauseSchedule, ResumeSchedule)) and is_constant(action.schedule):
            schedules = names.schedules.get(deployment)
            if schedules is not None and action.schedule not in schedules:
                detail = f'deployment "{deployment}" has no schedule "{action.schedule}"'
                known = nearest(action.schedule, schedules, what="its schedules")
                yield "schedule", detail + (known if schedules else "; it has no schedules")
    elif isinstance(action, (PauseWorkPool, ResumeWorkPool)):
        pool = action.work_pool
        if pool is None or not is_constant(pool) or not {"work_pools", "deployments"}.isdisjoint(unread):
            return
        if pool not in names.work_pools:
            yield "work_pool", f'no work pool is named "{pool}"' + nearest(pool, names.work_pools, what="work pools")
    elif isinstance(action, SendNotification):
        if action.notifier not in names.notifiers and "notifiers" not in unread:
            yield (
                "notifier",
                f'no notifier is named "{action.notifier}"'
                + nearest(action.notifier, names.notifiers, what="notifiers"),
            )
    elif isinstance(action, (PauseAutomation, ResumeAutomation)):
        automation = action.automation
        if "automations" in unread or automation is None or not is_constant(automation):
            return
        if automation not in names.automations:
            yield (
                "automation",
                f'no automation is named "{automation}"' + nearest(automation, names.automations, what="automations"),
            )


def names_of(parts: Iterable[Part]) -> Names:
    """The names that `parts` define."""
    found: dict[str, set[str]] = {kind: set() for kind in SINGULAR}
    schedules: dict[str, frozenset[str]] = {}
    for part in parts:
        found[part.kind].add(part.name)
        if isinstance(part.model, Deployment):
            found["work_pools"].add(part.model.work_pool)
            schedules[part.name] = frozenset(schedule.name for schedule in part.model.schedules)
    return Names(
        automations=frozenset(found["automations"]),
        deployments=frozenset(found["deployments"]),
        notifiers=frozenset(found["notifiers"]),
        work_pools=frozenset(found["work_pools"]),
        schedules=schedules,
    )
