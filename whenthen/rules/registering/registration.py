"""What a set of rules is once a script has registered deployments, or taken some out. Pure: sets of files in and out.

Called by the server for `serve(...)`, `deploy(...)` and `whenthen deployments remove`. Meaning: docs/deployments.md, "From Python".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from whenthen.rules.folder import Rules
from whenthen.rules.reading.documents import read_document
from whenthen.rules.reading.source_files import SourceFile
from whenthen.rules.registering.registered_names import RegisteredName, is_registered, registered_name
from whenthen.schemas.base import same_json
from whenthen.schemas.deployments import Deployment
from whenthen.schemas.errors import Conflict, NotFound, did_you_mean
from whenthen.yaml_text import list_item

__all__ = ["NameTaken", "NewDeployment", "place_of", "registered", "with_registered", "without_registered"]

MOST_REGISTERED = 10_000  #: of one set


class NameTaken(Conflict):
    """A deployment that is to be registered has the name of one that somebody else has."""

    reason = "name_taken"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDeployment:
    """A deployment as a script gives it: its fields as they are written in rules, and read."""

    written: Mapping[str, Any]
    model: Deployment


def registered(
    before: Rules,
    new: Sequence[NewDeployment],
    *,
    script: str,
    served: bool,
    at_work: Collection[str],
) -> list[SourceFile]:
    """The files of `before` with these deployments registered by `script`. One of the same name is replaced. What the script served before
    and does not any more is taken out; `at_work` are the pools for which somebody works, and what is served there stays.

    Raises:
        NameTaken: a rules file has the name, or another script that works for it.
        Conflict: there would be too many.
    """
    found = _registered_of(before.files_read)
    current = {each.name: each for each in before.deployments}
    files = {file.name: file for file in before.files_read}
    for one in new:
        name, earlier = one.model.name, current.get(one.model.name)
        there = found.get(name)
        if there is None and earlier is not None:
            raise NameTaken(
                f"deployment {name!r} is in the rules file {_file_of(name, before.files_read)}; give the one of the script "
                "another name, or take that one out"
            )
        if there is not None and earlier is not None:
            if same_json(earlier, one.model) and there.served == served:
                continue
            if there.served and earlier.work_pool in at_work and not _is_same_code(earlier, one.model):
                raise NameTaken(
                    f"deployment {name!r} is served by {place_of(earlier)}, which works at the moment; stop that, or give "
                    "this one another name"
                )
            del files[there.file()]
        file = RegisteredName(name, script, served).file()
        files[file] = SourceFile(name=file, raw=_text(one.written))
    if served:
        kept = {one.model.name for one in new}
        for name, there in found.items():
            mine = there.served and there.script == script
            if mine and name not in kept and (name not in current or current[name].work_pool not in at_work):
                del files[there.file()]
    if sum(map(is_registered, files)) > MOST_REGISTERED:
        raise Conflict(
            f"more than {MOST_REGISTERED} deployments would be registered by scripts; take out those that are not needed "
            "with `whenthen deployments remove`"
        )
    return [files[name] for name in sorted(files)]


def without_registered(before: Rules, names: Collection[str]) -> list[SourceFile]:
    """The files of `before` without these deployments.

    Raises:
        NotFound: there is none of a name.
        NameTaken: a rules file has one.
    """
    found = _registered_of(before.files_read)
    known = {each.name for each in before.deployments}
    for name in names:
        if name in known and name not in found:
            raise NameTaken(
                f"deployment {name!r} is in the rules file {_file_of(name, before.files_read)}; take it out there"
            )
        if name not in found:
            raise NotFound(f"no script has registered a deployment {name[:200]!r}{did_you_mean(name, found)}")
    gone = {found[name].file() for name in names}
    return [file for file in before.files_read if file.name not in gone]


def with_registered(files: Sequence[SourceFile], before: Sequence[SourceFile]) -> Sequence[SourceFile]:
    """The files of a folder together with what scripts have registered in `before`."""
    kept = [file for file in before if is_registered(file.name)]
    return sorted([*files, *kept], key=lambda file: file.name) if kept else files


def _registered_of(files: Sequence[SourceFile]) -> dict[str, RegisteredName]:
    names = (registered_name(file.name) for file in files)
    return {name.deployment: name for name in names if name is not None}


def _is_same_code(one: Deployment, other: Deployment) -> bool:
    """Whether the second is the same program, maybe a later version of it."""
    return (one.entrypoint, one.command) == (other.entrypoint, other.command) and one.code == other.code


def place_of(deployment: Deployment) -> str:
    """Where the program of a deployment is, for people."""
    where = f" in {deployment.code.shown}" if deployment.code is not None else ""
    return f"{deployment.entrypoint or ' '.join(deployment.command or [])}{where}"


def _file_of(name: str, files: Sequence[SourceFile]) -> str:
    """The rules file that has a deployment of this name."""
    for file in files:
        data = {} if is_registered(file.name) else read_document(file.raw).data
        listed = data.get("deployments") if isinstance(data, dict) else None
        if any(isinstance(item, dict) and item.get("name") == name for item in listed or ()):
            return file.name
    return "of the server"


def _text(written: Mapping[str, Any]) -> bytes:
    return f"deployments:\n{list_item(written)}\n".encode("utf-8", "surrogatepass")
