"""What a deployment needs and is not there: files, functions, programs, folders, parameters. All are warnings.

The worker that runs it may be another machine, and files may come later, so nothing is refused. What a function takes is read
from its syntax; nothing is imported. Called by `rules.folder`, for rules that are read on a machine which has their folder.
"""

from __future__ import annotations

import ast
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from whenthen.rules.plausibility.entry_parameters import EntryParameters, entry_file, entry_parameters, read_syntax
from whenthen.rules.references import Finding, Part, is_constant, written_actions
from whenthen.rules.validation_messages import nearest
from whenthen.schemas.actions import RunDeployment
from whenthen.schemas.automations import Automation
from whenthen.schemas.deployments import PLACEHOLDER, Deployment
from whenthen.schemas.entry_points import entry_point
from whenthen.schemas.errors import FieldPath
from whenthen.schemas.work_pools import WorkPool

__all__ = ["code_folder", "deployment_warnings"]

_UNKNOWN = frozenset({"PATH", "VIRTUAL_ENV"})  #: a deployment that sets one of these may find other programs


@dataclass(frozen=True, slots=True, kw_only=True)
class _Takes:
    """The parameters of a command or function."""

    required: frozenset[str]
    known: frozenset[str] | None  #: None when it takes any
    what: str  #: for messages
    types: EntryParameters | None = None  #: of a function


def deployment_warnings(parts: Iterable[Part], base: Path) -> Iterator[Finding]:
    """Each thing that the deployments of a set name and that is not there, and each parameter that does not fit."""
    if not base.is_dir():
        return
    parts = list(parts)
    takes: dict[str, tuple[Deployment, _Takes]] = {}
    files: dict[Path, ast.Module | str] = {}
    program_at = cache(shutil.which)  # which looks through all of PATH
    contained = {part.name for part in parts if isinstance(part.model, WorkPool) and part.model.type == "docker"}
    for part in parts:
        if isinstance(part.model, Deployment):
            folder = code_folder(part.model, base)
            if folder is None:
                continue
            found = _Deployment(part, folder, files, program_at, contained=part.model.work_pool in contained)
            yield from found.warnings()
            if found.takes is not None:
                takes[part.name] = (part.model, found.takes)
    for part in parts:
        if isinstance(part.model, Automation) and takes:
            for path, action in written_actions(part.model):
                if isinstance(action, RunDeployment) and action.deployment in takes:
                    deployment, wanted = takes[action.deployment]
                    given = action.parameters
                    if isinstance(given, Mapping):
                        for detail in _misfits(
                            wanted, {*deployment.parameters, *deployment.secret_parameters, *given}, given
                        ):
                            yield _warning(part, (*path, "parameters"), detail)


def code_folder(deployment: Deployment, base: Path) -> Path | None:
    """Where the code of a deployment is on this machine; None when it is elsewhere."""
    if deployment.code is None:
        return base
    folder = None if deployment.code.folder is None else Path(deployment.code.folder)
    return folder if folder is not None and folder.is_dir() else None


