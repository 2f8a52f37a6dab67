"""Rules from a folder of YAML files, or one file: all of them are sound, or none of them is loaded.

Called by `whenthen check`, by `serve` at the start, and by `watcher` on every change. What the fields mean is in
`whenthen.schemas`; what they mean for events is in docs/rules.md.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from whenthen.rules.compilation import Compilation, CompiledRule
from whenthen.rules.plausibility.deployment_warnings import code_folder, deployment_warnings
from whenthen.rules.plausibility.divided_sources import divided_sources
from whenthen.rules.plausibility.entry_parameters import entry_file, entry_parameters, read_syntax
from whenthen.rules.plausibility.implausible import implausible
from whenthen.rules.reading.documents import Places, read_document
from whenthen.rules.reading.source_files import SourceFile, is_empty, read_files
from whenthen.rules.references import (
    SINGULAR,
    Finding,
    Part,
    duplicates,
    names_of,
    stray_images,
    stray_paths,
    unknown_names,
    with_owned,
)
from whenthen.rules.registering.registered_names import is_registered
from whenthen.rules.self_triggering import loops
from whenthen.rules.validation_messages import explain
from whenthen.schemas.automations import Automation, Notifier, RuleFile
from whenthen.schemas.deployments import Deployment
from whenthen.schemas.entry_points import entry_point
from whenthen.schemas.errors import FieldPath, InvalidRules, Problem
from whenthen.schemas.event_sources import Source
from whenthen.schemas.providers import Provider
from whenthen.schemas.webhooks import Webhook
from whenthen.schemas.work_pools import NamedLimit, NamedSecret, WorkPool

__all__ = [
    "Checker",
    "Rules",
    "check_rules",
    "compile_files",
    "load_rules",
]

#: Looks at one part, an automation, webhook, ..., and yields each problem: the path of the field inside it
#: (`("trigger", "when")`) and what is wrong with the remedy.
Checker = Callable[[BaseModel], Iterable[tuple[FieldPath, str]]]

MAX_PROBLEMS = 1000  #: reported for one set; the last one says how many more there are
MOST_ERRORS = 2 * MAX_PROBLEMS  #: of one file that are explained; several may be one problem
_ITEMS: dict[str, type[BaseModel]] = {
    "automations": Automation,
    "webhooks": Webhook,
    "deployments": Deployment,
    "notifiers": Notifier,
    "providers": Provider,
    "work_pools": WorkPool,
    "sources": Source,
    "limits": NamedLimit,
    "secrets": NamedSecret,
}
_KINDS = frozenset(_ITEMS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """A set of rules in which everything fits together. Order is that of the files' names, then of the text."""

    automations: tuple[Automation, ...] = ()
    webhooks: tuple[Webhook, ...] = ()
    deployments: tuple[Deployment, ...] = ()
    notifiers: tuple[Notifier, ...] = ()
    providers: tuple[Provider, ...] = ()
    work_pools: tuple[WorkPool, ...] = ()
    files: tuple[str, ...] = ()  #: relative to `base`
    sources: tuple[Source, ...] = ()
    limits: tuple[NamedLimit, ...] = ()
    secrets: tuple[NamedSecret, ...] = ()
    files_read: tuple[SourceFile, ...] = field(default=(), compare=False, repr=False)  #: the files as they were read
    base: Path = Path()  #: what entry points and working directories are relative to
    revision: str = ""  #: changes when, and only when, the name or content of a file does
    own_revision: str = ""  #: the same of the files without those that scripts have registered
    warnings: tuple[Problem, ...] = field(
        default=(), compare=False, repr=False
    )  #: what probably is not meant, in file order
    #: by name, what the checks compiled; empty when others stood in for them
    compiled: Mapping[str, CompiledRule] = field(default_factory=dict, compare=False, repr=False)

    def entry_schema(self, name: str) -> dict[str, Any] | None:
        """JSON Schema of the parameters of a deployment's function, read from its file as that is now; None when it can not be known."""
        deployment = next((one for one in self.deployments if one.name == name), None)
        if deployment is None or deployment.entrypoint is None:
            return None
        if (folder := code_folder(deployment, self.base)) is None:
            return None
        point = entry_point(deployment.entrypoint)
        file = entry_file(point, folder, folder / (deployment.working_dir or ""))
        tree = "" if file is None else read_syntax(file)
        found = None if isinstance(tree, str) else entry_parameters(tree, point.function)
        return None if found is None else found.schema()

    def counts(self) -> dict[str, int]:
        """How many there are of each kind."""
        return {kind: len(getattr(self, kind)) for kind in _ITEMS}


