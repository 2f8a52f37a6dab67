"""Deployments of a prefect.yaml as ours: what the built-in orchestrator needs to run them.

Called by `importer`. Everything that has no counterpart is said through `ImportNotes`. Meaning: docs/prefect.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from whenthen.rules.prefect_import.flow_names import FlowNames, function_name
from whenthen.rules.prefect_import.import_notes import Aspect, ImportNotes
from whenthen.rules.prefect_import.model_problems import field_at_fault, problem_of
from whenthen.rules.prefect_import.placeholders import Placeholders, has_placeholder, placeholders_in
from whenthen.rules.prefect_import.prefect_schedules import import_schedules
from whenthen.schemas.deployments import Deployment
from whenthen.schemas.entry_points import EntryPoint, entry_point

__all__ = ["ImportedDeployment", "import_deployments", "import_steps"]

_READ = frozenset(
    {"name", "description", "entrypoint", "tags", "parameters", "work_pool", "work_queue_name", "job_variables", "concurrency_limit"}
    | {"schedule", "schedules", "triggers", "paused", "is_schedule_active", "flow_name", "pull", "build", "push", "version"}
)  # fmt: skip
_POOL = frozenset({"name", "work_queue_name", "job_variables"})
#: which aspect a field of ours is about
_ASPECTS = {
    "entrypoint": Aspect.CODE,
    "parameters": Aspect.PARAMETERS,
    "secret_parameters": Aspect.PARAMETERS,
    "schedules": Aspect.SCHEDULES,
    "work_pool": Aspect.POOL,
    "concurrency_limit": Aspect.LIMITS,
    "concurrency": Aspect.LIMITS,
}
_NO_ENTRY_POINT = "it has no entry point, so nothing is known that could run; left out"
_CLONES = ("git_clone", "git_clone_project")
#: the folder of a clone, or one below it
_CLONE_FOLDER = re.compile(
    r"(?:/(?:[\w.-]+/)*)?\{\{\s*([\w-]+)\.directory\s*\}\}((?:/(?!\.\.?(?:/|$))[\w.-]+)*)/?", re.ASCII
)
_BLOCK = re.compile(r"prefect\.blocks\.[\w-]+\.([\w-]+)(?:\.[\w-]+)*", re.ASCII)
_STEPS = {
    "git_clone": "check it out where the workers run, and put these rules into its folder",
    "git_clone_project": "check it out where the workers run, and put these rules into its folder",
    "set_working_directory": "runs work in the folder of these rules; put them into the one that has the code",
    "pip_install_requirements": "install what the code needs where the workers run; `python` of a deployment names an environment",
    "run_shell_script": "it is not run before each run; do it where the workers run, or in the flow",
}
_BESIDE = "runs work in another clone; check this one out where the workers run, and give its folder to the flow"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clone:
    """Where the steps of pulling end."""

    step: dict[str, Any]  #: the one that clones it
    code: dict[str, Any]  #: it in our words
    folder: str = ""  #: in which runs work, relative to it


@dataclass(slots=True, kw_only=True)
class ImportedDeployment:
    """One deployment of the file."""

    written: dict[str, Any]
    short: str  #: the name that the file gives
    name: str  #: `flow/short`
    rule: dict[str, Any] | None  #: None when it could not be carried over
    triggers: list[Any] = field(default_factory=list)
    queue_of: str | None = None  #: the pool of whose queues its own is one


def import_deployments(
    document: dict[str, Any], places: Placeholders, notes: ImportNotes, flow_name: FlowNames
) -> list[ImportedDeployment]:
    """The deployments of a prefect.yaml in the order of the file. Of two with the same flow and name, the last one, as when Prefect deploys them."""
    found: dict[str, ImportedDeployment] = {}
    listed, pull = document.get("deployments"), document.get("pull")
    for number, written in enumerate(listed if isinstance(listed, list) else []):
        if not isinstance(written, dict):
            notes.add(f"deployments[{number}]", "not a mapping; left out", Aspect.CODE)
            continue
        if not written.get("name") and not written.get("entrypoint"):
            notes.add(
                f"deployments[{number}]", "it has neither name nor entry point, as `prefect init` leaves it; left out"
            )
            continue
        one = _Deployment(written, places, notes, flow_name, written.get("pull") or pull).imported()
        if one.name in found:
            notes.add(f"deployment {one.name!r}", "the file has it twice; the last one counts, as in Prefect")
            del found[one.name]
        found[one.name] = one
    return list(found.values())


def import_steps(document: dict[str, Any], places: Placeholders, notes: ImportNotes) -> None:
    """Name the steps of building, pushing and pulling that no deployment has as its `code`, those of the file and those of single deployments."""
    listed = document.get("deployments")
    for where in (document, *(listed if isinstance(listed, list) else ())):
        if not isinstance(where, dict):
            continue
        subject = "" if where is document else f"deployment {str(where.get('name'))[:200]!r}"
        for kind in ("build", "push"):
            if steps := list(_steps(where.get(kind))):
                names = ", ".join(dict.fromkeys(name for name, _ in steps))
                notes.add(subject, f"{kind}: {names}: nothing is built here; do it where you build your software")
        clone = _cloned(where.get("pull"), places)
        for name, step in _steps(where.get("pull")):
            if clone is not None and (step is clone.step or _is_of_clone(name, step)):
                if (
                    isinstance(step, dict)
                    and isinstance(step.get("access_token"), str)
                    and "{{" not in step["access_token"]
                ):
                    notes.add(
                        subject,
                        f"pull: {name}{_of_what(step)}: its token stands in the file; give `token: env:NAME` in `code`",
                    )
                continue
            if clone is not None and name in _CLONES:
                notes.add(subject, f"pull: {name}{_of_what(step)}: {_BESIDE}")
                continue
            remedy = _STEPS.get(name, "bring the code to the folder of these rules where the workers run")
            notes.add(subject, f"pull: {name}{_of_what(step)}: {remedy}")


class _Deployment:
    """One deployment on its way."""

    def __init__(
        self,
        written: dict[str, Any],
        places: Placeholders,
        notes: ImportNotes,
        flow_name: FlowNames,
        pull: Any,
    ) -> None:
        self._folders = _folders(pull)  #: in which it runs, where they are absolute
        self._clone = _cloned(pull, places)
        self._queue_of: str | None = None
        self._written = written
        self._places = places
        self._notes = notes
        self._flow_name = flow_name
        self._subject = ""

    def imported(self) -> ImportedDeployment:
        self._subject = f"deployment {str(self._written.get('name'))[:200]!r}"
        short = self._named(self._written.get("name"), "deployment") or "default"
        point, problem = self._entry_point()
        flow = self._places.filled(self._written.get("flow_name")) or (
            None if point is None else self._flow_name(point) or function_name(point)
        )
        name = f"{_name(flow)}/{short}"[:200].strip() if flow else short
        self._subject = f"deployment {name!r}"
        if not self._written.get("name"):
            self._say("Prefect asks for its name; it is `default` here")
        one = ImportedDeployment(written=self._written, short=short, name=name, rule=None)
        if point is None:
            self._say(problem, lost=Aspect.CODE)
            return one
        below = f"{self._clone.folder}/" if self._clone and self._clone.folder and point.where.endswith(".py") else ""
        ours: dict[str, Any] = {"name": name, "entrypoint": f"{below}{point.where}:{point.function}"}
        if self._written.get("description"):
            ours["description"] = str(self._places.filled(self._written["description"]))[:20_000]
        ours |= self._parameters()
        ours |= self._pool()
        self._set_code(ours)
        one.queue_of = self._queue_of
        if (version := self._written.get("version")) is not None:
            ours["version"] = str(self._places.filled(version))
            self._say_unknown(ours["version"], "version")
        if tags := self._tags():
            ours["tags"] = tags
        ours |= self._limit()
        paused = self._written.get("paused") in (True, "true") or self._written.get("is_schedule_active") is False
        schedules = import_schedules(self._written, self._subject, self._places, self._notes, paused=paused)
        if schedules:
            ours["schedules"] = schedules
        elif paused:
            self._say("`paused` pauses its schedules, and it has none")
        self._name_others()
        one.rule = self._valid(ours)
        if one.rule is not None:
            triggers = self._written.get("triggers") or []
            one.triggers = triggers if isinstance(triggers, list) else [triggers]
        return one

    def _entry_point(self) -> tuple[EntryPoint | None, str]:
        text = self._places.filled(self._written.get("entrypoint"))
        if not isinstance(text, str) or not text.strip():
            return None, _NO_ENTRY_POINT
        text = text.strip().replace("\\", "/")
        while text.startswith("./"):
            text = text[2:]
        if has_placeholder(text):
            return None, f"its entry point {text[:200]!r} has a placeholder that is not known here; left out"
        for folder in self._folders:
            text = text.removeprefix(f"{folder.rstrip('/')}/")
        if text.startswith(("/", "../")):
            return None, f"its entry point {text[:200]!r} is outside of the project; write it by hand; left out"
        if ":" not in text and "/" not in text:
            text = ":".join(text.rsplit(".", 1))  # Prefect also takes package.module.function
        try:
            return entry_point(text), ""
        except ValueError as error:
            return None, f"left out, write it by hand: entrypoint: {error}"

    def _set_code(self, ours: dict[str, Any]) -> None:
        """Say where its code is, when a step of pulling clones it; it works there, and not in the `working_dir` of the process that clones."""
        if self._clone is None:
            return
        ours["code"] = self._clone.code
        ours.pop("working_dir", None)
        if self._clone.folder:
            ours["working_dir"] = self._clone.folder
        if "token" in self._clone.code:
            self._say_reference(self._clone.code["token"])

    def _parameters(self) -> dict[str, Any]:
        parameters = self._written.get("parameters")
        if not parameters:
            return {}
        if not isinstance(parameters, dict):
            self._say("`parameters` is not a mapping; left out", lost=Aspect.PARAMETERS)
            return {}
        plain: dict[str, Any] = {}
        secret: dict[str, str] = {}
        for name, value in parameters.items():
            reference = self._places.reference(value)
            if reference is not None:
                secret[str(name)] = reference
                self._say_reference(reference)
                continue
            plain[str(name)] = self._places.filled(value)
            self._say_unknown(plain[str(name)], "parameters", Aspect.PARAMETERS)
        return {**({"parameters": plain} if plain else {}), **({"secret_parameters": secret} if secret else {})}

    def _pool(self) -> dict[str, Any]:
        pool = self._written.get("work_pool")
        if isinstance(pool, str):
            pool = {"name": pool}
        if not isinstance(pool, dict):
            pool = {}
        ours: dict[str, Any] = {}
        name = self._named(pool.get("name"), "pool", Aspect.POOL)
        queue = self._named(pool.get("work_queue_name"), "queue", Aspect.POOL)
        if queue and queue != "default":
            self._queue_of = name or "default"
            name = f"{self._queue_of}.{queue}"
        if name:
            ours["work_pool"] = name
        for key in ("work_queue_name", "job_variables"):
            if self._written.get(key):
                self._say(f"{key}: Prefect reads it below `work_pool` alone, so it had no effect; left out")
        variables = pool.get("job_variables")
        if isinstance(variables, dict):
            ours |= self._job_variables(variables)
        for key, value in pool.items():
            if key not in _POOL and value:
                self._say(f"work_pool.{key}: has no counterpart; left out")
        return ours

    def _named(self, value: Any, what: str, lost: Aspect | None = None) -> str:
        """A name, in which a placeholder without a value is the name of its variable."""
        if value is None or value == "":
            return ""
        text = str(self._places.filled(value))
        for inside in placeholders_in(text):
            given = re.sub(r"[^\w-]", "", inside.rpartition(".")[2].removeprefix("$")) or "default"
            text = re.sub(r"\{\{[^{}]*\}\}", given, text, count=1)
            self._say(
                f"the name of its {what} is in {{{{ {inside} }}}}, which has no value here; set it when importing, or write "
                f"the name in place of {text!r}",
                lost=lost,
            )
        return _name(text)

    def _job_variables(self, variables: dict[str, Any]) -> dict[str, Any]:
        ours: dict[str, Any] = {}
        others: list[str] = []
        for key, value in variables.items():
            if key == "env" and isinstance(value, dict):
                if env := {str(name): self._variable(item) for name, item in value.items() if item is not None}:
                    ours["env"] = env
            elif key == "working_dir" and isinstance(value, str) and not value.startswith(("/", "..", "{")):
                ours["working_dir"] = value
            elif (
                key == "image" and isinstance(value, str) and value and not has_placeholder(self._places.filled(value))
            ):
                ours["image"] = self._places.filled(value)
            elif value not in (None, "", {}, []):
                others.append(str(key)[:80])
        for key in others:
            self._say(f"work_pool.job_variables.{key}: {_JOB_VARIABLES.get(key, _INFRASTRUCTURE)}")
        return ours

    def _variable(self, value: Any) -> str:
        reference = self._places.reference(value)
        if reference is not None:
            self._say_reference(reference)
            return reference
        if not isinstance(value, str):
            return str(value).lower() if isinstance(value, bool) else str(value)
        text = str(self._places.filled(value))
        self._say_unknown(text, "env")
        return text

    def _tags(self) -> list[str]:
        def flat(value: Any) -> Iterator[str]:
            if isinstance(value, list):
                for item in value:
                    yield from flat(item)
            elif value is not None and value != "":
                yield str(self._places.filled(value))

        tags = list(dict.fromkeys(flat(self._written.get("tags"))))
        self._say_unknown(tags, "tags")
        return tags

    def _limit(self) -> dict[str, Any]:
        written = self._places.filled(self._written.get("concurrency_limit"))
        if written is None:
            return {}
        options = written if isinstance(written, dict) else {"limit": written}
        limit = options.get("limit")
        if isinstance(limit, str) and limit.strip().isdecimal() and len(limit) < 9:
            limit = int(limit)
        if limit is None:
            return {}
        strategy = str(options.get("collision_strategy") or "ENQUEUE").upper()
        for key in options:
            if key not in ("limit", "collision_strategy"):
                self._say(f"concurrency_limit.{key}: has no counterpart; left out")
        if strategy == "CANCEL_NEW":
            return {"concurrency": {"limit": limit, "on_limit": "cancel-new"}}
        if strategy != "ENQUEUE":
            self._say(f"concurrency_limit.collision_strategy: Prefect knows no {strategy[:80]!r}; further runs wait")
        return {"concurrency_limit": limit}

    def _name_others(self) -> None:
        for key, value in self._written.items():
            if key == "enforce_parameter_schema":
                if value is False:
                    self._say("enforce_parameter_schema: parameters of a flow are always held against its types")
            elif key not in _READ and value:
                self._say(f"{str(key)[:80]}: has no counterpart; left out")

    def _valid(self, ours: dict[str, Any]) -> dict[str, Any] | None:
        """What of the deployment is valid; a field that is not is left out, and said."""
        for _ in range(len(ours)):
            fault = field_at_fault(Deployment, ours)
            if fault is None:
                return ours
            name, problem = fault
            if name in ("name", "entrypoint") or name not in ours:
                self._say(f"left out, write it by hand: {problem}", lost=Aspect.CODE)
                return None
            del ours[name]
            self._say(f"left out, write it by hand: {problem}", lost=_ASPECTS.get(name))
        return None

    def _say_reference(self, reference: str) -> None:
        self._say(f"give its value to the worker in the environment variable {reference.removeprefix('env:')}")

    def _say_unknown(self, value: Any, where: str, lost: Aspect | None = None) -> None:
        for inside in placeholders_in(value):
            self._say(f"{where}: {{{{ {inside[:200]} }}}} has no value here and is plain text; fill it in", lost=lost)

    def _say(self, message: str, *, lost: Aspect | None = None) -> None:
        self._notes.add(self._subject, message, lost)


_INFRASTRUCTURE = "settings of Prefect's infrastructure have no counterpart; left out"
_JOB_VARIABLES = {
    "image": "it has a placeholder that is not known here; write `image`, and a work pool of `type: docker`",
    "command": "an entry point is called by its worker; a deployment with a `command` runs a program",
    "working_dir": "outside of the project; runs work in the folder of these rules",
}


def _steps(listed: Any) -> Iterator[tuple[str, Any]]:
    for item in listed if isinstance(listed, list) else [listed] if isinstance(listed, dict) else []:
        for name, step in item.items() if isinstance(item, dict) else ():
            yield str(name).rpartition(".")[2][:80], step


def _folders(pull: Any) -> list[str]:
    """The absolute folders that steps of pulling go to: the project is there when it runs."""
    found = [step.get("directory") for _, step in _steps(pull) if isinstance(step, dict)]
    return [folder for folder in found if isinstance(folder, str) and folder.startswith("/") and folder.strip("/")]


def _cloned(pull: Any, places: Placeholders) -> _Clone | None:
    """The clone in which steps of pulling end: the last one, or the one into whose folder they go. None where they end elsewhere."""
    clones: dict[str, dict[str, Any]] = {}
    end: dict[str, Any] | None = None
    folder = ""
    for name, step in _steps(pull):
        if name in _CLONES:
            end, folder = step if isinstance(step, dict) else None, ""
            if end is not None:
                clones[str(end.get("id"))] = end
        elif name == "set_working_directory" and clones:
            found = _CLONE_FOLDER.fullmatch(str(step.get("directory"))) if isinstance(step, dict) else None
            end = clones.get(found[1]) if found is not None else None
            folder = found[2].strip("/") if found is not None else ""
    code = None if end is None else _code_of(end, places)
    return None if end is None or code is None else _Clone(step=end, code=code, folder=folder)


def _code_of(step: dict[str, Any], places: Placeholders) -> dict[str, Any] | None:
    """A step that clones as `code`; None where that can not be said."""
    code: dict[str, Any] = {"git": places.filled(step.get("repository"))}
    if ref := step.get("commit_sha") or step.get("branch"):
        code["ref"] = places.filled(ref)
    if step.get("include_submodules") is True:
        code["submodules"] = True
    if str(code["git"]).startswith("https://") and (token := _token(step, places)):
        code["token"] = token
    valid = problem_of(Deployment, {"name": "n", "entrypoint": "a.py:f", "code": code}) is None
    return code if valid and not has_placeholder(code) else None


def _is_of_clone(name: str, step: Any) -> bool:
    """Whether a step goes into the folder of a clone, or below."""
    return (
        name == "set_working_directory"
        and isinstance(step, dict)
        and _CLONE_FOLDER.fullmatch(str(step.get("directory"))) is not None
    )


def _token(step: dict[str, Any], places: Placeholders) -> str | None:
    """A reference to what admits to the repository: a secret, or the secret of a block of credentials."""
    for key in ("access_token", "credentials"):
        if (reference := places.reference(step.get(key))) is not None:
            return reference
        for inside in placeholders_in(step.get(key)):
            if (block := _BLOCK.fullmatch(inside)) is not None:
                return places.reference(f"{{{{ prefect.blocks.secret.{block[1]} }}}}")
    return None


def _of_what(step: Any) -> str:
    """What a step is about, without what may be a secret."""
    if not isinstance(step, dict):
        return ""
    for key in ("repository", "directory", "bucket", "container", "script", "requirements_file"):
        if isinstance(step.get(key), str):
            text = " ".join(re.sub(r"//[^/@\s]*@", "//", step[key]).split())
            return f" of {text[:120]}"
    return ""


def _name(value: Any) -> str:
    return (
        re.sub(r"[{}\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069/]", "-", str(value)).strip(" $")[:95].strip()
        or "default"
    )