class _Deployment:
    """One deployment beside the folder of its rules. `takes` is known once `warnings` has run."""

    def __init__(
        self,
        part: Part,
        base: Path,
        files: dict[Path, ast.Module | str],
        program_at: Callable[[str], str | None],
        *,
        contained: bool,
    ) -> None:
        """`contained`: its runs are containers, whose programs and packages are those of an image."""
        assert isinstance(part.model, Deployment)
        self.takes: _Takes | None = None
        self._part = part
        self._model = part.model
        self._base = base
        self._files = files
        self._program_at = program_at
        self._contained = contained

    def warnings(self) -> Iterator[Finding]:
        model = self._model
        folder = self._base
        if model.working_dir is not None:
            folder = self._base / model.working_dir
            if not folder.is_dir():
                yield _warning(
                    self._part, ("working_dir",), f"there is no folder {model.working_dir!r} beside the rules"
                )
                folder = Path()
        if model.command is not None:
            yield from self._command(model.command, folder)
        else:
            yield from self._entry_point(model.entrypoint or "", folder)
            yield from self._interpreter()
        if self.takes is not None:
            defaults = [*model.parameters, *model.secret_parameters]
            for detail in (*_superfluous(self.takes, defaults), *_wrong(self.takes, model.parameters)):
                yield _warning(self._part, ("parameters",), detail)
            for index, schedule in enumerate(model.schedules):
                given = {*model.parameters, *model.secret_parameters, *schedule.parameters}
                for detail in _misfits(self.takes, given, schedule.parameters):
                    yield _warning(self._part, ("schedules", index), detail)

    def _command(self, words: list[str], folder: Path) -> Iterator[Finding]:
        names = frozenset(found[1].strip() for word in words for found in PLACEHOLDER.finditer(word))
        # others reach the command as environment variables
        self.takes = _Takes(required=names, known=None, what="the command")
        program = words[0]
        if PLACEHOLDER.search(program) or not program or _UNKNOWN & self._model.env.keys():
            return
        if os.sep in program:
            if folder != Path() and not (folder / program).is_file():
                yield _warning(
                    self._part, ("command",), f"there is no program {program!r} in the folder that it runs in"
                )
        elif not self._contained and self._program_at(program) is None:
            yield _warning(
                self._part,
                ("command",),
                f"there is no program {program!r} in PATH here; install it where the worker runs, or give its path",
            )

    def _may_be_installed(self, module: str) -> bool:
        if self._contained or self._model.python is not None or "PYTHONPATH" in self._model.env:
            return True  # in an environment that is not looked into
        try:
            # the first step alone: a further one would import it
            return find_spec(module.partition(".")[0]) is not None
        except (ImportError, ValueError):
            return False

    def _interpreter(self) -> Iterator[Finding]:
        word = self._model.python
        if word is None or self._contained or _UNKNOWN & self._model.env.keys():
            return
        there = (self._base / word).is_file() if os.sep in word else self._program_at(word) is not None
        if not there:
            where = "beside the rules" if os.sep in word else "in PATH here"
            yield _warning(
                self._part, ("python",), f"there is no interpreter {word!r} {where}; make it where the worker runs"
            )

    def _entry_point(self, written: str, folder: Path) -> Iterator[Finding]:
        point = entry_point(written)
        name = point.function.partition(".")[0]
        path = point.where
        file = entry_file(point, self._base, folder)
        if file is None:
            if not self._may_be_installed(point.where):
                detail = f"there is no module {path!r} beside the rules or installed here"
                yield _warning(self._part, ("entrypoint",), f"{detail}; install it where the worker runs")
            return
        tree = self._files.get(file)
        if tree is None:
            tree = self._files[file] = read_syntax(file)
        if isinstance(tree, str):
            yield _warning(self._part, ("entrypoint",), f"{path}: {tree}")
            return
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        function = functions.get(point.function)
        if function is not None:
            types = entry_parameters(tree, name)
            if types is not None:
                self.takes = _Takes(required=types.required, known=types.known, what=f"function {name}", types=types)
        elif name not in _bound(tree):
            yield _warning(
                self._part,
                ("entrypoint",),
                f"{path} has no function {name!r}" + nearest(name, functions, what="its functions"),
            )


def _bound(tree: ast.Module) -> set[str]:
    """The names that a module may have by other ways than `def` on its first level."""
    return {
        name
        for node in ast.walk(tree)
        for name in (
            [node.id]
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            else [node.name]
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            else [alias.asname or alias.name for alias in node.names]
            if isinstance(node, ast.Import | ast.ImportFrom)
            else []
        )
    } | ({"*"} if any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in tree.body) else set())


def _misfits(takes: _Takes, given: Iterable[str], own: Mapping[str, object]) -> Iterator[str]:
    """What is missing among all that is `given`, and what of one's `own` is superfluous."""
    missing = sorted(takes.required - set(given))
    if missing:
        yield f"{takes.what} needs {', '.join(map(repr, missing))}, which has no value here nor in the deployment"
    yield from _superfluous(takes, own)
    yield from _wrong(takes, own)


def _superfluous(takes: _Takes, given: Iterable[str]) -> Iterator[str]:
    for name in given:
        if takes.known is not None and name not in takes.known and is_constant(name):
            yield f"{takes.what} takes no parameter {name!r}" + nearest(name, takes.known, what="its parameters")


def _wrong(takes: _Takes, own: Mapping[str, object]) -> Iterator[str]:
    """What of one's `own` is of another type. A template may give anything."""
    if takes.types is None:
        return
    constant = {name: value for name, value in own.items() if _is_written_out(value)}
    for _, detail in takes.types.misfits(constant):
        yield f"{takes.what}: {detail}"


def _is_written_out(value: object) -> bool:
    if isinstance(value, str):
        return is_constant(value)
    if isinstance(value, Mapping):
        return all(map(_is_written_out, value.values()))
    return all(map(_is_written_out, value)) if isinstance(value, list) else True


def _warning(part: Part, path: FieldPath, detail: str) -> Finding:
    return Finding(part=part, path=path, detail=detail, warning=True)