def load_rules(
    path: str | os.PathLike[str],
    *,
    checkers: Sequence[Checker] | None = None,
    also: Sequence[Checker] = (),
    kept: Rules | None = None,
) -> Rules:
    """Read and check the rules at `path`, a folder or one file.

    `checkers` stand in for the checks of conditions, templates and webhooks; None means all that there are. `also` are further ones, such
    as of what the settings of a process have to have.
    What those compiled is in the result. Automations that are the same in `kept`, rules that were loaded before, are
    taken from there as they were compiled.

    Raises:
        InvalidRules: with every problem found, in file order. Nothing is taken from a set with a problem.
    """
    base, files = read_files(path)
    return compile_files(base, files, checkers=checkers, also=also, kept=kept)


def compile_files(
    base: Path,
    files: Sequence[SourceFile],
    *,
    checkers: Sequence[Checker] | None = None,
    also: Sequence[Checker] = (),
    kept: Rules | None = None,
) -> Rules:
    """As `load_rules`, of files that were read already."""
    rules, problems = _examine(base, files, checkers, kept, also)
    if problems:
        raise InvalidRules(problems)
    return rules


def check_rules(path: str | os.PathLike[str], *, checkers: Sequence[Checker] | None = None) -> list[Problem]:
    """Every problem of the rules at `path`, in file order; empty when `load_rules` would return them."""
    base, files = read_files(path)
    return _examine(base, files, checkers)[1]


class _FileReport:
    """The problems of one file. Places are looked up only when there is a problem to point at."""

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self._places: Places | None = None
        self._problems: list[Problem] = []

    @property
    def places(self) -> Places:
        if self._places is None:
            self._places = Places()
            read_document(self._file.raw, self._places)
        return self._places

    def add(self, path: FieldPath, detail: str, *, at_key: bool = False, warning: bool = False) -> None:
        line, column = self.places.key(path) if at_key else self.places.value(path)
        self.add_at(line, column, path, detail, warning=warning)

    def add_at(self, line: int, column: int, path: FieldPath, detail: str, *, warning: bool = False) -> None:
        self._problems.append(
            Problem(file=self._file.name, line=line, column=column, path=path, detail=detail, warning=warning)
        )

    def sorted(self, *, warnings: bool) -> list[Problem]:
        """The warnings, or the other problems."""
        found = [problem for problem in self._problems if problem.warning is warnings]
        return sorted(found, key=lambda problem: (problem.line, problem.column, problem.field))


def _examine(
    base: Path,
    files: Sequence[SourceFile],
    checkers: Sequence[Checker] | None,
    kept: Rules | None = None,
    also: Sequence[Checker] = (),
) -> tuple[Rules, list[Problem]]:
    compilation = Compilation(kept.compiled if kept is not None else None)
    checkers = (*((compilation.check,) if checkers is None else checkers), *also)
    reports = {file.name: _FileReport(file) for file in files}
    parts: list[Part] = []
    unsound: list[Part] = []  # known by their names alone
    unread: set[str] = set()  # kinds of which some names are not known
    for file in files:
        reading = _read(file, reports[file.name])
        parts += reading.parts
        unsound += reading.unsound
        unread |= reading.unread
    parts = list(with_owned(parts))
    if any(file.held for file in files):
        files, parts = _without_replaced(files, parts, unsound)
    named = sorted([*parts, *unsound], key=lambda part: (part.file, *part.path)) if unsound else parts
    compilation.providers = {part.name: part.model for part in parts if isinstance(part.model, Provider)}
    compilation.providers_known = "providers" not in unread and not any(part.kind == "providers" for part in unsound)
    findings: list[Finding] = []
    searches = [
        duplicates(named),
        unknown_names(parts, names_of(named), unread),
        divided_sources(parts),
        stray_paths(parts, base),
        loops(parts),
    ]
    if "work_pools" not in unread and not any(part.kind == "work_pools" for part in unsound):
        searches.append(stray_images(parts))
    for search in (*searches, implausible(parts), deployment_warnings(parts, base)):
        findings += islice(search, MAX_PROBLEMS)
    for finding in findings:
        part, report = finding.part, reports[finding.part.file]
        path = (*part.path, *_as_written(part, finding.path, report))
        report.add(path, _with_other(finding, reports), warning=finding.warning)
    for part, path, detail in islice(_checked(parts, checkers), MAX_PROBLEMS):
        reports[part.file].add((*part.path, *_as_written(part, path, reports[part.file])), detail)
    problems = _limited([problem for report in reports.values() for problem in report.sorted(warnings=False)], base)
    warnings = _limited([problem for report in reports.values() for problem in report.sorted(warnings=True)], base)
    # who writes `automations: []` means it
    if not named and not problems and all(is_empty(file.raw) for file in files):
        detail = "there are no rules: no file *.yaml or *.yml that has any; is this the path meant?"
        warnings = [Problem(file=str(base), line=0, column=0, path=(), detail=detail, warning=True)]
    return _rules(base, files, parts, compilation.automations, warnings), problems


def _limited(problems: list[Problem], base: Path) -> list[Problem]:
    """The first of them, and how many more there are."""
    if len(problems) <= MAX_PROBLEMS:
        return problems
    more = f"and at least {len(problems) - MAX_PROBLEMS} more problems in this set"
    last = Problem(file=str(base), line=0, column=0, path=(), detail=more, warning=problems[0].warning)
    return [*problems[:MAX_PROBLEMS], last]


def _without_replaced(
    files: Sequence[SourceFile], parts: Sequence[Part], unsound: Sequence[Part]
) -> tuple[list[SourceFile], list[Part]]:
    """Leave out of held files what other files have, and held files of which nothing is left."""
    held = {file.name for file in files if file.held}
    there = {(part.kind, part.name) for part in (*parts, *unsound) if part.file not in held}
    kept = [part for part in parts if part.file not in held or (part.kind, part.name) not in there]
    needed = {part.file for part in kept}
    return [file for file in files if not file.held or file.name in needed], kept


def _checked(parts: Sequence[Part], checkers: Sequence[Checker]) -> Iterator[tuple[Part, FieldPath, str]]:
    for part in parts:
        for checker in checkers:
            for path, detail in checker(part.model):
                yield part, path, detail


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """What one file gave."""

    parts: Sequence[Part] = ()  #: sound ones
    unsound: Sequence[Part] = ()  #: ones with problems, with no more than their names
    unread: frozenset[str] = frozenset()  #: kinds of which there may be more


class _Named(BaseModel):
    """What is known of something that does not validate."""

    name: str


def _read(file: SourceFile, report: _FileReport) -> _Reading:
    if file.trouble:
        report.add_at(0, 0, (), file.trouble)
        return _Reading(unread=_KINDS)
    document = read_document(file.raw)
    if document.too_large:
        for fault in document.faults:
            report.add_at(fault.line, fault.column, fault.path, fault.detail)
        return _Reading(unread=_KINDS)
    if document.faults:
        for fault in read_document(file.raw, report.places).faults:
            report.add_at(fault.line, fault.column, fault.path, fault.detail)
        if document.broken:
            return _Reading(unread=_KINDS)
    data = document.data
    if isinstance(data, dict):
        # `automations:` with nothing below it is an empty list
        data = {key: value for key, value in data.items() if value is not None or key not in _ITEMS}
    elif data is None:
        return _Reading()
    try:
        model = RuleFile.model_validate(data)
    except ValidationError as error:
        many = error.error_count() > MOST_ERRORS
        errors = list(islice(_first_errors(data), MOST_ERRORS)) if many else _errors_of(error)
        for item in explain(errors, data, RuleFile, spelling=report.places.spelling):
            report.add(item.path, item.detail, at_key=item.at_key)
        return _Reading(unread=_KINDS) if many else _salvage(file, data)
    parts = [
        Part(file=file.name, path=(kind, index), model=item, kind=kind)
        for kind in _ITEMS
        for index, item in enumerate(getattr(model, kind))
    ]
    return _Reading(parts=parts)


def _errors_of(error: ValidationError, *path: str | int) -> list[Mapping[str, Any]]:
    """What pydantic found, below `path`. Of very much only how much it is: it gives all or nothing."""
    if error.error_count() > MOST_ERRORS:
        message = ValueError(f"{error.error_count()} problems here; is this file meant to be rules?")
        return [{"type": "value_error", "loc": path, "ctx": {"error": message}, "msg": ""}]
    errors = error.errors(include_url=False, include_input=False)
    return [{**each, "loc": (*path, *each["loc"])} for each in errors]


def _first_errors(data: Any) -> Iterator[Mapping[str, Any]]:
    """What is wrong with a file in which very much is, part by part, so that one need not wait for all of it."""
    around = {key: value for key, value in data.items() if key not in _ITEMS or not isinstance(value, list)}
    try:
        RuleFile.model_validate(around)
    except ValidationError as error:
        yield from _errors_of(error)
    for kind, model in _ITEMS.items():
        items = data.get(kind)
        for index, item in enumerate(items if isinstance(items, list) else []):
            try:
                model.model_validate(item)
            except ValidationError as error:
                yield from _errors_of(error, kind, index)


def _salvage(file: SourceFile, data: Any) -> _Reading:
    """What is sound in a file that is not, so that its other problems are reported in the same run."""
    parts: list[Part] = []
    unsound: list[Part] = []
    unread = set() if isinstance(data, dict) else set(_KINDS)
    for kind, model in _ITEMS.items():
        items = data.get(kind, []) if isinstance(data, dict) else []
        if not isinstance(items, list):
            unread.add(kind)
        for index, item in enumerate(items if isinstance(items, list) else []):
            path: FieldPath = (kind, index)
            try:
                parts.append(Part(file=file.name, path=path, model=model.model_validate(item), kind=kind))
            except ValidationError:
                name = item.get("name") if isinstance(item, dict) else None
                if isinstance(name, str):
                    unsound.append(Part(file=file.name, path=path, model=_Named(name=name), kind=kind))
                else:
                    unread.add(kind)
    return _Reading(parts=parts, unsound=unsound, unread=frozenset(unread))


def _with_other(finding: Finding, reports: dict[str, _FileReport]) -> str:
    if finding.other is None:
        return finding.detail
    line, column = reports[finding.other.file].places.value((*finding.other.path, "name"))
    return f"{finding.detail}; the first one is at {finding.other.file}:{line}:{column}"


def _as_written(part: Part, path: FieldPath, report: _FileReport) -> FieldPath:
    """`path` in the spelling of the file: the short form of an action has its field under the action's own name, and the one action of an
    automation that belongs to a deployment is written as fields beside its trigger."""
    if part.path[0] != part.kind and path[:2] == ("actions", 0):
        return path[2:]
    if len(path) == 3 and isinstance(path[0], str) and path[0].startswith("actions") and isinstance(path[1], int):
        action = getattr(part.model, path[0])[path[1]]
        short = (*path[:2], action.type)
        if path[2] == action.primary and (*part.path, *short) in report.places.keys:
            return short
    return path


def _rules(
    base: Path,
    files: Sequence[SourceFile],
    parts: Sequence[Part],
    compiled: Mapping[str, CompiledRule],
    warnings: Sequence[Problem],
) -> Rules:
    found: dict[str, Any] = {kind: tuple(part.model for part in parts if part.kind == kind) for kind in SINGULAR}
    revision = _digest(files)
    own = [file for file in files if not is_registered(file.name)]
    names = tuple(file.name for file in files)
    return Rules(
        **found,
        files=names,
        files_read=tuple(files),
        base=base,
        revision=revision,
        own_revision=revision if len(own) == len(files) else _digest(own),
        warnings=tuple(warnings),
        compiled=compiled,
    )


def _digest(files: Iterable[SourceFile]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{len(file.name)}:{file.name}:{len(file.raw)}:".encode("utf-8", "surrogateescape") + file.raw)
    return digest.hexdigest()[:16]
